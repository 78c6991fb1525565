// Weights as the kernels of instructions take them.
#pragma once

#include <deque>
#include <vector>

#include "engine/instruction.hpp"

namespace mdgnn::engine {

// Of each of a list's instructions. A matrix that several take is packed once, into `packed`, whose elements stay where
// they are. Weights of tables must have been made.
template <class T>
std::vector<Prepared<T>> prepare(const Program& program, const Weights<T>& weights,
                                 const std::vector<Instruction>& instructions, bool with_backward,
                                 std::deque<Packed<T>>& packed);

}  // namespace mdgnn::engine
