// What the atoms of a bin are compared with.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "neighbors/bins.hpp"

namespace mdgnn::cpu {

constexpr std::int64_t kWord = 64;  // candidates a word of a mask

inline std::int64_t words_of(std::int64_t n) { return (n + kWord - 1) / kWord; }

// What a bin's atoms are compared with, sorted by (j, S). One instance a thread, reused.
struct Candidates {
    std::vector<std::uint32_t> at,
        image_of;                   // places of the atoms in the arrays of Bins, and of their images in images
    std::vector<float> x, y, z;     // where the images lie, relative to the middle of the bin; NaN fills the last word
    std::vector<Shift> images;      // of the cell: S but for the cells that the two atoms lie in
    float inside = 0, outside = 0;  // squares of distances between such places, beyond which nothing need be checked

    // What is kept of them where atoms lie in several cells: S for a receiver whose wrap is zero.
    std::vector<std::uint32_t> shift_of;
    std::vector<Shift> shifts;

    // Before sorting.
    std::vector<std::uint32_t> place, image, key, scratch, rank;
    std::vector<std::array<double, 3>> translations;  // of images, to places relative to the middle

    std::vector<std::uint32_t> self;  // by place in the bin: the candidate that is the atom itself
    std::vector<std::uint64_t> mask;  // a bit for every candidate that is a neighbour of the receiver at hand

    std::int64_t size() const { return static_cast<std::int64_t>(at.size()); }
    std::int64_t words() const { return words_of(size()); }
};

// Finds what lies near the box around the bin's atoms, sorted by (j, S).
template <class T>
void gather(const Bins<T>& bins, const Bin& bin, Candidates& c);

}  // namespace mdgnn::cpu
