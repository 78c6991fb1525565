// Parallelisation: as cfconv's. Receivers are split over threads, and senders for x, v, r and unit; the gradient of the
// table is summed over blocks of edges whose number depends on that of the edges alone. No bits depend on the number of
// threads. Memory traffic per edge: 12 F numbers of the table and 6 F of x and v (forward) or 4 F of gradients, from
// the cache. Results by sender need neither x nor v of the other end: they leave the sum. Alternatives that lost: the
// derivatives for x and v and those for r and unit in passes of their own, 1.35 times (the second derivative has them).
#include <algorithm>
#include <vector>

#include "core/scratch.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/painn_message/edges.hpp"

namespace mdgnn::cpu {
namespace {

// By receiver: the results, or (double backward) the derivative for `grad`.
template <int kBytes, class T, bool kDoubleBackward>
MDGNN_INLINE void receive(const Painn<T>& p, const PainnResult<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    for (std::int64_t i = begin; i < end; ++i) {
        messages_of<T, kDoubleBackward>(p, p.op.rows, i, scratch);
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V s = {};
            Three<V> v = {};
            for (const Message<T>& m : scratch.messages) {
                PainnEdge<V, T> e;
                load_directions<kDoubleBackward>(p, m, e);
                load_sender<kDoubleBackward>(p, m, f, e);
                for (int c = 0; c < 3; ++c) load_filter<kDoubleBackward>(p, m, f, c, e);
                add_message<kDoubleBackward>(e, s, v);
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

// By sender: the derivatives for x and v and those for r and unit, in one pass, so that the table is read once. Either
// pair may be absent: what is there has the same bits.
template <int kBytes, class T>
MDGNN_INLINE void send_all(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    scratch.sums.resize(5 * width);
    T* const memory = scratch.sums.data();
    const bool sends = static_cast<bool>(out.x);
    const auto load_sums = [&]<class V>(std::int64_t f, PainnSent<V>& sum) __attribute__((always_inline)) {
        load(memory + f, sum.x0), load(memory + width + f, sum.x1);
        load_three(memory + 2 * width + f, width, sum.a);
    };
    for (std::int64_t j = begin; j < end; ++j) {
        const std::int64_t first = p.op.columns.row_ptr[j], last = p.op.columns.row_ptr[j + 1];
        messages_of<T, false>(p, p.op.columns, j, scratch);
        const std::size_t n = scratch.messages.size();
        if (out.r && !p.op.adds && static_cast<std::int64_t>(n) < last - first)  // some are beyond the cutoff
            for (std::int64_t k = first; k < last; ++k) {
                const std::int64_t e = p.op.columns.edge[k];
                out.r[e] = T(0);
                std::fill(out.unit + 3 * e, out.unit + 3 * e + 3, T(0));
            }
        std::fill(memory, memory + 5 * width, T(0));
        for (std::size_t k = 0; k < n; ++k) {
            const Message<T>& m = scratch.messages[k];
            const FilterWeights<T> weights = filter_slope(scratch.edges[k].t, p.op.table.per_unit, T(1));
            const auto add = [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                PainnEdge<V, T> e;
                PainnSent<V> sent;
                V gs;
                Three<V> gv, slope;
                load(p.grad.s.row(m.other) + f, gs);
                load_three(p.grad.v.row(m.other) + f, width, gv);
                load_directions<false>(p, m, e);
                load_three(p.op.x.row(j) + f, width, e.x);
                load_three(p.op.v.row(j) + f, width, e.v);
                for (int c = 0; c < 3; ++c) {
                    load_filter<false>(p, m, f, c, e);
                    interpolate_slope(weights, m.coefficients + c * width + f, all, slope[c]);
                }
                if (sends) {
                    load_sums(f, sent);
                    add_sent<false>(e, gs, gv, sent);
                }
                add_edge_gradients<false>(e, gs, gv, slope, slope, sum);
                if (!sends) return;
                store(sent.x0, memory + f), store(sent.x1, memory + width + f);
                for (int c = 0; c < 3; ++c) store(sent.a[c], memory + (2 + c) * width + f);
            };
            T sums[4];  // r, then unit
            sum_pieces<kBytes, T, 4>(width, add, sums);
            if (!out.r) continue;
            T *const to_r = out.r + m.edge, *const to_unit = out.unit + 3 * m.edge;
            *to_r = p.op.adds ? *to_r + sums[0] : sums[0];
            for (int c = 0; c < 3; ++c) to_unit[c] = p.op.adds ? to_unit[c] + sums[1 + c] : sums[1 + c];
        }
        if (!out.x) continue;
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            PainnSent<V> sum;
            load_sums(f, sum);
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

// Adds the derivative for the coefficients over the rows begin .. end.
template <int kBytes, class T, bool kDoubleBackward>
MDGNN_INLINE void add_to_table(const Painn<T>& p, T* coefficients, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    PainnScratch<T>& scratch = scratch_of_this_thread<PainnScratch<T>>();
    for (std::int64_t i = begin; i < end; ++i) {
        messages_of<T, kDoubleBackward>(p, p.op.rows, i, scratch);
        for (const Message<T>& m : scratch.messages) {
            T* const at = coefficients + (m.coefficients - p.op.table.coefficients);
            each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                PainnEdge<V, T> e;
                V gs, value[3], slope[3];
                Three<V> gv;
                load(p.grad.s.row(i) + f, gs);
                load_three(p.grad.v.row(i) + f, width, gv);
                load_directions<kDoubleBackward>(p, m, e);
                load_sender<kDoubleBackward>(p, m, f, e);
                filter_gradients<kDoubleBackward>(e, gs, gv, value, slope);
                for (int c = 0; c < 3; ++c) {
                    for (int n = 0; n < 4; ++n) {
                        T* const here = at + n * all + c * width + f;
                        V sum;
                        load(here, sum);
                        sum += value[c] * m.value.at[n];
                        if constexpr (kDoubleBackward) sum += slope[c] * m.slope.at[n];
                        store(sum, here);
                    }
                }
            });
        }
    }
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                  \
    target void receive_loop(Vectors<bytes>, const Painn<T>& p, const PainnResult<T>& out, std::int64_t a,       \
                             std::int64_t b) {                                                                   \
        p.double_backward ? receive<bytes, T, true>(p, out, a, b) : receive<bytes, T, false>(p, out, a, b);      \
    }                                                                                                            \
    target void send_loop(Vectors<bytes>, const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,       \
                          std::int64_t b) {                                                                      \
        p.double_backward ? send<bytes, T>(p, out, a, b) : send_all<bytes, T>(p, out, a, b);                     \
    }                                                                                                            \
    target void edge_loop(Vectors<bytes>, const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,       \
                          std::int64_t b) {                                                                      \
        edge_gradients<bytes, T>(p, out, a, b);                                                                  \
    }                                                                                                            \
    target void table_loop(Vectors<bytes>, const Painn<T>& p, T* coefficients, std::int64_t a, std::int64_t b) { \
        p.double_backward ? add_to_table<bytes, T, true>(p, coefficients, a, b)                                  \
                          : add_to_table<bytes, T, false>(p, coefficients, a, b);                                \
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
        sum_over_blocks<T>(p.op.rows, 4 * p.op.table.n_intervals * p.op.table.width, out.coefficients, context,
                           [&](T* coefficients, std::int64_t a, std::int64_t b) {
                               with_vectors([&](auto v) { table_loop(v, p, coefficients, a, b); });
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
