// What the atoms of a bin are compared with.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "neighbors/bins.hpp"
#include "neighbors/math.hpp"

namespace mdgnn::cpu {

// Triples are kept in fours, so that a vector register loads and stores them at once.
template <class T>
struct Place {
    T r[4] = {};
};

// The shift of some candidates, for the receivers at hand.
template <class T>
struct Move {
    T offset[4] = {};            // S @ cell
    std::int32_t shift[4] = {};  // S
};

constexpr std::size_t kMatchesSpare = 16;  // places that may be written past the last match

// What a bin's atoms are compared with, sorted by (j, S). One instance a thread, reused.
template <class T>
struct Candidates {
    std::vector<std::uint32_t> j, move;  // the atom, and its place in moves
    std::vector<Place<T>> places;        // r_j
    std::vector<float> x, y, z;          // the same moved by S @ cell, relative to the middle of the bin
    std::vector<Move<T>> moves;
    std::vector<std::array<std::int32_t, 3>> base;  // of moves: S for a receiver that lies in the cell
    double middle[3] = {};
    float inside = 0, outside = 0;  // squares of distances between such places, beyond which nothing need be checked

    // Before sorting: places in Bins::order, and numbers of images.
    std::vector<std::uint32_t> place, image, key, scratch, rank;
    std::vector<std::array<std::int32_t, 3>> images;
    std::vector<std::array<double, 3>> translations;  // of images
    std::vector<std::uint32_t> receivers;             // places in the bin
    std::vector<std::uint32_t> matches;
    std::vector<std::uint32_t> self;  // by place in the bin: the atom itself

    std::int64_t size() const { return static_cast<std::int64_t>(j.size()); }
};

// Of the vector from r_i to candidate k, as an edge would have it.
template <class T>
T square_to(const Candidates<T>& c, std::int64_t k, const T* ri) {
    const T *rj = c.places[k].r, *offset = c.moves[c.move[k]].offset;
    T d[3];
    for (int a = 0; a < 3; ++a) d[a] = (rj[a] - ri[a]) + offset[a];
    return squared(d[0], d[1], d[2]);
}

// Fills everything but moves: what lies near the box around the bin's atoms, sorted by (j, S).
template <class T>
void gather(const Bins<T>& bins, const Bin& bin, Candidates<T>& c);

// Fills the moves, for receivers `wrap` cells away from the cell.
template <class T>
void translate(Candidates<T>& c, const Cell<T>& cell, const std::array<std::int32_t, 3>& wrap);

}  // namespace mdgnn::cpu
