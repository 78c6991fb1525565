// Parallelisation: as cfconv's. Receivers are split over threads, and senders for their share of `ends`; the gradient
// of the table is summed over blocks of edges whose number depends on that of the edges alone. Memory traffic per edge:
// 4 (H + 1) numbers of the table and H of `ends`, from the cache. Arithmetic per edge and feature: one exp and one
// division, vectorised, in every pass.
#include "concat_message/table.hpp"

#include <algorithm>
#include <vector>

#include "core/lanes.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "radial_filter/edges.hpp"
#include "silu/math.hpp"

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

// One edge, in arrays over features. g: what the message is multiplied by. In the double backward, q multiplies the
// gradient of x, and by_c that of c.
template <class T>
struct Message {
    std::vector<T> x, slope, q, gradient;
    const T* g = nullptr;
    T g_s = 0, c = 0, c_slope = 0, c_curvature = 0, by_r = 0, by_c = 0, by_slope = 0;
    HermiteWeights<T> weights, slopes, curvatures;

    explicit Message(std::int64_t width) : x(width), slope(width), q(width), gradient(width) {}
};

// silu, and what its derivatives share.
template <class T>
struct Silu {
    T x, s;

    explicit Silu(T argument) : x(not_too_negative(argument)), s(logistic(argument)) {}
    T value() const { return x * s; }
    T slope() const { return s * (T(1) + x * (T(1) - s)); }
    T curvature() const { return s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s)); }
};

template <class T>
inline __attribute__((always_inline)) T interpolated(const HermiteWeights<T>& w, const T* at, std::int64_t width) {
    T value;
    interpolate(w, at, width, value);
    return value;
}

// The message of edge e between sender j and receiver i.
template <class T, bool kTwice>
inline __attribute__((always_inline)) void set_message(const Concat<T>& p, const FilterEdge<T>& e, std::int64_t i,
                                                       std::int64_t j, Message<T>& m) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    const T *const sent = p.op.ends.row(j), *const received = p.op.ends.row(i) + width;
    m.g = p.grad.messages.row(i);
    m.g_s = p.grad.s[i];
    m.weights = hermite_value(e.t);
    m.slopes = hermite_slope(e.t, per_unit, T(1));
    m.c = interpolated(m.weights, e.knots + width, all);
    m.c_slope = interpolated(m.slopes, e.knots + width, all);
    T *const x = m.x.data(), *const slope = m.slope.data(), *const q = m.q.data();
    for (std::int64_t f = 0; f < width; ++f) {
        x[f] = (sent[f] + received[f]) + interpolated(m.weights, e.knots + f, all);
        slope[f] = interpolated(m.slopes, e.knots + f, all);
    }
    if constexpr (kTwice) {
        m.by_r = p.by.r[e.edge];
        m.curvatures = hermite_curvature(e.t, per_unit, m.by_r);
        m.c_curvature = interpolated(m.curvatures, e.knots + width, all);
        const T *const by_sent = p.by.ends.row(j), *const by_received = p.by.ends.row(i) + width;
        for (std::int64_t f = 0; f < width; ++f) q[f] = (by_sent[f] + by_received[f]) + m.by_r * slope[f];
        m.by_c = m.by_r * m.c_slope;
        if (p.by.knots) {
            const T* const by = p.by.knots + (e.knots - p.op.table.knots);
            for (std::int64_t f = 0; f < width; ++f) q[f] += interpolated(m.weights, by + f, all);
            m.by_c += interpolated(m.weights, by + width, all);
        }
    }
}

// The derivative for x, in m.gradient.
template <class T, bool kTwice>
inline __attribute__((always_inline)) void set_gradient(Message<T>& m, std::int64_t width) {
    const T *const x = m.x.data(), *const q = m.q.data();
    T* const gradient = m.gradient.data();
    for (std::int64_t f = 0; f < width; ++f) {
        const Silu<T> silu(x[f]);
        if constexpr (kTwice)
            gradient[f] = m.g[f] * (m.c * q[f] * silu.curvature() + m.by_c * silu.slope());
        else
            gradient[f] = m.c * m.g[f] * silu.slope();
    }
}

// The derivative for c: of the sum itself, and (twice) of the part with q.
template <class T>
inline __attribute__((always_inline)) T sum_values(const Message<T>& m, std::int64_t width) {
    return m.g_s + sum_lanes<T>(width, [&](std::int64_t f)
                                           __attribute__((always_inline)) { return m.g[f] * Silu<T>(m.x[f]).value(); });
}
template <class T>
inline __attribute__((always_inline)) T sum_with_q(const Message<T>& m, std::int64_t width) {
    return sum_lanes<T>(width, [&](std::int64_t f) __attribute__((always_inline)) {
        return m.g[f] * m.q[f] * Silu<T>(m.x[f]).slope();
    });
}

template <class T>
inline __attribute__((always_inline)) void sum_messages(const Concat<T>& p, const ConcatMessageResult<T>& out,
                                                        std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width();
    std::vector<FilterEdge<T>> edges;
    for (std::int64_t i = begin; i < end; ++i) {
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        T* __restrict const y = out.messages.row(i);
        const T* const received = p.op.ends.row(i) + width;
        std::fill(y, y + width, T(0));
        T s = 0;
        for (const FilterEdge<T>& e : edges) {
            const HermiteWeights<T> w = hermite_value(e.t);
            const T c = interpolated(w, e.knots + width, width + 1);
            const T* const sent = p.op.ends.row(e.other);
            for (std::int64_t f = 0; f < width; ++f)
                y[f] += c * Silu<T>((sent[f] + received[f]) + interpolated(w, e.knots + f, width + 1)).value();
            s += c;
        }
        out.s[i] = s;
    }
}

// By receiver: its share of the derivative for `ends`, that for r, and (twice) that for grad.
template <class T, bool kTwice>
inline __attribute__((always_inline)) void receive(const Concat<T>& p, const ConcatMessageResult<T>& out_grad,
                                                   const ConcatMessageGradients<T>& out, std::int64_t begin,
                                                   std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    Message<T> m(width);
    std::vector<T> sums(2 * width);
    T* __restrict const received = sums.data(), * __restrict const y = sums.data() + width;
    for (std::int64_t i = begin; i < end; ++i) {
        std::fill(sums.begin(), sums.end(), T(0));
        if (out.r) std::fill(out.r + p.op.rows.row_ptr[i], out.r + p.op.rows.row_ptr[i + 1], T(0));
        T s = 0;
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        for (const FilterEdge<T>& e : edges) {
            set_message<T, kTwice>(p, e, i, e.other, m);
            set_gradient<T, kTwice>(m, width);
            const T *const gradient = m.gradient.data(), *const q = m.q.data(), *const x = m.x.data();
            for (std::int64_t f = 0; f < width; ++f) received[f] += gradient[f];
            if (out.r) {
                T sum = sum_lanes<T>(
                    width, [&](std::int64_t f) __attribute__((always_inline)) { return gradient[f] * m.slope[f]; });
                const T by_c = sum_values(m, width);
                if constexpr (kTwice) {  // q depends on r too
                    const T* const by = p.by.knots ? p.by.knots + (e.knots - p.op.table.knots) : nullptr;
                    sum += m.c_slope * sum_with_q(m, width);
                    T c_change = m.c_curvature;
                    if (by) c_change += interpolated(m.slopes, by + width, all);
                    sum += c_change * by_c;
                    sum += m.c * sum_lanes<T>(width, [&](std::int64_t f) __attribute__((always_inline)) {
                               T change = interpolated(m.curvatures, e.knots + f, all);
                               if (by) change += interpolated(m.slopes, by + f, all);
                               return m.g[f] * Silu<T>(x[f]).slope() * change;
                           });
                } else {
                    sum += m.c_slope * by_c;
                }
                out.r[e.edge] = sum;
            }
            if constexpr (kTwice) {
                for (std::int64_t f = 0; f < width; ++f) {
                    const Silu<T> silu(x[f]);
                    y[f] += m.c * q[f] * silu.slope() + m.by_c * silu.value();
                }
                s += m.by_c;
            }
        }
        if (out.ends) std::copy(received, received + width, out.ends.row(i) + width);
        if (kTwice && out_grad.messages) {
            std::copy(y, y + width, out_grad.messages.row(i));
            out_grad.s[i] = s;
        }
    }
}

// By sender: its share of the derivative for `ends`.
template <class T, bool kTwice>
inline __attribute__((always_inline)) void send(const Concat<T>& p, Matrix<T> ends, std::int64_t begin,
                                                std::int64_t end) {
    const std::int64_t width = p.width();
    std::vector<FilterEdge<T>> edges;
    Message<T> m(width);
    std::vector<T> sum(width);
    for (std::int64_t j = begin; j < end; ++j) {
        std::fill(sum.begin(), sum.end(), T(0));
        filter_edges(p.op.columns, p.op.table, p.op.r, j, edges);
        for (const FilterEdge<T>& e : edges) {
            set_message<T, kTwice>(p, e, e.other, j, m);
            set_gradient<T, kTwice>(m, width);
            const T* const gradient = m.gradient.data();
            T* __restrict const y = sum.data();
            for (std::int64_t f = 0; f < width; ++f) y[f] += gradient[f];
        }
        std::copy(sum.begin(), sum.end(), ends.row(j));
    }
}

// Adds the derivative for the knots over the rows begin .. end.
template <class T, bool kTwice>
inline __attribute__((always_inline)) void add_to_knots(const Concat<T>& p, T* knots, std::int64_t begin,
                                                        std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    Message<T> m(width);
    for (std::int64_t i = begin; i < end; ++i) {
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        for (const FilterEdge<T>& e : edges) {
            set_message<T, kTwice>(p, e, i, e.other, m);
            set_gradient<T, kTwice>(m, width);
            T* const at = knots + (e.knots - p.op.table.knots);
            const T *const gradient = m.gradient.data(), *const x = m.x.data();
            const T by_c = sum_values(m, width), with_q = kTwice ? sum_with_q(m, width) : T(0);
            for (int n = 0; n < 4; ++n) {
                T* __restrict const knot = at + n * all;
                const T w = m.weights.at[n], ws = m.by_r * m.slopes.at[n];
                for (std::int64_t f = 0; f < width; ++f) {
                    knot[f] += gradient[f] * w;
                    if constexpr (kTwice) knot[f] += m.c * m.g[f] * Silu<T>(x[f]).slope() * ws;
                }
                knot[width] += kTwice ? with_q * w + by_c * ws : by_c * w;
            }
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
