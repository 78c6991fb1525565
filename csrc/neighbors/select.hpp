// Which candidates of a bin are edges of one of its atoms.
#pragma once

#include <cstdint>

#include "neighbors/candidates.hpp"

namespace mdgnn::cpu {

// The candidates from `first` on, but for `skip` (-1: none), whose distance from candidate `self` has a square of at
// most `limit`. Writes their numbers, ascending, unless `found` is null; it may write
// kMatchesSpare places more. Returns how many they are.
template <class T>
std::int64_t select(const Candidates<T>& c, std::int64_t self, T limit, std::int64_t first, std::int64_t skip,
                    std::uint32_t* found);

}  // namespace mdgnn::cpu
