// What the atoms of a bin are compared with.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "neighbors/bins.hpp"

namespace mdgnn::cpu {

template <class T>
struct Candidate {
    T r[3], offset[3];      // r_j and S @ cell
    std::int32_t shift[3];  // S for the receivers at hand
    std::uint32_t j;
};

// What a bin's atoms are compared with, sorted by (j, S). One instance a thread, reused.
template <class T>
struct Candidates {
    std::vector<Candidate<T>> sorted;
    std::vector<std::array<std::int32_t, 3>> base;  // S for a receiver that lies in the cell
    std::vector<float> x, y, z;                     // places relative to the middle of the bin
    double middle[3] = {};
    float inside = 0, outside = 0;  // squares of distances between such places, beyond which nothing need be checked

    // Before sorting: places in Bins::order, and numbers of images.
    std::vector<std::uint32_t> place, image, key, scratch, rank;
    std::vector<std::array<std::int32_t, 3>> images;
    std::vector<std::array<double, 3>> translations;  // of images
    std::vector<std::uint32_t> receivers, matches;

    std::int64_t size() const { return static_cast<std::int64_t>(sorted.size()); }
};

// Fills everything but shifts and offsets: what lies near the box around the bin's atoms, sorted by (j, S).
template <class T>
void gather(const Structures<T>& structures, const Bins<T>& bins, const Bin& bin, Candidates<T>& c);

// S and S @ cell of the candidates, for receivers `wrap` cells away from the cell.
template <class T>
void translate(Candidates<T>& c, const Cell<T>& cell, const std::array<std::int32_t, 3>& wrap);

// The candidate (i, S = 0); i is one of the bin's atoms, translated for its wrap.
template <class T>
std::int64_t place_of_self(const Candidates<T>& c, std::int64_t i);

}  // namespace mdgnn::cpu
