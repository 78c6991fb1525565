// The geometry of an edge, in one precision and one order of operations. Files that include this are compiled with
// floating-point contraction off: (i, j, S) and (j, i, -S) then give exactly opposite vectors, so that a full list is
// symmetric under rounding, and every device and instruction set decides alike.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
struct Cell {
    T rows[3][3] = {};  // rows are the cell vectors
};

// S @ cell, component c
template <class T>
MDGNN_HD inline T translation(T s0, T s1, T s2, const Cell<T>& cell, int c) {
    return (s0 * cell.rows[0][c] + s1 * cell.rows[1][c]) + s2 * cell.rows[2][c];
}

// d = (r_j - r_i) + S @ cell
template <class T>
MDGNN_HD void edge_vector(const T* ri, const T* rj, const std::int32_t* shift, const Cell<T>& cell, T* d) {
    const T s0 = static_cast<T>(shift[0]), s1 = static_cast<T>(shift[1]), s2 = static_cast<T>(shift[2]);
    for (int c = 0; c < 3; ++c) d[c] = (rj[c] - ri[c]) + translation(s0, s1, s2, cell, c);
}

template <class T>
MDGNN_HD inline T squared(T x, T y, T z) {
    return (x * x + y * y) + z * z;
}

// The largest number whose square root is below the cutoff: comparing squares with it decides as distances would.
// Below zero, which nothing passes, when there is none.
template <class T>
T largest_square_below(T cutoff) {
    if (!(cutoff > 0)) return T(-1);
    if (!(cutoff < std::numeric_limits<T>::infinity())) return std::numeric_limits<T>::max();
    T x = cutoff * cutoff;
    if (!(x < std::numeric_limits<T>::infinity())) return std::numeric_limits<T>::max();
    while (std::sqrt(x) < cutoff) x = std::nextafter(x, std::numeric_limits<T>::infinity());
    while (x > 0 && !(std::sqrt(x) < cutoff)) x = std::nextafter(x, T(0));
    return std::sqrt(x) < cutoff ? x : T(-1);
}

}  // namespace mdgnn
