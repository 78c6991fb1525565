// Neighbour lists as compressed rows in canonical order.
//
// An edge (i, j, S) stands for D = (r_j - r_i) + S @ cell with |D| < cutoff (strictly; |D| rounded in T). It belongs to
// row i, rows are sorted by j, then by S. Both directions of a pair are listed, and self images (i, i, S != 0) are.
#pragma once

#include <cstdint>
#include <vector>

#include "core/view.hpp"
#include "neighbors/math.hpp"

namespace mdgnn {

// One structure. Positions need not be wrapped into the cell. A cell vector of a non-periodic axis is not used.
template <class T>
struct Structure {
    Matrix<const T> positions;  // (N, 3)
    Cell<T> cell;
    bool pbc[3] = {false, false, false};
};

struct EdgeList {
    std::vector<std::int64_t> row_ptr;  // N + 1
    std::vector<std::int64_t> senders;  // E
    std::vector<std::int32_t> shifts;   // E x 3
};

template <class T>
struct EdgeVectors {
    std::vector<std::int64_t> receivers;  // E
    std::vector<T> vectors;               // E x 3
    std::vector<T> distances;             // E
};

namespace cpu {

// All edges shorter than `cutoff`, which may be infinite when no axis is periodic. self_interaction adds (i, i, 0).
// Throws std::invalid_argument with a sentence: non-finite position, cutoff not positive, singular periodic cell.
template <class T>
EdgeList neighbors(const Structure<T>& structure, T cutoff, bool self_interaction, int n_threads);

// The edges of `list` that are shorter than `cutoff` for these positions, with their vectors: what neighbors() would
// return, bit for bit, if `list` holds at least those edges.
template <class T>
EdgeList edges_within(const Structure<T>& structure, const std::int64_t* row_ptr, const std::int64_t* senders,
                      const std::int32_t* shifts, T cutoff, EdgeVectors<T>& vectors);

}  // namespace cpu
}  // namespace mdgnn
