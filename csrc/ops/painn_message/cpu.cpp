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
// own, 1.35 times. In AVX2: structs of three vectors that loops fill, which the
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

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/painn_message/pieces.hpp"

namespace mdgnn::cpu {
namespace {

// By receiver: the results. The sums are in the nearest cache, so that each row of the table is read from end to end.
template <int kBytes, class T, std::int64_t kWidth>
MDGNN_INLINE void receive(const Painn<T>& p, const PainnResult<T>& out, std::int64_t begin, std::int64_t end) {
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

// By sender: the derivatives for r and unit and (kSends) those for x and v, in one pass, so that the table is read
// once. Bits are the same with and without x. A block of the filter is done with before the next is looked at: 16
// registers hold no more.
template <int kBytes, class T, bool kSends, std::int64_t kWidth>
MDGNN_INLINE void send(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = kWidth > 0 ? kWidth : p.op.v.cols / 3, all = 3 * width;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    FilterRow<T>& row = scratch.row;
    scratch.sums.resize(5 * width);
    T* const memory = scratch.sums.data();  // of the sender: x0, x1, a
    for (std::int64_t j = begin; j < end; ++j) {
        find_row(p.op.columns, p.op.table, p.op.r, j, row);
        if (!p.op.adds) clear_edges_beyond(p, j, row.n, out);
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
        if constexpr (kSends) store_all_sent<kBytes, false>(p, memory, width, j, out);
    }
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                  \
    target void receive_loop(Vectors<bytes>, const Painn<T>& p, const PainnResult<T>& out, std::int64_t a,       \
                             std::int64_t b) {                                                                   \
        p.op.v.cols == 3 * kCommonWidth ? receive<bytes, T, kCommonWidth>(p, out, a, b)                          \
                                        : receive<bytes, T, 0>(p, out, a, b);                                    \
    }                                                                                                            \
    target void send_loop(Vectors<bytes>, const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,       \
                          std::int64_t b) {                                                                      \
        if (!out.x) return send<bytes, T, false, 0>(p, out, a, b);                                               \
        p.op.v.cols == 3 * kCommonWidth ? send<bytes, T, true, kCommonWidth>(p, out, a, b)                       \
                                        : send<bytes, T, true, 0>(p, out, a, b);                                 \
    }                                                                                                            \
    target void table_loop(Vectors<bytes>, const Painn<T>& p, std::span<const IntervalEdge<T>> edges, T* sums) { \
        p.op.v.cols == 3 * kCommonWidth ? add_to_interval<bytes, T, false, kCommonWidth>(p, edges, sums)         \
                                        : add_to_interval<bytes, T, false, 0>(p, edges, sums);                   \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void painn_message(const PainnMessage<T>& op, const PainnResult<T>& out, const Context& context) {
    const Painn<T> p{op, {}, {}};
    parallel_for(op.rows.n_rows, filter_grain(op.rows, op.x.cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { with_vectors([&](auto v) { receive_loop(v, p, out, a, b); }); });
}

template <class T>
void painn_message_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad, const PainnGradients<T>& out,
                            const Context& context) {
    const Painn<T> p{op, grad, {}};
    if (out.x || out.r)
        parallel_for(
            op.columns.n_rows, filter_grain(op.rows, op.x.cols), context.n_threads,
            [&](std::int64_t a, std::int64_t b) { with_vectors([&](auto v) { send_loop(v, p, out, a, b); }); });
    if (out.coefficients)
        sum_by_interval<T>(op.rows, op.table, op.r, out.coefficients, context,
                           [&](std::int64_t, std::span<const IntervalEdge<T>> edges, T* sums) {
                               with_vectors([&](auto v) { table_loop(v, p, edges, sums); });
                           });
}

#define MDGNN_INSTANTIATE(T)                                                                       \
    template void painn_message<T>(const PainnMessage<T>&, const PainnResult<T>&, const Context&); \
    template void painn_message_backward<T>(const PainnMessage<T>&, const PainnResult<const T>&,   \
                                            const PainnGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
