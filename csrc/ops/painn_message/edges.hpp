// The edges of one row, and what the loops over features load for them.
#pragma once

#include <cstdint>
#include <vector>

#include "ops/painn_message/math.hpp"
#include "ops/painn_message/painn_message.hpp"
#include "ops/radial_filter/edges.hpp"

namespace mdgnn::cpu {

// What the loops see. `double_backward`: the loop is that of the double backward, which multiplies the gradients by
// `by`.
template <class T>
struct Painn {
    PainnMessage<T> op;
    PainnResult<const T> grad;
    PainnGradients<const T> by;
    bool double_backward = false;
};

// An edge with the weights of its filter; what multiplies the gradient of its length is in the slopes.
template <class T>
struct Message {
    const T* coefficients;
    std::int64_t other, edge;
    FilterWeights<T> value, slope;
};

template <class T>
struct PainnScratch {
    FilterRow<T> row;
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    std::vector<T> sums;  // of a sender: x0, x1, a
};

template <class T, bool kDoubleBackward>
MDGNN_INLINE void messages_of(const Painn<T>& p, const Rows& rows, std::int64_t i, PainnScratch<T>& scratch) {
    filter_edges(rows, p.op.table, p.op.r, i, scratch.edges);
    const std::size_t n = scratch.edges.size();
    scratch.messages.resize(n);
    for (std::size_t k = 0; k < n; ++k) {
        const FilterEdge<T>& e = scratch.edges[k];
        Message<T>& m = scratch.messages[k];
        m.coefficients = e.coefficients, m.other = e.other, m.edge = e.edge;
        m.value = filter_value(e.t);
        if constexpr (kDoubleBackward) m.slope = filter_slope(e.t, p.op.table.per_unit, p.by.r[e.edge]);
    }
}

template <class V, class T>
MDGNN_INLINE void load_three(const T* from, std::int64_t width, Three<V>& to) {
    for (int c = 0; c < 3; ++c) load(from + c * width, to[c]);
}

template <bool kDoubleBackward, class V, class T>
MDGNN_INLINE void load_directions(const Painn<T>& p, const Message<T>& m, PainnEdge<V, T>& e) {
    load_three(p.op.unit + 3 * m.edge, 1, e.unit);
    if constexpr (kDoubleBackward) load_three(p.by.unit + 3 * m.edge, 1, e.by_unit);
}

// x and v of the sender, and what multiplies their gradients.
template <bool kDoubleBackward, class V, class T>
MDGNN_INLINE void load_sender(const Painn<T>& p, const Message<T>& m, std::int64_t f, PainnEdge<V, T>& e) {
    const std::int64_t width = p.op.v.cols / 3;
    load_three(p.op.x.row(m.other) + f, width, e.x);
    load_three(p.op.v.row(m.other) + f, width, e.v);
    if constexpr (kDoubleBackward) load_three(p.by.x.row(m.other) + f, width, e.by_x);
    if constexpr (kDoubleBackward) load_three(p.by.v.row(m.other) + f, width, e.by_v);
}

// A block of the filter and, in the double backward, its slope.
template <bool kDoubleBackward, class V, class T>
MDGNN_INLINE void load_filter(const Painn<T>& p, const Message<T>& m, std::int64_t f, int c, PainnEdge<V, T>& e) {
    const std::int64_t all = p.op.v.cols;
    interpolate_value(m.value, m.coefficients + c * (all / 3) + f, all, e.w[c]);
    if constexpr (kDoubleBackward) interpolate_slope(m.slope, m.coefficients + c * (all / 3) + f, all, e.dw[c]);
}

}  // namespace mdgnn::cpu
