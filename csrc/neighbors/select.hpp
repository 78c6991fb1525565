// Which candidates of a bin are edges of one of its atoms.
#pragma once

#include <cstdint>

#include "neighbors/candidates.hpp"
#include "neighbors/math.hpp"

namespace mdgnn::cpu {

// The square of the distance from the receiver to candidate k, as an edge would have it.
template <class T>
T square_to(const Bins<T>& bins, const Cell<T>& cell, const Candidates& c, std::int64_t k, std::int64_t receiver) {
    T d[3];
    const Shift s = bins.shift(c.images[c.image_of[k]], c.at[k], receiver);
    edge_vector(bins.positions[receiver].r, bins.positions[c.at[k]].r, s.data(), cell, d);
    return squared(d[0], d[1], d[2]);
}

// The candidates from `first` on, but for `skip` (-1: none), whose distance from candidate `self` has a square of at
// most `limit`: sets their bits in c.mask, and returns how many they are.
template <class T>
std::int64_t select(const Bins<T>& bins, const Cell<T>& cell, Candidates& c, std::int64_t self, T limit,
                    std::int64_t first, std::int64_t skip);

}  // namespace mdgnn::cpu
