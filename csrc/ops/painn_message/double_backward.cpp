// The double backward of painn_message. By receiver: the derivative for `grad`; by sender, in one pass so that the
// table is read once, those for x, v, r and unit; by interval, that for the table. Parallelisation as in cpu.cpp.
// Memory traffic per edge: 12 F numbers of the table, and 12 F of the sender or 4 F of the receiver, from the second
// cache. Times of a thread with AVX2 (Sapphire Rapids), an edge and layer of 64 features in float32, 561 atoms: 125 ns
// by receiver, 145 by sender, 110 for the table. Alternatives that lost: structs of three vectors that loops fill and
// weights of the filter for each edge in memory, the compiler keeps them on the stack: 260 by receiver, 193 by sender
// for x and v, and 275 by edge for r and unit in a pass of its own.
#include <algorithm>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/painn_message/pieces.hpp"

namespace mdgnn::cpu {
namespace {

// By receiver: the derivative for `grad`.
template <int kBytes, class T, std::int64_t kWidth>
MDGNN_INLINE void receive(const Painn<T>& p, const PainnResult<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = kWidth > 0 ? kWidth : p.op.v.cols / 3, all = 3 * width;
    FilterRow<T>& row = scratch_of_this_thread<PainnScratch<T>>().row;
    for (std::int64_t i = begin; i < end; ++i) {
        find_row(p.op.rows, p.op.table, p.op.r, i, row);
        T *const s = out.s.row(i), *const sum = out.v.row(i);
        std::fill(s, s + width, T(0));
        std::fill(sum, sum + all, T(0));
        for (std::int64_t k = 0; k < row.n; ++k) {
            const std::int64_t edge = row.edge(k), j = row.other[k];
            const T *const unit = p.op.unit + 3 * edge, u0 = unit[0], u1 = unit[1], u2 = unit[2];
            const T *const by_unit = p.by.unit + 3 * edge, by_u0 = by_unit[0], by_u1 = by_unit[1], by_u2 = by_unit[2];
            const T *const x_row = p.op.x.row(j), *const v_row = p.op.v.row(j);
            const T *const by_x_row = p.by.x.row(j), *const by_v_row = p.by.v.row(j);
            const T* const coefficients = p.op.table.coefficients + 4 * all * row.interval[k];
            const T t = row.t[k], t2 = 2 * t, t3 = 3 * t * t, by_r = p.by.r[edge] * p.op.table.per_unit;
            each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                const T *const at = coefficients + f, *const x = x_row + f, *const v = v_row + f;
                const T *const by_x = by_x_row + f, *const by_v = by_v_row + f;
                V w, slope, y, product, b, c, d;
                cubic_with_slope(at, all, t, t2, t3, w, slope);
                load(s + f, c), load(by_x, y), c += y * w;
                slope *= by_r;
                load(x, y), c += y * slope;
                store(c, s + f);

                cubic_with_slope(at + width, all, t, t2, t3, w, slope);
                load(by_x + width, y), b = y * w;
                load(x + width, y), product = y * w;
                slope *= by_r;
                b += y * slope;

                cubic_with_slope(at + 2 * width, all, t, t2, t3, w, slope);
                load(by_x + 2 * width, y), c = y * w;
                load(x + 2 * width, y), d = y * w;
                slope *= by_r;
                c += y * slope;

                const auto add = [&](std::int64_t component, T u, T by_u) __attribute__((always_inline)) {
                    V total, part;
                    load(sum + component + f, total);
                    total += b * u;
                    total += product * by_u;
                    load(v + component, part), total += c * part;
                    load(by_v + component, part), total += d * part;
                    store(total, sum + component + f);
                };
                add(0, u0, by_u0), add(width, u1, by_u1), add(2 * width, u2, by_u2);
            });
        }
    }
}

// By sender: the derivatives for x, v, r and unit.
template <int kBytes, class T, std::int64_t kWidth>
MDGNN_INLINE void send(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = kWidth > 0 ? kWidth : p.op.v.cols / 3, all = 3 * width;
    const T per_unit = p.op.table.per_unit;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    FilterRow<T>& row = scratch.row;
    scratch.sums.resize(8 * width);
    T* const memory = scratch.sums.data();  // of the sender: x0, x1, a, b
    for (std::int64_t j = begin; j < end; ++j) {
        find_row(p.op.columns, p.op.table, p.op.r, j, row);
        clear_edges_beyond(p, j, row.n, out);
        std::fill(memory, memory + 8 * width, T(0));
        const T *const x_row = p.op.x.row(j), *const v_row = p.op.v.row(j);
        const T *const by_x_row = p.by.x.row(j), *const by_v_row = p.by.v.row(j);
        for (std::int64_t k = 0; k < row.n; ++k) {
            const std::int64_t edge = row.edge(k);
            const T *const s_row = p.grad.s.row(row.other[k]), *const g_row = p.grad.v.row(row.other[k]);
            const T *const unit = p.op.unit + 3 * edge, u0 = unit[0], u1 = unit[1], u2 = unit[2];
            const T *const by_unit = p.by.unit + 3 * edge, by_u0 = by_unit[0], by_u1 = by_unit[1], by_u2 = by_unit[2];
            const T* const coefficients = p.op.table.coefficients + 4 * all * row.interval[k];
            const T t = row.t[k], t2 = 2 * t, t3 = 3 * t * t, t6 = 6 * t, by_r = p.by.r[edge] * per_unit;
            const auto add = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                const T *const at = coefficients + f, *const x = x_row + f, *const v = v_row + f;
                const T *const by_x = by_x_row + f, *const by_v = by_v_row + f;
                T* const sent = memory + f;
                V w, slope, change, y, g, by_g, g0, g1, g2;
                cubic_with_curvature(at, all, t, t2, t3, t6, by_r, w, slope, change);
                load(s_row + f, g), load(by_x, y), y *= slope;
                slope *= by_r;
                add_product(g, slope, sent);
                load(x, w), y += w * change;
                sum[0] += g * y;

                load(g_row + f, g0), load(g_row + width + f, g1), load(g_row + 2 * width + f, g2);
                g = g0 * u0, g += g1 * u1, g += g2 * u2;
                by_g = g0 * by_u0, by_g += g1 * by_u1, by_g += g2 * by_u2;
                cubic_with_curvature(at + width, all, t, t2, t3, t6, by_r, w, slope, change);
                V x1, by_x1;
                load(x + width, x1), load(by_x + width, by_x1);
                y = by_x1 * slope, y += x1 * change;
                sum[0] += g * y;
                sum[0] += by_g * (x1 * slope);
                slope *= by_r;
                load(sent + width, y), y += g * slope, y += by_g * w;
                store(y, sent + width);
                by_x1 *= w, by_x1 += x1 * slope;
                sum[1] += g0 * by_x1, sum[2] += g1 * by_x1, sum[3] += g2 * by_x1;

                cubic_with_curvature(at + 2 * width, all, t, t2, t3, t6, by_r, w, slope, change);
                add_product(g0, w, sent + 2 * width), add_product(g1, w, sent + 3 * width);
                add_product(g2, w, sent + 4 * width);
                load(x + 2 * width, x1), load(by_x + 2 * width, by_x1);
                by_x1 *= slope, by_x1 += x1 * change;
                load(v, y), g = g0 * y;
                load(v + width, y), g += g1 * y;
                load(v + 2 * width, y), g += g2 * y;
                sum[0] += g * by_x1;
                load(by_v, y), by_g = g0 * y;
                load(by_v + width, y), by_g += g1 * y;
                load(by_v + 2 * width, y), by_g += g2 * y;
                sum[0] += by_g * (x1 * slope);
                slope *= by_r;
                add_product(g0, slope, sent + 5 * width), add_product(g1, slope, sent + 6 * width);
                add_product(g2, slope, sent + 7 * width);
            };
            T sums[4];  // r, then unit
            sum_pieces<kBytes, T, 4>(width, add, sums);
            if (!out.r) continue;
            out.r[edge] = sums[0] * per_unit;
            std::copy(sums + 1, sums + 4, out.unit + 3 * edge);
        }
        if (out.x) store_all_sent<kBytes, true>(p, memory, width, j, out);
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
        p.op.v.cols == 3 * kCommonWidth ? send<bytes, T, kCommonWidth>(p, out, a, b)                             \
                                        : send<bytes, T, 0>(p, out, a, b);                                       \
    }                                                                                                            \
    target void table_loop(Vectors<bytes>, const Painn<T>& p, std::span<const IntervalEdge<T>> edges, T* sums) { \
        p.op.v.cols == 3 * kCommonWidth ? add_to_interval<bytes, T, true, kCommonWidth>(p, edges, sums)          \
                                        : add_to_interval<bytes, T, true, 0>(p, edges, sums);                    \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

}  // namespace

template <class T>
void painn_message_double_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad,
                                   const PainnGradients<const T>& grad2, const PainnResult<T>& out_grad,
                                   const PainnGradients<T>& out, const Context& context) {
    const Painn<T> p{op, grad, grad2};
    const std::int64_t grain = filter_grain(op.rows, 2 * op.x.cols);
    if (out_grad.s)
        parallel_for(op.rows.n_rows, grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { receive_loop(v, p, out_grad, a, b); });
        });
    if (out.x || out.r)
        parallel_for(op.columns.n_rows, grain, context.n_threads, [&](std::int64_t a, std::int64_t b) {
            with_vectors([&](auto v) { send_loop(v, p, out, a, b); });
        });
    if (out.coefficients)
        sum_by_interval<T>(op.rows, op.table, op.r, out.coefficients, context,
                           [&](std::int64_t, std::span<const IntervalEdge<T>> edges, T* sums) {
                               with_vectors([&](auto v) { table_loop(v, p, edges, sums); });
                           });
}

#define MDGNN_INSTANTIATE(T)                                                                              \
    template void painn_message_double_backward<T>(const PainnMessage<T>&, const PainnResult<const T>&,   \
                                                   const PainnGradients<const T>&, const PainnResult<T>&, \
                                                   const PainnGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
