// A function of the distance, tabulated at evenly spaced knots and interpolated by cubic Hermite polynomials: what the
// filters of a network are to its kernels. Of every distance two neighbouring knots matter, each with a value and a
// slope; they stand next to each other, so that an edge reads 4 C numbers in a row.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace mdgnn {

// Knot g at r = g cutoff / (n_knots - 1). Zero from the cutoff on.
template <class T>
struct RadialTable {
    const T* knots = nullptr;  // (n_knots, 2, width): values; slopes times the distance between knots
    std::int64_t n_knots = 0, width = 0;
    T cutoff = 0;
    T per_unit = 0;  // knots per unit of length, (n_knots - 1) / cutoff
};

// What multiplies value and slope of the knot below and of the one above.
template <class T>
struct HermiteWeights {
    T at[4] = {};
};

// Where a distance below the cutoff lies: the knot below it, and how far it is to the next, from 0 to 1.
template <class T>
MDGNN_HD inline std::int64_t knot_below(const RadialTable<T>& table, T r, T& t) {
    const T u = r * table.per_unit;
    std::int64_t g = static_cast<std::int64_t>(u);
    if (g > table.n_knots - 2) g = table.n_knots - 2;
    t = u - static_cast<T>(g);
    return g;
}

template <class T>
MDGNN_HD inline HermiteWeights<T> hermite_value(T t) {
    const T s = T(1) - t;
    return {{(T(1) + T(2) * t) * s * s, t * s * s, t * t * (T(3) - T(2) * t), t * t * (t - T(1))}};
}

// The derivative for r, times a factor.
template <class T>
MDGNN_HD inline HermiteWeights<T> hermite_slope(T t, T per_unit, T factor) {
    const T c = per_unit * factor, a = T(6) * t * (t - T(1)) * c;
    return {{a, (T(3) * t - T(1)) * (t - T(1)) * c, -a, t * (T(3) * t - T(2)) * c}};
}

// The second derivative, times a factor; at a knot that of the interval above it.
template <class T>
MDGNN_HD inline HermiteWeights<T> hermite_curvature(T t, T per_unit, T factor) {
    const T c = per_unit * per_unit * factor, a = (T(12) * t - T(6)) * c;
    return {{a, (T(6) * t - T(4)) * c, -a, (T(6) * t - T(2)) * c}};
}

}  // namespace mdgnn
