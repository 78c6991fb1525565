// polar: lengths and directions of edge vectors.
//
//   r[e] = |v[e]|,   u[e] = v[e] / r[e]
//
// The direction of an edge of length zero counts as zero, and so do all its derivatives.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn::cpu {

// vectors (E, 3) -> lengths (E), unit (E, 3); the latter may be null.
template <class T>
void polar(const T* vectors, std::int64_t n_edges, T* lengths, T* unit, const Context& context);

// Lengths (E) and directions (E, 3), or their gradients; null counts as zero.
template <class T>
struct PolarPair {
    T *lengths = nullptr, *unit = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("lengths", lengths);
        visit("unit", unit);
    }
};

// out (E, 3)
template <class T>
void polar_backward(const T* vectors, std::int64_t n_edges, const PolarPair<const T>& grad, T* out,
                    const Context& context);

// The derivative of <grad2, out of backward>, grad2 (E, 3), for grad (out_grad; what is null there is not written) and
// vectors.
template <class T>
void polar_double_backward(const T* vectors, std::int64_t n_edges, const T* grad2, const PolarPair<const T>& grad,
                           const PolarPair<T>& out_grad, T* out, const Context& context);

}  // namespace mdgnn::cpu
