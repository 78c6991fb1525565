// What the atoms of a bin are compared with.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "neighbors/bins.hpp"

namespace mdgnn::cpu {

constexpr std::int64_t kWord = 64;  // candidates a word of a mask

// What a bin's atoms are compared with, sorted by (j, S). One instance a thread, reused.
struct Candidates {
    std::vector<std::uint32_t> at,
        image_of;                   // places of the atoms in the arrays of Bins, and of their images in images
    std::vector<float> x, y, z;     // where the images lie, relative to the middle of the bin; NaN fills the last word
    std::vector<Shift> images;      // of the cell; S between atoms that lie in the cell
    float inside = 0, outside = 0;  // squares of distances between such places, beyond which nothing need be checked

    // Before sorting.
    std::vector<std::uint32_t> place, image, key, scratch, rank;
    std::vector<std::array<double, 3>> translations;  // of images, to places relative to the middle

    std::vector<std::uint32_t> self;  // by place in the bin: the candidate that is the atom itself
    std::vector<std::uint64_t> mask;  // a bit for every candidate that is a neighbour of the receiver at hand

    std::int64_t size() const { return static_cast<std::int64_t>(at.size()); }
    std::int64_t words() const { return (size() + kWord - 1) / kWord; }
};

// Finds what lies near the box around the bin's atoms, sorted by (j, S).
template <class T>
void gather(const Bins<T>& bins, const Bin& bin, Candidates& c);

}  // namespace mdgnn::cpu
