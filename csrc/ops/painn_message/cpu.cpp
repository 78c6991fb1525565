// Parallelisation: receivers are split over threads, senders for x, v, r and unit, and intervals of the table for its
// gradient (radial_filter/intervals.hpp): each row is summed by one thread in edge order. No bits depend on the number
// of threads.
// Memory traffic per edge: 12 F numbers of the table and 6 F of x and v (forward) or 4 F of gradients, from the second
// cache: 4.5 and 4 KB for 64 features in float32, of a table of 3 MB.
// Floor: 19 and 36 vector instructions for as many features as a vector has. Times of a thread with AVX2 (Sapphire
// Rapids, 97 GFLOP/s), an edge and layer of the engine with forces, 561 and 6,525 atoms: 218 and 230 ns, of which
// linear layers take 30. Alone, in a program of their own, the loops take 73 and 91 ns at 561 atoms, and 39 and 64 with
// a table in the first cache. What gained: edges in the order of senders (27 ns at 6,525 atoms in that program, where
// r, unit and their gradients lay everywhere), places in the table found in vectors, and addresses that are constants
// (8 ns of the engine). Alternatives that lost: the derivatives for x and v and those for r and unit in passes of their
// own, 1.35 times (the second derivative has them). In AVX2: structs of three vectors that loops fill, which the
// compiler keeps on the stack (37 stores and 54 loads of 32 bytes in the loop of the derivatives), 2.0 times; sums in
// registers while the edges go by for two vectors of features, so that every line of the table is met alone, 1.19
// times; a half or a quarter of the features at a time, whose part of the table fits into the second cache, 1.2 and 1.9
// times; lines of the next edge prefetched, 1.03 to 1.07 times. Quintic polynomials on 128 intervals, whose table is a
// fifth, 1.03 times on this machine; with the edges of 8 receivers sorted by interval, so that a row serves several,
// the same. Receivers in an order in which neighbours follow upon each other: no change. The rows of the next sender
// fetched ahead: nothing at 561 atoms, 0.95 to 0.98 times at 6,525 in runs that other work disturbed; not settled. Not
// done: a table whose rows have the coefficients of 16 features next to each other is read from end to end, 0.96 times,
// but is another format than the op's.
#include <algorithm>
#include <cstring>
#include <vector>

#include "core/scratch.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/painn_message/edges.hpp"
#include "ops/radial_filter/intervals.hpp"

namespace mdgnn::cpu {
namespace {

// Adds two products to what is there.
template <class V, class T, class S>
MDGNN_INLINE void add_two(const V& a, S u, const V& c, const V& d, T* to) {
    V sum;
    load(to, sum);
    sum += a * u;
    sum += c * d;
    store(sum, to);
}

// By receiver: the results. The sums are in the nearest cache, so that each row of the table is read from end to end.
template <int kBytes, class T, std::int64_t kWidth>
MDGNN_INLINE void receive_all(const Painn<T>& p, const PainnResult<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = kWidth > 0 ? kWidth : p.op.v.cols / 3, all = 3 * width;
    FilterRow<T>& row = scratch_of_this_thread<PainnScratch<T>>().row;
    for (std::int64_t i = begin; i < end; ++i) {
        find_row(p.op.rows, p.op.table, p.op.r, i, row);
        T *const s = out.s.row(i), *const v = out.v.row(i);
        std::fill(s, s + width, T(0));
        std::fill(v, v + all, T(0));
        for (std::int64_t k = 0; k < row.n; ++k) {
            const T *const unit = p.op.unit + 3 * row.edge(k), u0 = unit[0], u1 = unit[1], u2 = unit[2], t = row.t[k];
            const T *const x_row = p.op.x.row(row.other[k]), *const v_row = p.op.v.row(row.other[k]);
            const T* const coefficients = p.op.table.coefficients + 4 * all * row.interval[k];
            each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                const T *const at = coefficients + f, *const x = x_row + f, *const vj = v_row + f;
                V w, y, b;
                cubic(at, all, t, w);
                load(x, y);
                add_product(w, y, s + f);
                cubic(at + width, all, t, b);
                load(x + width, y), b *= y;
                cubic(at + 2 * width, all, t, w);
                load(x + 2 * width, y), w *= y;
                load(vj, y), add_two(b, u0, w, y, v + f);
                load(vj + width, y), add_two(b, u1, w, y, v + width + f);
                load(vj + 2 * width, y), add_two(b, u2, w, y, v + 2 * width + f);
            });
        }
    }
}

// Double backward, by receiver: the derivative for `grad`.
template <int kBytes, class T>
MDGNN_INLINE void receive(const Painn<T>& p, const PainnResult<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    for (std::int64_t i = begin; i < end; ++i) {
        messages_of<T, true>(p, p.op.rows, i, scratch);
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V s = {};
            Three<V> v = {};
            for (const Message<T>& m : scratch.messages) {
                PainnEdge<V, T> e;
                load_directions<true>(p, m, e);
                load_sender<true>(p, m, f, e);
                for (int c = 0; c < 3; ++c) load_filter<true>(p, m, f, c, e);
                add_message<true>(e, s, v);
            }
            store(s, out.s.row(i) + f);
            for (int c = 0; c < 3; ++c) store(v[c], out.v.row(i) + c * width + f);
        });
    }
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

// Double backward, by sender: the derivative for x and v.
template <int kBytes, class T>
MDGNN_INLINE void send(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    for (std::int64_t j = begin; j < end; ++j) {
        messages_of<T, true>(p, p.op.columns, j, scratch);
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            PainnSent<V> sum;
            for (const Message<T>& m : scratch.messages) {
                PainnEdge<V, T> e;
                V gs;
                Three<V> gv;
                load(p.grad.s.row(m.other) + f, gs);
                load_three(p.grad.v.row(m.other) + f, width, gv);
                load_directions<true>(p, m, e);
                for (int c = 0; c < 3; ++c) load_filter<true>(p, m, f, c, e);
                add_sent<true>(e, gs, gv, sum);
            }
            store_sent<true>(p, sum, j, f, out);
        });
    }
}

// By sender: the derivatives for r and unit and (kSends) those for x and v, in one pass, so that the table is read
// once. Bits are the same with and without x. A block of the filter is done with before the next is looked at: 16
// registers hold no more.
template <int kBytes, class T, bool kSends, std::int64_t kWidth>
MDGNN_INLINE void send_all(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = kWidth > 0 ? kWidth : p.op.v.cols / 3, all = 3 * width;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    FilterRow<T>& row = scratch.row;
    scratch.sums.resize(5 * width);
    T* const memory = scratch.sums.data();  // of the sender: x0, x1, a
    for (std::int64_t j = begin; j < end; ++j) {
        const std::int64_t first = p.op.columns.row_ptr[j], last = p.op.columns.row_ptr[j + 1];
        find_row(p.op.columns, p.op.table, p.op.r, j, row);
        if (out.r && !p.op.adds && row.n < last - first)  // some are beyond the cutoff
            for (std::int64_t k = first; k < last; ++k) {
                const std::int64_t e = edge_at(p.op.columns, k);
                out.r[e] = T(0);
                std::fill(out.unit + 3 * e, out.unit + 3 * e + 3, T(0));
            }
        std::fill(memory, memory + 5 * width, T(0));
        const T *const x_row = p.op.x.row(j), *const v_row = p.op.v.row(j);
        for (std::int64_t k = 0; k < row.n; ++k) {
            const std::int64_t edge = row.edge(k);
            const T *const s_row = p.grad.s.row(row.other[k]), *const g_row = p.grad.v.row(row.other[k]);
            const T *const unit = p.op.unit + 3 * edge, u0 = unit[0], u1 = unit[1], u2 = unit[2];
            const T* const coefficients = p.op.table.coefficients + 4 * all * row.interval[k];
            const T t = row.t[k], t2 = 2 * t, t3 = 3 * t * t;
            const auto add = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const T *const at = coefficients + f, *const x = x_row + f, *const v = v_row + f;
                T* const sent = memory + f;
                V w, slope, y, g, g0, g1, g2;
                cubic_with_slope(at, all, t, t2, t3, w, slope);
                load(s_row + f, g), load(x, y);
                if constexpr (kSends) add_product(g, w, sent);
                sum[0] += g * (y * slope);
                load(g_row + f, g0), load(g_row + width + f, g1), load(g_row + 2 * width + f, g2);
                g = g0 * u0, g += g1 * u1, g += g2 * u2;
                cubic_with_slope(at + width, all, t, t2, t3, w, slope);
                load(x + width, y);
                if constexpr (kSends) add_product(g, w, sent + width);
                sum[0] += g * (y * slope);
                w *= y;
                sum[1] += g0 * w, sum[2] += g1 * w, sum[3] += g2 * w;
                cubic_with_slope(at + 2 * width, all, t, t2, t3, w, slope);
                if constexpr (kSends) {
                    add_product(g0, w, sent + 2 * width), add_product(g1, w, sent + 3 * width);
                    add_product(g2, w, sent + 4 * width);
                }
                load(v, y), g = g0 * y;
                load(v + width, y), g += g1 * y;
                load(v + 2 * width, y), g += g2 * y;
                load(x + 2 * width, y);
                sum[0] += g * (y * slope);
            };
            T sums[4];  // r, then unit
            sum_pieces<kBytes, T, 4>(width, add, sums);
            if (!out.r) continue;
            sums[0] *= p.op.table.per_unit;
            T *const to_r = out.r + edge, *const to_unit = out.unit + 3 * edge;
            *to_r = p.op.adds ? *to_r + sums[0] : sums[0];
            for (int c = 0; c < 3; ++c) to_unit[c] = p.op.adds ? to_unit[c] + sums[1 + c] : sums[1 + c];
        }
        if constexpr (!kSends) continue;
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            PainnSent<V> sum;
            load(memory + f, sum.x0), load(memory + width + f, sum.x1);
            load_three(memory + 2 * width + f, width, sum.a);
            store_sent<false>(p, sum, j, f, out);
        });
    }
}

// Double backward, by edge: the derivative for r and unit.
template <int kBytes, class T>
MDGNN_INLINE void edge_gradients(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin,
                                 std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    const T per_unit = p.op.table.per_unit;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = p.op.rows.row_ptr[i], last = p.op.rows.row_ptr[i + 1];
        std::fill(out.r + first, out.r + last, T(0));
        std::fill(out.unit + 3 * first, out.unit + 3 * last, T(0));
        messages_of<T, true>(p, p.op.rows, i, scratch);
        const std::size_t n = scratch.messages.size();
        for (std::size_t k = 0; k < n; ++k) {
            const Message<T>& m = scratch.messages[k];
            const FilterWeights<T> first_order = filter_slope(scratch.edges[k].t, per_unit, T(1));
            const FilterWeights<T> second_order = filter_curvature(scratch.edges[k].t, per_unit, p.by.r[m.edge]);
            const auto add = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                PainnEdge<V, T> e;
                V gs;
                Three<V> gv, slope, curvature;
                load(p.grad.s.row(i) + f, gs);
                load_three(p.grad.v.row(i) + f, width, gv);
                load_directions<true>(p, m, e);
                load_sender<true>(p, m, f, e);
                load_filter<true>(p, m, f, 1, e);
                for (int c = 0; c < 3; ++c) {
                    const T* const at = m.coefficients + c * width + f;
                    interpolate_slope(first_order, at, all, slope[c]);
                    interpolate_slope(second_order, at, all, curvature[c]);
                }
                add_edge_gradients<true>(e, gs, gv, slope, curvature, sum);
            };
            T sums[4];  // r, then unit
            sum_pieces<kBytes, T, 4>(width, add, sums);
            out.r[m.edge] = sums[0];
            std::copy(sums + 1, sums + 4, out.unit + 3 * m.edge);
        }
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

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                  \
    target void receive_loop(Vectors<bytes>, const Painn<T>& p, const PainnResult<T>& out, std::int64_t a,       \
                             std::int64_t b) {                                                                   \
        if (p.double_backward) return receive<bytes, T>(p, out, a, b);                                           \
        p.op.v.cols == 3 * kCommonWidth ? receive_all<bytes, T, kCommonWidth>(p, out, a, b)                      \
                                        : receive_all<bytes, T, 0>(p, out, a, b);                                \
    }                                                                                                            \
    target void send_loop(Vectors<bytes>, const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,       \
                          std::int64_t b) {                                                                      \
        if (p.double_backward) return send<bytes, T>(p, out, a, b);                                              \
        if (!out.x) return send_all<bytes, T, false, 0>(p, out, a, b);                                           \
        p.op.v.cols == 3 * kCommonWidth ? send_all<bytes, T, true, kCommonWidth>(p, out, a, b)                   \
                                        : send_all<bytes, T, true, 0>(p, out, a, b);                             \
    }                                                                                                            \
    target void edge_loop(Vectors<bytes>, const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,       \
                          std::int64_t b) {                                                                      \
        edge_gradients<bytes, T>(p, out, a, b);                                                                  \
    }                                                                                                            \
    target void table_loop(Vectors<bytes>, const Painn<T>& p, std::span<const IntervalEdge<T>> edges, T* sums) { \
        const bool common = p.op.v.cols == 3 * kCommonWidth;                                                     \
        if (p.double_backward)                                                                                   \
            common ? add_to_interval<bytes, T, true, kCommonWidth>(p, edges, sums)                               \
                   : add_to_interval<bytes, T, true, 0>(p, edges, sums);                                         \
        else                                                                                                     \
            common ? add_to_interval<bytes, T, false, kCommonWidth>(p, edges, sums)                              \
                   : add_to_interval<bytes, T, false, 0>(p, edges, sums);                                        \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

template <class T>
void run_receive(const Painn<T>& p, const PainnResult<T>& out, const Context& context) {
    parallel_for(p.op.rows.n_rows, filter_grain(p.op.rows, p.op.x.cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { with_vectors([&](auto v) { receive_loop(v, p, out, a, b); }); });
}

template <class T>
void run_gradients(const Painn<T>& p, const PainnGradients<T>& out, const Context& context) {
    const std::int64_t grain = filter_grain(p.op.rows, p.op.x.cols);
    if (out.x || (out.r && !p.double_backward))
        parallel_for(p.op.columns.n_rows, grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { send_loop(v, p, out, a, b); });
        });
    if (out.r && p.double_backward)
        parallel_for(p.op.rows.n_rows, grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { edge_loop(v, p, out, a, b); });
        });
    if (out.coefficients)
        sum_by_interval<T>(p.op.rows, p.op.table, p.op.r, out.coefficients, context,
                           [&](std::int64_t, std::span<const IntervalEdge<T>> edges, T* sums) {
                               with_vectors([&](auto v) { table_loop(v, p, edges, sums); });
                           });
}

}  // namespace

template <class T>
void painn_message(const PainnMessage<T>& op, const PainnResult<T>& out, const Context& context) {
    run_receive<T>({op, {}, {}, false}, out, context);
}

template <class T>
void painn_message_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad, const PainnGradients<T>& out,
                            const Context& context) {
    run_gradients<T>({op, grad, {}, false}, out, context);
}

template <class T>
void painn_message_double_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad,
                                   const PainnGradients<const T>& grad2, const PainnResult<T>& out_grad,
                                   const PainnGradients<T>& out, const Context& context) {
    const Painn<T> p{op, grad, grad2, true};
    if (out_grad.s) run_receive(p, out_grad, context);
    run_gradients(p, out, context);
}

#define MDGNN_INSTANTIATE(T)                                                                              \
    template void painn_message<T>(const PainnMessage<T>&, const PainnResult<T>&, const Context&);        \
    template void painn_message_backward<T>(const PainnMessage<T>&, const PainnResult<const T>&,          \
                                            const PainnGradients<T>&, const Context&);                    \
    template void painn_message_double_backward<T>(const PainnMessage<T>&, const PainnResult<const T>&,   \
                                                   const PainnGradients<const T>&, const PainnResult<T>&, \
                                                   const PainnGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
