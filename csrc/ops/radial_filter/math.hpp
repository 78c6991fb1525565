// A function of the distance as a table of cubic polynomials: what the filters of a network are to its kernels. An edge
// reads the 4 C coefficients of the interval that its length falls into, which stand next to each other.
//
// Coefficients, not values and slopes at the knots: these the caller can round once, from float64. In float32 the
// difference of two neighbouring values would lose the digits that the slope, a force, is made of.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace mdgnn {

// Interval g goes from r = g / per_unit to (g + 1) / per_unit, the last one to the cutoff; t runs from 0 to 1 in it.
// The function is a + b t + c t^2 + d t^3, and zero from the cutoff on.
template <class T>
struct RadialTable {
    const T* coefficients = nullptr;  // (n_intervals, 4, width)
    std::int64_t n_intervals = 0, width = 0;
    T cutoff = 0;
    T per_unit = 0;  // intervals per unit of length
};

// Memory in which CUDA kernels sort edges, for the gradient of a table: as much as table_workspace of cuda_table.hpp
// says for n_edges, 256-byte aligned. The CPU needs none.
struct TableWorkspace {
    void* memory = nullptr;
    std::int64_t n_edges = 0;
};

// What multiplies the four coefficients.
template <class T>
struct FilterWeights {
    T at[4] = {};
};

// Where a distance below the cutoff lies: the interval, and t.
template <class T>
MDGNN_HD inline std::int64_t interval_of(const RadialTable<T>& table, T r, T& t) {
    const T u = r * table.per_unit;
    std::int64_t g = static_cast<std::int64_t>(u);
    if (g >= table.n_intervals) g = table.n_intervals - 1;
    t = u - static_cast<T>(g);
    return g;
}

template <class T>
MDGNN_HD inline FilterWeights<T> filter_value(T t) {
    return {{T(1), t, t * t, t * t * t}};
}

// The derivative for r, times a factor.
template <class T>
MDGNN_HD inline FilterWeights<T> filter_slope(T t, T per_unit, T factor) {
    const T c = per_unit * factor;
    return {{T(0), c, T(2) * t * c, T(3) * t * t * c}};
}

// The second derivative, times a factor; between intervals that of the one above.
template <class T>
MDGNN_HD inline FilterWeights<T> filter_curvature(T t, T per_unit, T factor) {
    const T c = per_unit * per_unit * factor;
    return {{T(0), T(0), T(2) * c, T(6) * t * c}};
}

}  // namespace mdgnn
