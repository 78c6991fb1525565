// What the derivatives of concat_message_table have in common: what they know of an edge, and the gradient of the
// table.
#pragma once

#include <vector>

#include "ops/concat_message/table.hpp"
#include "ops/radial_filter/edges.hpp"
#include "ops/silu/wide.hpp"

namespace mdgnn::cpu {

// What the loops see. In the double backward `by` multiplies the gradients.
template <class T>
struct Concat {
    ConcatMessageTable<T> op;
    ConcatMessageResult<const T> grad;
    ConcatMessageGradients<const T> by;

    std::int64_t width() const { return op.ends.cols / 2; }
};

// What the loops need of an edge besides its features. In the double backward by_r multiplies the gradient of r, and
// by_c that of c; `by` is where the factors of the coefficients' gradient stand, or null.
template <class T>
struct Message {
    const T *coefficients = nullptr, *by = nullptr;
    FilterWeights<T> value, slope, curvature;  // the last times by_r
    T c = 0, c_slope = 0, c_curvature = 0, by_r = 0, by_c = 0;
};

template <class T, bool kDoubleBackward>
MDGNN_INLINE void set_message(const Concat<T>& p, const FilterEdge<T>& e, Message<T>& m) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    m.coefficients = e.coefficients;
    m.value = filter_value(e.t);
    m.slope = filter_slope(e.t, per_unit, T(1));
    interpolate_value(m.value, e.coefficients + width, all, m.c);
    interpolate_slope(m.slope, e.coefficients + width, all, m.c_slope);
    if constexpr (kDoubleBackward) {
        m.by_r = p.by.r[e.edge];
        m.curvature = filter_curvature(e.t, per_unit, m.by_r);
        m.by_c = m.by_r * m.c_slope;
        interpolate_slope(m.curvature, e.coefficients + width, all, m.c_curvature);
        m.by = p.by.coefficients ? p.by.coefficients + (e.coefficients - p.op.table.coefficients) : nullptr;
        if (m.by) {
            T value, slope;
            interpolate_value(m.value, m.by + width, all, value);
            interpolate_slope(m.slope, m.by + width, all, slope);
            m.by_c += value, m.c_curvature += slope;
        }
    }
}

// Some features of a message: g silu(x), and its derivatives times what they are multiplied by.
template <class T, bool kDoubleBackward, class V>
struct Piece {
    V g, silu, slope, gradient;  // gradient: the derivative for x
    V filter_slope, q;           // q: what multiplies the gradient of x

    MDGNN_INLINE Piece(const Concat<T>& p, const Message<T>& m, std::int64_t i, std::int64_t j, std::int64_t f) {
        const std::int64_t width = p.width(), all = width + 1;
        V sent, received, filter;
        load(p.op.ends.row(j) + f, sent), load(p.op.ends.row(i) + width + f, received);
        load(p.grad.messages.row(i) + f, g);
        interpolate_value(m.value, m.coefficients + f, all, filter);
        interpolate_slope(m.slope, m.coefficients + f, all, filter_slope);
        const SiluParts<T, V> parts((sent + received) + filter);
        parts.value(silu);
        parts.slope(slope);
        gradient = g * slope;
        if constexpr (kDoubleBackward) {
            V curvature;
            parts.curvature(curvature);
            load(p.by.ends.row(j) + f, sent), load(p.by.ends.row(i) + width + f, received);
            q = (sent + received) + filter_slope * m.by_r;
            if (m.by) {
                interpolate_value(m.value, m.by + f, all, filter);
                q += filter;
            }
            gradient = gradient * m.by_c + g * q * curvature * m.c;
        } else {
            gradient *= m.c;
        }
    }
};

// Adds x to what is there.
template <class V, class T>
MDGNN_INLINE void add(const V& x, T* to) {
    V sum;
    load(to, sum);
    sum += x;
    store(sum, to);
}

// Adds the derivative for the coefficients over the rows begin .. end.
template <int kBytes, class T, bool kDoubleBackward>
MDGNN_INLINE void add_to_table(const Concat<T>& p, T* coefficients, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    for (std::int64_t i = begin; i < end; ++i) {
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        for (const FilterEdge<T>& e : edges) {
            Message<T> m;
            set_message<T, kDoubleBackward>(p, e, m);
            T* const at = coefficients + (e.coefficients - p.op.table.coefficients);
            T parts[2];  // the derivative for c without that of s, and for what multiplies c in it
            const auto add_piece = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const Piece<T, kDoubleBackward, V> x(p, m, i, e.other, f);
                V along = x.g * x.slope;
                sum[0] += x.g * x.silu;
                if constexpr (kDoubleBackward) sum[1] += along * x.q;
                along *= m.c * m.by_r;
                for (int n = 0; n < 4; ++n) {
                    if constexpr (kDoubleBackward)
                        add(x.gradient * m.value.at[n] + along * m.slope.at[n], at + n * all + f);
                    else
                        add(x.gradient * m.value.at[n], at + n * all + f);
                }
            };
            sum_pieces<kBytes, T, 2>(width, add_piece, parts);
            parts[0] += p.grad.s[i];
            for (int n = 0; n < 4; ++n)
                at[n * all + width] += kDoubleBackward ? parts[1] * m.value.at[n] + m.by_r * parts[0] * m.slope.at[n]
                                                       : parts[0] * m.value.at[n];
        }
    }
}

}  // namespace mdgnn::cpu
