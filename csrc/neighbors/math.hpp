// The geometry of an edge, in one precision and one order of operations. Files that include this are compiled with
// floating-point contraction off: (i, j, S) and (j, i, -S) then give exactly opposite vectors, so that a full list is
// symmetric under rounding.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
struct Cell {
    T rows[3][3] = {};  // rows are the cell vectors
};

// d = (r_j - r_i) + S @ cell
template <class T>
MDGNN_HD void edge_vector(const T* ri, const T* rj, const std::int32_t* shift, const Cell<T>& cell, T* d) {
    const T s0 = static_cast<T>(shift[0]), s1 = static_cast<T>(shift[1]), s2 = static_cast<T>(shift[2]);
    for (int c = 0; c < 3; ++c)
        d[c] = (rj[c] - ri[c]) + ((s0 * cell.rows[0][c] + s1 * cell.rows[1][c]) + s2 * cell.rows[2][c]);
}

template <class T>
MDGNN_HD T length(const T* d) {
    return std::sqrt((d[0] * d[0] + d[1] * d[1]) + d[2] * d[2]);
}

}  // namespace mdgnn
