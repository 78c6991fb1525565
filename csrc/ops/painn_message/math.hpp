// The maths of painn_message for one edge and some features, shared by the host and the device. V: so many features at
// once; x: the sender's three blocks, v: its vectors, w and dw: the filter's blocks and their slopes for r, the latter
// times what multiplies the gradient for r. kDoubleBackward: what the double backward needs, with by_..: what
// multiplies the gradient for ... . Results come by reference: vectors are never returned (core/vectors.hpp).
#pragma once

#include "core/host_device.hpp"

namespace mdgnn {

template <class V, class T>
MDGNN_HD MDGNN_INLINE void dot(const V* a, const T* b, V& sum) {
    sum = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// Three blocks or components of a row, `width` apart.
template <class V>
struct Three {
    V at[3];
    MDGNN_HD MDGNN_INLINE V& operator[](int c) { return at[c]; }
    MDGNN_HD MDGNN_INLINE const V& operator[](int c) const { return at[c]; }
};

// What the sender and its edge have.
template <class V, class T>
struct PainnEdge {
    Three<V> x, v, w, dw, by_x, by_v;
    Three<T> unit, by_unit;
};

// Adds the message to the receiver's s and v or, in the double backward, its derivative.
template <bool kDoubleBackward, class V, class T>
MDGNN_HD MDGNN_INLINE void add_message(const PainnEdge<V, T>& e, V& s, Three<V>& v) {
    Three<V> product;
    for (int c = 0; c < 3; ++c) {
        product[c] = e.x[c] * e.w[c];
        if constexpr (kDoubleBackward) {  // direction and vector have gradients of their own
            for (int d = 0; d < 3 && c == 1; ++d) v[d] += product[c] * e.by_unit[d];
            for (int d = 0; d < 3 && c == 2; ++d) v[d] += product[c] * e.by_v[d];
            product[c] = e.by_x[c] * e.w[c] + e.x[c] * e.dw[c];
        }
    }
    s += product[0];
    for (int c = 0; c < 3; ++c) v[c] += product[1] * e.unit[c] + product[2] * e.v[c];
}

// What a sender sums over its edges: for the blocks 0 and 1 of x, and the gradients of v times the filter and its
// slope.
template <class V>
struct PainnSent {
    V x0 = {}, x1 = {};
    Three<V> a = {}, b = {};
};

// Of one edge, whose receiver has the gradients gs and gv. Neither x nor v of the sender is needed.
template <bool kDoubleBackward, class V, class T>
MDGNN_HD MDGNN_INLINE void add_sent(const PainnEdge<V, T>& e, const V& gs, const Three<V>& gv, PainnSent<V>& sum) {
    V along;
    dot(gv.at, e.unit.at, along);
    for (int c = 0; c < 3; ++c) sum.a[c] += gv[c] * e.w[2];
    if constexpr (kDoubleBackward) {
        V by_along;
        dot(gv.at, e.by_unit.at, by_along);
        sum.x0 += gs * e.dw[0];
        sum.x1 += along * e.dw[1] + by_along * e.w[1];
        for (int c = 0; c < 3; ++c) sum.b[c] += gv[c] * e.dw[2];
    } else {
        sum.x0 += gs * e.w[0];
        sum.x1 += along * e.w[1];
    }
}

// The sender's derivatives for block 2 of x, whose value is x2, and for v.
template <bool kDoubleBackward, class V>
MDGNN_HD MDGNN_INLINE void finish_sent(const PainnSent<V>& sum, const V& x2, const Three<V>& v, const V& by_x2,
                                       const Three<V>& by_v, V& for_x2, Three<V>& for_v) {
    V zero = {};
    for_x2 = zero;
    for (int c = 0; c < 3; ++c) {
        for_v[c] = x2 * (kDoubleBackward ? sum.b[c] : sum.a[c]);
        for_x2 += v[c] * (kDoubleBackward ? sum.b[c] : sum.a[c]);
        if constexpr (kDoubleBackward) {
            for_x2 += by_v[c] * sum.a[c];
            for_v[c] += by_x2 * sum.a[c];
        }
    }
}

// What multiplies x W in the sum: q, and (double backward) that for the gradients of unit and v, by_q, whose first
// block is zero.
template <bool kDoubleBackward, class V, class T>
MDGNN_HD MDGNN_INLINE void factors(const PainnEdge<V, T>& e, const V& gs, const Three<V>& gv, Three<V>& q,
                                   Three<V>& by_q) {
    q[0] = gs;
    dot(gv.at, e.unit.at, q[1]);
    q[2] = gv[0] * e.v[0] + gv[1] * e.v[1] + gv[2] * e.v[2];
    if constexpr (kDoubleBackward) {
        dot(gv.at, e.by_unit.at, by_q[1]);
        by_q[2] = gv[0] * e.by_v[0] + gv[1] * e.by_v[1] + gv[2] * e.by_v[2];
    }
}

// Adds the terms of the derivatives for r (sum[0]) and unit (the others). slope: the filter's for r, times nothing;
// curvature (double backward): that of dw.
template <bool kDoubleBackward, class V, class T>
MDGNN_HD MDGNN_INLINE void add_edge_gradients(const PainnEdge<V, T>& e, const V& gs, const Three<V>& gv,
                                              const Three<V>& slope, const Three<V>& curvature, V* sum) {
    Three<V> q, by_q;
    factors<kDoubleBackward>(e, gs, gv, q, by_q);
    for (int c = 0; c < 3; ++c) {
        if constexpr (kDoubleBackward) {
            sum[0] += q[c] * (e.by_x[c] * slope[c] + e.x[c] * curvature[c]);
            if (c > 0) sum[0] += by_q[c] * e.x[c] * slope[c];
        } else {
            sum[0] += q[c] * e.x[c] * slope[c];
        }
    }
    V b = e.x[1] * e.w[1];
    if constexpr (kDoubleBackward) b = e.by_x[1] * e.w[1] + e.x[1] * e.dw[1];
    for (int c = 0; c < 3; ++c) sum[1 + c] += gv[c] * b;
}

// What an edge's filter and (double backward) its slope are multiplied by.
template <bool kDoubleBackward, class V, class T>
MDGNN_HD MDGNN_INLINE void filter_gradients(const PainnEdge<V, T>& e, const V& gs, const Three<V>& gv, V* value,
                                            V* slope) {
    Three<V> q, by_q;
    factors<kDoubleBackward>(e, gs, gv, q, by_q);
    for (int c = 0; c < 3; ++c) {
        value[c] = q[c] * e.x[c];
        if constexpr (kDoubleBackward) {
            slope[c] = value[c];
            value[c] = q[c] * e.by_x[c];
            if (c > 0) value[c] += by_q[c] * e.x[c];
        }
    }
}

}  // namespace mdgnn
