// Neighbour lists as compressed rows in canonical order.
//
// An edge (i, j, S) stands for D = (r_j - r_i) + S @ cell with |D| < cutoff (strictly; |D| rounded in T). It belongs to
// row i, rows are sorted by j, then by S. A full list holds both directions of a pair, and self images (i, i, S != 0).
// A half list holds one of them: i < j, or i = j and the first component of S that is not zero is positive.
//
// Lists are made in two calls: one finds and counts the edges of every row, the other writes them where the caller
// wants them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "core/view.hpp"
#include "neighbors/grid.hpp"
#include "neighbors/math.hpp"

namespace mdgnn {

class Arena;

// One structure or a batch of them. Positions need not be wrapped into the cell. A cell vector of an axis that is not
// periodic is not used.
template <class T>
struct Structures {
    Matrix<const T> positions;            // (N, 3), of all structures
    const std::int64_t* first = nullptr;  // n + 1: the atoms of structure s are first[s] .. first[s + 1]
    std::int64_t n = 0;
    const T* cells = nullptr;   // (n, 3, 3)
    const bool* pbc = nullptr;  // (n, 3)

    template <class V>
    void fields(V&& visit) {
        visit("positions", positions);
        visit("first", first);
        visit("n_structures", n);
        visit("cells", cells);
        visit("pbc", pbc);
    }

    // Zero on axes that are not periodic.
    MDGNN_HD Cell<T> cell(std::int64_t s) const {
        Cell<T> out;
        for (int k = 0; k < 3; ++k)
            for (int c = 0; c < 3; ++c) out.rows[k][c] = pbc[3 * s + k] ? cells[9 * s + 3 * k + c] : T(0);
        return out;
    }
};

// Cutoffs that differ between pairs of atoms: the sum of two radii, or by kinds of atoms.
struct PairCutoffs {
    const double* radii = nullptr;        // (N)
    const std::int32_t* kinds = nullptr;  // (N), where there are no radii
    const double* table = nullptr;        // (n_kinds, n_kinds)
    std::int64_t n_kinds = 0;

    explicit operator bool() const { return radii || kinds; }
    double of(std::int64_t i, std::int64_t j) const {
        return radii ? radii[i] + radii[j] : table[kinds[i] * n_kinds + kinds[j]];
    }
};

template <class T>
struct NeighborOptions {
    T cutoff = 0;                   // may be infinite when no axis is periodic
    bool self_interaction = false;  // adds (i, i, 0)
    bool half = false;
    int n_threads = 1;
    PairCutoffs pairs = {};  // none above the cutoff

    // What a search on a GPU heeds.
    template <class V>
    void fields(V&& visit) {
        visit("cutoff", cutoff);
        visit("self_interaction", self_interaction);
        visit("half", half);
    }
};

// Where edges are written, from row_ptr[i] on for row i. What is null is not written; of each pair of index types the
// caller gives one.
template <class T>
struct EdgeArrays {
    std::int64_t *receivers = nullptr, *senders = nullptr;
    std::int32_t *receivers32 = nullptr, *senders32 = nullptr;
    std::int64_t* shifts = nullptr;    // (E, 3)
    std::int32_t* shifts32 = nullptr;  // (E, 3)
    T* vectors = nullptr;              // (E, 3)
    T* distances = nullptr;            // (E)
    std::int64_t* reverse = nullptr;   // (E): the place of (j, i, -S); full lists only, with senders and shifts
    std::int32_t* reverse32 = nullptr;

    // What Python gives to a search on a GPU.
    template <class V>
    void fields(V&& visit) {
        visit("receivers", receivers);
        visit("senders", senders);
        visit("reverse", reverse);
        visit("receivers32", receivers32);
        visit("senders32", senders32);
        visit("reverse32", reverse32);
        visit("shifts32", shifts32);
        visit("vectors", vectors);
        visit("distances", distances);
    }
};

// Why a search was refused, as a sentence; where: the atom or structure, -1 for the only structure; got: the offending
// position or the number of images, in words.
std::string in_words(double number);
std::string neighbor_error(NeighborCode code, std::int64_t where, double cutoff, const std::string& got);

namespace cpu {

template <class T>
class Bins;
struct SavedRows;
struct Candidates;

// A search for all edges shorter than the cutoff. The arrays of `structures` must outlive it.
template <class T>
class NeighborSearch {
  public:
    // Throws std::invalid_argument with a sentence: non-finite position, cutoff not positive, singular periodic cell.
    NeighborSearch(const Structures<T>& structures, const NeighborOptions<T>& options);
    ~NeighborSearch();

    // row_ptr (N + 1). To be called once, before any fill.
    void count(std::int64_t* row_ptr);
    // Whether the memory sufficed to keep what was counted, which fill needs.
    bool complete() const;
    void fill(const std::int64_t* row_ptr, const EdgeArrays<T>& out) const;

  private:
    // Counts the edges of a bin's atoms, and keeps them.
    void search(std::int64_t b, Arena& arena, std::int64_t* row_ptr);
    std::int64_t drop_pairs(Candidates& c, const Cell<T>& cell, std::int64_t at) const;

    Structures<T> structures_;
    NeighborOptions<T> options_;
    T limit_;  // of squared distances
    std::unique_ptr<Bins<T>> bins_;
    std::unique_ptr<SavedRows> saved_;
};

// The place of (j, i, -S) for every edge (i, j, S) of a full list in canonical order.
template <class Index>
void reverse_edges(std::int64_t n_atoms, const std::int64_t* row_ptr, const Index* senders, Index* reverse);

// A list made with a longer cutoff.
struct ListView {
    const std::int64_t *row_ptr, *senders;
    const std::int32_t* shifts;
};

// The edges of `list` that are shorter than the cutoff for these positions, of one structure: what a search would find,
// bit for bit, if `list` holds at least those edges. Receivers, senders, shifts32, vectors and distances are written.
template <class T>
void count_within(const Structures<T>& structure, const NeighborOptions<T>& options, const ListView& list,
                  std::int64_t* row_ptr);
template <class T>
void fill_within(const Structures<T>& structure, const NeighborOptions<T>& options, const ListView& list,
                 const std::int64_t* row_ptr, const EdgeArrays<T>& out);

// Throws std::invalid_argument with a sentence for a position that is not finite or a cutoff that cannot be.
template <class T>
void check_input(const Structures<T>& structures, T cutoff);

}  // namespace cpu

namespace cuda {

// What became of a count, in device memory.
struct NeighborStatus {
    std::int64_t n_edges = 0;  // that there are, whatever the capacity; 0 if the search was refused
    std::int64_t code = 0;     // a NeighborCode; of several reasons the one with the smallest number
    std::int64_t where = -1;   // the first atom or structure that it holds for; -1 for the only structure
};

// Both calls only launch kernels: nothing is allocated and the host never waits, so that a CUDA graph can hold them.
// Every pointer is one of the device: positions, first, cells, pbc, and the workspace of so many bytes.
template <class T>
std::int64_t neighbor_workspace(std::int64_t n_atoms, std::int64_t n_structures);

// row_ptr (N + 1) is cut off at `capacity`: nothing is written beyond it, and n_edges > capacity says that edges are
// missing. If the search is refused every row is empty. Throws std::invalid_argument for what the host can see: a
// cutoff that is not positive, too many atoms.
template <class T>
void neighbors_count(const Structures<T>& structures, const NeighborOptions<T>& options, void* workspace,
                     std::int64_t capacity, std::int64_t* row_ptr, NeighborStatus* status, const Context& context);

// With the structures, options, workspace and row_ptr of the count, all unchanged. Reverse is -1 for an edge whose
// partner the capacity has cut off.
template <class T>
void neighbors_fill(const Structures<T>& structures, const NeighborOptions<T>& options, void* workspace,
                    const std::int64_t* row_ptr, const EdgeArrays<T>& out, const Context& context);

}  // namespace cuda
}  // namespace mdgnn
