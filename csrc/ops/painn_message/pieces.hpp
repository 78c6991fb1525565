// What the loops of painn_message have in common: what they see, what a sender gets from its sums, and the gradient of
// the table.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "core/scratch.hpp"
#include "core/vectors.hpp"
#include "ops/painn_message/math.hpp"
#include "ops/painn_message/painn_message.hpp"
#include "ops/radial_filter/edges.hpp"
#include "ops/radial_filter/intervals.hpp"

namespace mdgnn::cpu {

// What the loops see. In the double backward `by` multiplies the gradients.
template <class T>
struct Painn {
    PainnMessage<T> op;
    PainnResult<const T> grad;
    PainnGradients<const T> by;
};

template <class T>
struct PainnScratch {
    FilterRow<T> row;
    std::vector<T> sums;  // of a sender: x0, x1, a, b
};

// Adds two products to what is there.
template <class V, class T, class S>
MDGNN_INLINE void add_two(const V& a, S u, const V& c, const V& d, T* to) {
    V sum;
    load(to, sum);
    sum += a * u;
    sum += c * d;
    store(sum, to);
}

template <class V, class T>
MDGNN_INLINE void load_three(const T* from, std::int64_t width, Three<V>& to) {
    for (int c = 0; c < 3; ++c) load(from + c * width, to[c]);
}

// From the sums of sender j its derivatives for x and v.
template <bool kDoubleBackward, class V, class T>
MDGNN_INLINE void store_sent(const Painn<T>& p, const PainnSent<V>& sum, std::int64_t j, std::int64_t f,
                             const PainnGradients<T>& out) {
    const std::int64_t width = p.op.v.cols / 3;
    V x2, by_x2 = {}, for_x2;
    Three<V> v, by_v = {}, for_v;
    load_three(p.op.v.row(j) + f, width, v);
    load(p.op.x.row(j) + 2 * width + f, x2);
    if constexpr (kDoubleBackward) load_three(p.by.v.row(j) + f, width, by_v);
    if constexpr (kDoubleBackward) load(p.by.x.row(j) + 2 * width + f, by_x2);
    finish_sent<kDoubleBackward>(sum, x2, v, by_x2, by_v, for_x2, for_v);
    for (int c = 0; c < 3; ++c) store(for_v[c], out.v.row(j) + c * width + f);
    store(sum.x0, out.x.row(j) + f);
    store(sum.x1, out.x.row(j) + width + f);
    store(for_x2, out.x.row(j) + 2 * width + f);
}

// The same from sums in memory: x0, x1, a and (kDoubleBackward) b.
template <int kBytes, bool kDoubleBackward, class T>
MDGNN_INLINE void store_all_sent(const Painn<T>& p, const T* memory, std::int64_t width, std::int64_t j,
                                 const PainnGradients<T>& out) {
    each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
        PainnSent<V> sum;
        load(memory + f, sum.x0), load(memory + width + f, sum.x1);
        load_three(memory + 2 * width + f, width, sum.a);
        if constexpr (kDoubleBackward) load_three(memory + 5 * width + f, width, sum.b);
        store_sent<kDoubleBackward>(p, sum, j, f, out);
    });
}

// Zero for those of row j's edges that are beyond the cutoff, where n are within.
template <class T>
void clear_edges_beyond(const Painn<T>& p, std::int64_t j, std::int64_t n, const PainnGradients<T>& out) {
    const std::int64_t first = p.op.columns.row_ptr[j], last = p.op.columns.row_ptr[j + 1];
    if (!out.r || n == last - first) return;
    for (std::int64_t k = first; k < last; ++k) {
        const std::int64_t e = edge_at(p.op.columns, k);
        out.r[e] = T(0);
        std::fill(out.unit + 3 * e, out.unit + 3 * e + 3, T(0));
    }
}

// Adds to the four coefficients of a feature, `all` numbers apart, what they get from the derivatives for the filter
// and (kSlope) its slope.
template <bool kSlope, class V, class T>
MDGNN_INLINE void add_powers(const V& value, const V& slope, const FilterWeights<T>& w, const FilterWeights<T>& dw,
                             std::int64_t all, T* to) {
    for (int n = 0; n < 4; ++n) {
        V sum;
        load(to + n * all, sum);
        sum += value * w.at[n];
        if constexpr (kSlope)
            if (n > 0) sum += slope * dw.at[n];
        store(sum, to + n * all);
    }
}

// Adds the derivative for the coefficients of an interval over its edges.
template <int kBytes, class T, bool kDoubleBackward, std::int64_t kWidth>
MDGNN_INLINE void add_to_interval(const Painn<T>& p, std::span<const IntervalEdge<T>> edges, T* sums) {
    const std::int64_t width = kWidth > 0 ? kWidth : p.op.v.cols / 3, all = 3 * width;
    for (const IntervalEdge<T>& e : edges) {
        const T *const x_row = p.op.x.row(e.sender), *const v_row = p.op.v.row(e.sender);
        const T *const s_row = p.grad.s.row(e.receiver), *const g_row = p.grad.v.row(e.receiver);
        const T *const unit = p.op.unit + 3 * e.edge, u0 = unit[0], u1 = unit[1], u2 = unit[2];
        const FilterWeights<T> w = filter_value(e.t);
        FilterWeights<T> dw;
        const T *by_x_row = x_row, *by_v_row = v_row;
        T by_u0 = 0, by_u1 = 0, by_u2 = 0;
        if constexpr (kDoubleBackward) {
            dw = filter_slope(e.t, p.op.table.per_unit, p.by.r[e.edge]);
            by_x_row = p.by.x.row(e.sender), by_v_row = p.by.v.row(e.sender);
            const T* const by_unit = p.by.unit + 3 * e.edge;
            by_u0 = by_unit[0], by_u1 = by_unit[1], by_u2 = by_unit[2];
        }
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            const T *const x = x_row + f, *const v = v_row + f, *const by_x = by_x_row + f, *const by_v = by_v_row + f;
            T* const to = sums + f;
            V g0, g1, g2, q, y, value, slope = {};
            load(s_row + f, q), load(x, y);
            if constexpr (kDoubleBackward) {
                slope = q * y;
                load(by_x, y);
            }
            value = q * y;
            add_powers<kDoubleBackward>(value, slope, w, dw, all, to);

            load(g_row + f, g0), load(g_row + width + f, g1), load(g_row + 2 * width + f, g2);
            q = g0 * u0, q += g1 * u1, q += g2 * u2;
            load(x + width, y);
            if constexpr (kDoubleBackward) {
                slope = q * y;
                value = g0 * by_u0, value += g1 * by_u1, value += g2 * by_u2;
                value *= y;
                load(by_x + width, y);
                value += q * y;
            } else {
                value = q * y;
            }
            add_powers<kDoubleBackward>(value, slope, w, dw, all, to + width);

            load(v, y), q = g0 * y;
            load(v + width, y), q += g1 * y;
            load(v + 2 * width, y), q += g2 * y;
            if constexpr (kDoubleBackward) {
                load(by_v, y), value = g0 * y;
                load(by_v + width, y), value += g1 * y;
                load(by_v + 2 * width, y), value += g2 * y;
                load(x + 2 * width, y);
                slope = q * y;
                value *= y;
                load(by_x + 2 * width, y);
                value += q * y;
            } else {
                load(x + 2 * width, y);
                value = q * y;
            }
            add_powers<kDoubleBackward>(value, slope, w, dw, all, to + 2 * width);
        });
    }
}

}  // namespace mdgnn::cpu
