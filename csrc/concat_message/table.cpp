// Parallelisation: as cfconv's. Receivers are split over threads, and senders for their share of `ends`; the gradient
// of the table is summed over blocks of edges whose number depends on that of the edges alone. Memory traffic per edge:
// 4 (H + 1) numbers of the table and H of `ends`, from the cache. Arithmetic per edge and feature: one exp and one
// division, vectorised, in every pass.
// It is arithmetic that binds (benchmarks/bench_messages.py).
// Alternatives that lost: to work out each message again for its sender, 1.7 times the time of the backward pass;
// without fused multiply-add, 1.3 times; prefetching the table, or other sizes of what is kept for senders, no gain.
#include "concat_message/table.hpp"

#include <algorithm>
#include <vector>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "radial_filter/edges.hpp"
#include "silu/wide.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kKept = std::int64_t{1} << 19;  // numbers kept for the senders: 2 MB in float32

// What the loops see. `twice`: the loop is that of the double backward, which multiplies the gradients by `by`.
template <class T>
struct Concat {
    ConcatMessageTable<T> op;
    ConcatMessageResult<const T> grad;
    ConcatMessageGradients<const T> by;
    bool twice = false;
    Matrix<T> kept = {};  // rows of H: the derivative for x of the edges from first_kept on; may be null
    std::int64_t first_kept = 0;

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

template <class T, bool kTwice>
MDGNN_INLINE void set_message(const Concat<T>& p, const FilterEdge<T>& e, Message<T>& m) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    m.coefficients = e.coefficients;
    m.value = filter_value(e.t);
    m.slope = filter_slope(e.t, per_unit, T(1));
    interpolate_value(m.value, e.coefficients + width, all, m.c);
    interpolate_slope(m.slope, e.coefficients + width, all, m.c_slope);
    if constexpr (kTwice) {
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
template <class T, bool kTwice, class V>
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
        if constexpr (kTwice) {
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
            messages[k].value = filter_value(edges[k].t);
            interpolate_value(messages[k].value, edges[k].coefficients + width, all, messages[k].c);
            s += messages[k].c;
        }
        out.s[i] = s;
        each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V received, sum = {};
            load(p.op.ends.row(i) + width + f, received);
            for (std::size_t k = 0; k < edges.size(); ++k) {
                V sent, filter, silu;
                load(p.op.ends.row(edges[k].other) + f, sent);
                interpolate_value(messages[k].value, edges[k].coefficients + f, all, filter);
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
        const std::int64_t first = p.op.rows.row_ptr[i], last = p.op.rows.row_ptr[i + 1];
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        if (static_cast<std::int64_t>(edges.size()) < last - first) {  // some are beyond the cutoff
            if (out.r) std::fill(out.r + first, out.r + last, T(0));
            if (p.kept) std::fill(p.kept.row(first - p.first_kept), p.kept.row(last - p.first_kept), T(0));
        }
        T s = 0;
        for (const FilterEdge<T>& e : edges) {
            Message<T> m;
            set_message<T, kTwice>(p, e, m);
            s += m.by_c;
            const T c_change = kTwice ? m.c_curvature : m.c_slope;
            T for_r;  // without what comes through s
            const auto add_piece = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const Piece<T, kTwice, V> x(p, m, i, e.other, f);
                add(x.gradient, sums.data() + f);
                if (p.kept) store(x.gradient, p.kept.row(e.edge - p.first_kept) + f);
                sum[0] += x.gradient * x.filter_slope + x.g * x.silu * c_change;
                if constexpr (kTwice) {
                    V change, more;  // q depends on r too
                    interpolate_slope(m.curvature, m.coefficients + f, all, change);
                    if (m.by) {
                        interpolate_slope(m.slope, m.by + f, all, more);
                        change += more;
                    }
                    sum[0] += x.g * x.slope * (change * m.c + x.q * m.c_slope);
                    add(x.q * x.slope * m.c + x.silu * m.by_c, sums.data() + width + f);
                }
            };
            sum_pieces<T, 1>(width, add_piece, &for_r);
            if (out.r) out.r[e.edge] = for_r + c_change * p.grad.s[i];
        }
        if (out.ends) std::copy(sums.data(), sums.data() + width, out.ends.row(i) + width);
        if (kTwice && out_grad.messages) {
            std::copy(sums.data() + width, sums.data() + 2 * width, out_grad.messages.row(i));
            out_grad.s[i] = s;
        }
    }
}

// By sender: adds what the edges up to `last` contribute to its share of the derivative for `ends`. Each sender goes on
// where it stopped.
template <class T>
MDGNN_INLINE void add_sent(const Concat<T>& p, Matrix<T> ends, std::int64_t last, std::int64_t* next,
                           std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width();
    const Rows& columns = p.op.columns;
    for (std::int64_t j = begin; j < end; ++j) {
        std::int64_t k = next[j];
        T* const y = ends.row(j);
        for (; k < columns.row_ptr[j + 1] && columns.edge[k] < last; ++k) {
            const T* const gradient = p.kept.row(columns.edge[k] - p.first_kept);
            each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                V x;
                load(gradient + f, x);
                add(x, y + f);
            });
        }
        next[j] = k;
    }
}

// Adds the derivative for the coefficients over the rows begin .. end.
template <class T, bool kTwice>
MDGNN_INLINE void add_to_table(const Concat<T>& p, T* coefficients, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.width(), all = width + 1;
    std::vector<FilterEdge<T>> edges;
    for (std::int64_t i = begin; i < end; ++i) {
        filter_edges(p.op.rows, p.op.table, p.op.r, i, edges);
        for (const FilterEdge<T>& e : edges) {
            Message<T> m;
            set_message<T, kTwice>(p, e, m);
            T* const at = coefficients + (e.coefficients - p.op.table.coefficients);
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
    MDGNN_SIMD_CLONES void sent_loop(const Concat<T>& p, Matrix<T> ends, std::int64_t last, std::int64_t* next, \
                                     std::int64_t a, std::int64_t b) {                                          \
        add_sent<T>(p, ends, last, next, a, b);                                                                 \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void table_loop(const Concat<T>& p, T* coefficients, std::int64_t a, std::int64_t b) {    \
        p.twice ? add_to_table<T, true>(p, coefficients, a, b) : add_to_table<T, false>(p, coefficients, a, b); \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

// Both shares of the derivative for `ends`, for blocks of rows: first by receiver, then, from what that left in the
// cache, by sender.
template <class T>
void run_blocks(Concat<T> p, const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                std::int64_t grain, const Context& context) {
    const Rows& rows = p.op.rows;
    const std::int64_t width = p.width(), n_senders = p.op.columns.n_rows;
    for (std::int64_t j = 0; j < n_senders; ++j) std::fill(out.ends.row(j), out.ends.row(j) + width, T(0));
    std::vector<std::int64_t> next(p.op.columns.row_ptr, p.op.columns.row_ptr + n_senders);
    thread_local std::vector<T> memory;
    for (std::int64_t begin = 0, end; begin < rows.n_rows; begin = end) {
        p.first_kept = rows.row_ptr[begin];
        for (end = begin + 1; end < rows.n_rows && (rows.row_ptr[end + 1] - p.first_kept) * width <= kKept; ++end) {
        }
        const std::int64_t n_edges = rows.row_ptr[end] - p.first_kept;
        if (static_cast<std::int64_t>(memory.size()) < n_edges * width) memory.resize(n_edges * width);
        p.kept = {memory.data(), n_edges, width};
        parallel_for(end - begin, grain, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { receive_loop(p, out_grad, out, begin + a, begin + b); });
        parallel_for(n_senders, 4 * grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            sent_loop(p, out.ends, rows.row_ptr[end], next.data(), a, b);
        });
    }
    if (static_cast<std::int64_t>(memory.size()) > kKept) std::vector<T>().swap(memory);  // a row of many edges
}

template <class T>
void run_gradients(const Concat<T>& p, const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                   const Context& context) {
    const std::int64_t grain = filter_grain(p.op.rows, 4 * p.op.ends.cols);
    if (out.ends)
        run_blocks(p, out_grad, out, grain, context);
    else if (out.r || out_grad.messages)
        parallel_for(p.op.rows.n_rows, grain, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { receive_loop(p, out_grad, out, a, b); });
    if (out.coefficients)
        sum_over_blocks<T>(p.op.rows, 4 * p.op.table.n_intervals * p.op.table.width, out.coefficients, context,
                           [&](T* sums, std::int64_t a, std::int64_t b) { table_loop(p, sums, a, b); });
}

}  // namespace

template <class T>
void concat_message_table(const ConcatMessageTable<T>& op, const ConcatMessageResult<T>& out, const Context& context) {
    const Concat<T> p{op, {}, {}};
    parallel_for(op.rows.n_rows, filter_grain(op.rows, 4 * op.ends.cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { forward_loop(p, out, a, b); });
}

template <class T>
void concat_message_table_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                   const ConcatMessageGradients<T>& out, const Context& context) {
    run_gradients<T>({op, grad, {}}, {}, out, context);
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
