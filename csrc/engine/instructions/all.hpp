// Every kind of instruction that the engine has.
#pragma once

#include <span>
#include <string>

#include "engine/instruction.hpp"

namespace mdgnn::engine {

// Throws std::invalid_argument, which names it, where there is none.
const Declaration& declaration_of(const std::string& name);

std::span<const Declaration> elementwise();
std::span<const Declaration> arithmetic();
std::span<const Declaration> reductions();
std::span<const Declaration> sources();

}  // namespace mdgnn::engine
