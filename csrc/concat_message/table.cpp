// Parallelisation: as cfconv's. Receivers are split over threads, and senders for their share of `ends`; the gradient
// of the table is summed over blocks of edges whose number depends on that of the edges alone. Memory traffic per edge:
// 4 (H + 1) numbers of the table and H of `ends`, from the cache. Arithmetic per edge and feature: one exp and one
// division, vectorised, in every pass.
#include "concat_message/table.hpp"

#include <algorithm>
#include <vector>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "radial_filter/edges.hpp"
#include "silu/wide.hpp"

namespace mdgnn::cpu {
namespace {

// What the loops see. `twice`: the loop is that of the double backward, which multiplies the gradients by `by`.
template <class T>
struct Concat {
    ConcatMessageTable<T> op;
    ConcatMessageResult<const T> grad;
    ConcatMessageGradients<const T> by;
    bool twice = false;

    std::int64_t width() const { return op.ends.cols / 2; }
};

// What the loops need of an edge besides its features. In the double backward by_r multiplies the gradient of r, and
// by_c that of c; `by` is where the factors of the knots' gradient stand, or null.
template <class T>
struct Message {
    const T *knots = nullptr, *by = nullptr;
    HermiteWeights<T> value, slope, curvature;  // the last times by_r
    T c = 0, c_slope = 0, c_curvature = 0, by_r = 0, by_c = 0;
};

template <class T>
MDGNN_INLINE T interpolated(const HermiteWeights<T>& w, const T* at, std::int64_t width) {
    T value;
    interpolate(w, at, width, value);
    return value;
}

template <class T, bool kTwice>
MDGNN_INLINE void set_message(const Concat<T>& p, const FilterEdge<T>& e, Message<T>& m) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    m.knots = e.knots;
    m.value = hermite_value(e.t);
    m.slope = hermite_slope(e.t, per_unit, T(1));
    m.c = interpolated(m.value, e.knots + width, all);
    m.c_slope = interpolated(m.slope, e.knots + width, all);
    if constexpr (kTwice) {
        m.by_r = p.by.r[e.edge];
        m.curvature = hermite_curvature(e.t, per_unit, m.by_r);
        m.by_c = m.by_r * m.c_slope;
        m.c_curvature = interpolated(m.curvature, e.knots + width, all);
        m.by = p.by.knots ? p.by.knots + (e.knots - p.op.table.knots) : nullptr;
        if (m.by) {
            m.by_c += interpolated(m.value, m.by + width, all);
            m.c_curvature += interpolated(m.slope, m.by + width, all);
        }
    }
}

// Some features of a message: g silu(x), and its derivatives times what they are multiplied by.
template <class T, bool kTwice, class V>
struct Piece {
    V g, silu, slope, gradient;  // gradient: the derivative for x
    V filter_slope, q;           // q: what multiplies the gradient of x

    MDGNN_INLINE Piece(const Concat<T>& p, const Message<T>& m, std::int64_t i, std::int64_t j, std::int64_t f) {
        const std::int64_t width = p.width(), all = width + 1;
        V sent, received, filter;
        load(p.op.ends.row(j) + f, sent), load(p.op.ends.row(i) + width + f, received);
        load(p.grad.messages.row(i) + f, g);
        interpolate(m.value, m.knots + f, all, filter);
        interpolate(m.slope, m.knots + f, all, filter_slope);
        const SiluParts<T, V> parts((sent + received) + filter);
        parts.value(silu);
        parts.slope(slope);
        gradient = g * slope;
        if constexpr (kTwice) {
            V curvature;
            parts.curvature(curvature);
            load(p.by.ends.row(j) + f, sent), load(p.by.ends.row(i) + width + f, received);
            q = (sent + received) + filter_slope * m.by_r;
            if (m.by) {
                interpolate(m.value, m.by + f, all, filter);
                q += filter;
            }
            gradient = gradient * m.by_c + g * q * curvature * m.c;
        } else {
            gradient *= m.c;
        }
    }
};

template <class T>
MDGNN_INLINE void sum_messages(const Concat<T>& p, const ConcatMessageResult<T>& out, std::int64_t begin,
                               std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    for (std::int64_t i = begin; i < end; ++i) {
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        messages.resize(edges.size());
        T s = 0;
        for (std::size_t k = 0; k < edges.size(); ++k) {
            messages[k].value = hermite_value(edges[k].t);
            messages[k].c = interpolated(messages[k].value, edges[k].knots + width, all);
            s += messages[k].c;
        }
        out.s[i] = s;
        each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V received, sum = {};
            load(p.op.ends.row(i) + width + f, received);
            for (std::size_t k = 0; k < edges.size(); ++k) {
                V sent, filter, silu;
                load(p.op.ends.row(edges[k].other) + f, sent);
                interpolate(messages[k].value, edges[k].knots + f, all, filter);
                SiluParts<T, V>((sent + received) + filter).value(silu);
                sum += silu * messages[k].c;
            }
            store(sum, out.messages.row(i) + f);
        });
    }
}

// Adds x to what is there.
template <class V, class T>
MDGNN_INLINE void add(const V& x, T* to) {
    V sum;
    load(to, sum);
    sum += x;
    store(sum, to);
}

// By receiver: its share of the derivative for `ends`, that for r, and (twice) that for grad.
template <class T, bool kTwice>
MDGNN_INLINE void receive(const Concat<T>& p, const ConcatMessageResult<T>& out_grad,
                          const ConcatMessageGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    std::vector<T> sums(2 * width);  // of the receiver's share, and of the derivative for grad
    for (std::int64_t i = begin; i < end; ++i) {
        std::fill(sums.begin(), sums.end(), T(0));
        if (out.r) std::fill(out.r + p.op.rows.row_ptr[i], out.r + p.op.rows.row_ptr[i + 1], T(0));
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        T s = 0;
        for (const FilterEdge<T>& e : edges) {
            Message<T> m;
            set_message<T, kTwice>(p, e, m);
            s += m.by_c;
            T parts[2];  // the derivative for r through f, and for c without that of s
            const auto add_piece = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const Piece<T, kTwice, V> x(p, m, i, e.other, f);
                add(x.gradient, sums.data() + f);
                sum[0] += x.gradient * x.filter_slope;
                if constexpr (kTwice) {
                    V change, more;  // q depends on r too
                    interpolate(m.curvature, m.knots + f, all, change);
                    if (m.by) {
                        interpolate(m.slope, m.by + f, all, more);
                        change += more;
                    }
                    sum[0] += x.g * x.slope * (change * m.c + x.q * m.c_slope);
                    add(x.q * x.slope * m.c + x.silu * m.by_c, sums.data() + width + f);
                }
                sum[1] += x.g * x.silu;
            };
            sum_pieces<T, 2>(width, add_piece, parts);
            if (out.r) out.r[e.edge] = parts[0] + (kTwice ? m.c_curvature : m.c_slope) * (parts[1] + p.grad.s[i]);
        }
        if (out.ends) std::copy(sums.data(), sums.data() + width, out.ends.row(i) + width);
        if (kTwice && out_grad.messages) {
            std::copy(sums.data() + width, sums.data() + 2 * width, out_grad.messages.row(i));
            out_grad.s[i] = s;
        }
    }
}

// By sender: its share of the derivative for `ends`.
template <class T, bool kTwice>
MDGNN_INLINE void send(const Concat<T>& p, Matrix<T> ends, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width();
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    for (std::int64_t j = begin; j < end; ++j) {
        filter_edges(p.op.columns, p.op.table, p.op.r, j, edges);
        messages.resize(edges.size());
        for (std::size_t k = 0; k < edges.size(); ++k) set_message<T, kTwice>(p, edges[k], messages[k]);
        each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V sum = {};
            for (std::size_t k = 0; k < edges.size(); ++k)
                sum += Piece<T, kTwice, V>(p, messages[k], edges[k].other, j, f).gradient;
            store(sum, ends.row(j) + f);
        });
    }
}

// Adds the derivative for the knots over the rows begin .. end.
template <class T, bool kTwice>
MDGNN_INLINE void add_to_knots(const Concat<T>& p, T* knots, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    for (std::int64_t i = begin; i < end; ++i) {
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        for (const FilterEdge<T>& e : edges) {
            Message<T> m;
            set_message<T, kTwice>(p, e, m);
            T* const at = knots + (e.knots - p.op.table.knots);
            T parts[2];  // the derivative for c without that of s, and for what multiplies c in it
            const auto add_piece = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const Piece<T, kTwice, V> x(p, m, i, e.other, f);
                V along = x.g * x.slope;
                sum[0] += x.g * x.silu;
                if constexpr (kTwice) sum[1] += along * x.q;
                along *= m.c * m.by_r;
                for (int n = 0; n < 4; ++n) {
                    if constexpr (kTwice)
                        add(x.gradient * m.value.at[n] + along * m.slope.at[n], at + n * all + f);
                    else
                        add(x.gradient * m.value.at[n], at + n * all + f);
                }
            };
            sum_pieces<T, 2>(width, add_piece, parts);
            parts[0] += p.grad.s[i];
            for (int n = 0; n < 4; ++n)
                at[n * all + width] +=
                    kTwice ? parts[1] * m.value.at[n] + m.by_r * parts[0] * m.slope.at[n] : parts[0] * m.value.at[n];
        }
    }
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                          \
    MDGNN_SIMD_CLONES void forward_loop(const Concat<T>& p, const ConcatMessageResult<T>& out, std::int64_t a,  \
                                        std::int64_t b) {                                                       \
        sum_messages<T>(p, out, a, b);                                                                          \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void receive_loop(const Concat<T>& p, const ConcatMessageResult<T>& out_grad,             \
                                        const ConcatMessageGradients<T>& out, std::int64_t a, std::int64_t b) { \
        p.twice ? receive<T, true>(p, out_grad, out, a, b) : receive<T, false>(p, out_grad, out, a, b);         \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void send_loop(const Concat<T>& p, Matrix<T> ends, std::int64_t a, std::int64_t b) {      \
        p.twice ? send<T, true>(p, ends, a, b) : send<T, false>(p, ends, a, b);                                 \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void knots_loop(const Concat<T>& p, T* knots, std::int64_t a, std::int64_t b) {           \
        p.twice ? add_to_knots<T, true>(p, knots, a, b) : add_to_knots<T, false>(p, knots, a, b);               \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

template <class T>
void run_gradients(const Concat<T>& p, const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                   const Context& context) {
    const std::int64_t grain = filter_grain(p.op.rows, 4 * p.op.ends.cols);
    if (out.ends || out.r || out_grad.messages)
        parallel_for(p.op.rows.n_rows, grain, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { receive_loop(p, out_grad, out, a, b); });
    if (out.ends)
        parallel_for(p.op.columns.n_rows, grain, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { send_loop(p, out.ends, a, b); });
    if (out.knots)
        sum_over_blocks<T>(p.op.rows, 2 * p.op.table.n_knots * p.op.table.width, out.knots, context,
                           [&](T* knots, std::int64_t a, std::int64_t b) { knots_loop(p, knots, a, b); });
}

}  // namespace

template <class T>
void concat_message_table(const ConcatMessageTable<T>& op, const ConcatMessageResult<T>& out, const Context& context) {
    const Concat<T> p{op, {}, {}, false};
    parallel_for(op.rows.n_rows, filter_grain(op.rows, 4 * op.ends.cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { forward_loop(p, out, a, b); });
}

template <class T>
void concat_message_table_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                   const ConcatMessageGradients<T>& out, const Context& context) {
    run_gradients<T>({op, grad, {}, false}, {}, out, context);
}

template <class T>
void concat_message_table_double_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                          const ConcatMessageGradients<const T>& grad2,
                                          const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                                          const Context& context) {
    run_gradients<T>({op, grad, grad2, true}, out_grad, out, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                          \
    template void concat_message_table<T>(const ConcatMessageTable<T>&, const ConcatMessageResult<T>&,                \
                                          const Context&);                                                            \
    template void concat_message_table_backward<T>(const ConcatMessageTable<T>&, const ConcatMessageResult<const T>&, \
                                                   const ConcatMessageGradients<T>&, const Context&);                 \
    template void concat_message_table_double_backward<T>(                                                            \
        const ConcatMessageTable<T>&, const ConcatMessageResult<const T>&, const ConcatMessageGradients<const T>&,    \
        const ConcatMessageResult<T>&, const ConcatMessageGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
