// Bins: the atoms of all structures by place, in double precision. They only propose pairs; whether a pair is an edge
// is decided elsewhere, exactly.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "core/arena.hpp"
#include "neighbors/grid.hpp"
#include "neighbors/neighbors.hpp"

namespace mdgnn::cpu {

// Triples are kept in fours, so that a vector register loads and stores them at once.
template <class T>
struct Place {
    T r[4] = {};
};

using Shift = std::array<std::int32_t, 3>;

// In place of ==, which calls memcmp.
inline bool same(const Shift& a, const Shift& b) { return ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2])) == 0; }

struct Bin {
    std::int64_t structure = 0;
    std::int64_t place[3] = {};
    std::int64_t first = 0, last = 0;  // in Bins::order
    double low[3] = {}, high[3] = {};  // the box around its atoms, wrapped
};

template <class T>
class Bins {
  public:
    // Throws std::invalid_argument with a sentence: singular cell, an atom too far away, too many images.
    Bins(const Structures<T>& structures, T cutoff, int n_threads);

    // The bin there, or -1 where no atom is.
    std::int64_t find(std::int64_t structure, const std::int64_t* place) const;

    // S of an edge: the image of the sender's place, and the cells that the two atoms lie in.
    Shift shift(Shift image, std::int64_t sender, std::int64_t receiver) const {
        for (int k = 0; wraps && k < 3; ++k) image[k] += wraps[receiver][k] - wraps[sender][k];
        return image;
    }

    void forget_coordinates() { coordinates_ = Arena(), x = y = z = nullptr; }

    std::vector<Grid> grids;  // by structure
    std::vector<Bin> bins;    // that hold atoms
    // Of atoms in the order of bins, so that what belongs together lies together:
    std::uint32_t* order = nullptr;                   // their numbers, ascending in each bin
    Place<T>* positions = nullptr;                    // as they were given
    double *x = nullptr, *y = nullptr, *z = nullptr;  // positions wrapped into the cell
    // How many cells an atom is away from its place x, y, z, beyond those that most atoms of its structure are away:
    // only differences matter. Null: all are zero.
    Shift* wraps = nullptr;

  private:
    struct Spot;
    std::vector<Shift> number_atoms(const Structures<T>& structures, Spot* spots);
    std::vector<std::uint32_t> sort_by_place();
    std::uint64_t slot(std::int64_t structure, const std::int64_t* place) const;

    std::vector<std::int64_t> table_;  // open addressing, a power of two of slots; -1 is free
    Arena arrays_, coordinates_;
};

}  // namespace mdgnn::cpu
