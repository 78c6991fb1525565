// Parallelisation: as cfconv's. Receivers are split over threads, and senders for x and v; the gradient of the table is
// summed over blocks of edges whose number depends on that of the edges alone. No bits depend on the number of threads.
// Memory traffic per edge: 12 F numbers of the table and 6 F of x and v, from the cache. Results by sender need neither
// x nor v of the other end: they leave the sum.
#include <algorithm>
#include <vector>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "painn_message/painn_message.hpp"
#include "radial_filter/edges.hpp"

namespace mdgnn::cpu {
namespace {

// What the loops see. `twice`: the loop is that of the double backward, which multiplies the gradients by `by`.
template <class T>
struct Painn {
    PainnMessage<T> op;
    PainnResult<const T> grad;
    PainnGradients<const T> by;
    bool twice = false;
};

// An edge with the weights of its filter; `factor`, what multiplies the gradient of its length, is in the slopes.
template <class T>
struct Message {
    const T *coefficients, *unit, *by_unit;
    std::int64_t other, edge;
    FilterWeights<T> value, slope;
};

template <class T, bool kTwice>
MDGNN_INLINE void messages_of(const Painn<T>& p, const Rows& rows, std::int64_t i, std::vector<FilterEdge<T>>& edges,
                              std::vector<Message<T>>& found) {
    filter_edges(rows, p.op.table, p.op.r, i, edges);
    found.resize(edges.size());
    for (std::size_t k = 0; k < edges.size(); ++k) {
        const FilterEdge<T>& e = edges[k];
        Message<T>& m = found[k];
        m.coefficients = e.coefficients, m.other = e.other, m.edge = e.edge;
        m.unit = p.op.unit + 3 * e.edge;
        m.value = filter_value(e.t);
        if constexpr (kTwice) {
            m.by_unit = p.by.unit + 3 * e.edge;
            m.slope = filter_slope(e.t, p.op.table.per_unit, p.by.r[e.edge]);
        }
    }
}

template <class V, class T>
MDGNN_INLINE void dot(const V* a, const T* b, V& sum) {
    sum = a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class V, class T>
MDGNN_INLINE void load_three(const T* from, std::int64_t width, V* to) {
    for (int c = 0; c < 3; ++c) load(from + c * width, to[c]);
}

// By receiver: the results, or (twice) the derivative for `grad`.
template <class T, bool kTwice>
MDGNN_INLINE void receive(const Painn<T>& p, const PainnResult<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    for (std::int64_t i = begin; i < end; ++i) {
        messages_of<T, kTwice>(p, p.op.rows, i, edges, messages);
        each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V s = {}, v[3] = {};
            for (const Message<T>& m : messages) {
                V block[3], product[3], vector[3];  // product: what x's blocks contribute
                load_three(p.op.x.row(m.other) + f, width, block);
                load_three(p.op.v.row(m.other) + f, width, vector);
                for (int c = 0; c < 3; ++c) {
                    V filter;
                    interpolate(m.value, m.coefficients + c * width + f, all, filter);
                    product[c] = block[c] * filter;
                    if constexpr (kTwice) {
                        V by, slope;
                        load(p.by.x.row(m.other) + c * width + f, by);
                        interpolate(m.slope, m.coefficients + c * width + f, all, slope);
                        if (c > 0) {  // direction and vector have gradients of their own
                            V more[3];
                            if (c == 2) load_three(p.by.v.row(m.other) + f, width, more);
                            for (int d = 0; d < 3; ++d)
                                v[d] += c == 1 ? product[c] * m.by_unit[d] : product[c] * more[d];
                        }
                        product[c] = by * filter + block[c] * slope;
                    }
                }
                s += product[0];
                for (int c = 0; c < 3; ++c) v[c] += product[1] * m.unit[c] + product[2] * vector[c];
            }
            store(s, out.s.row(i) + f);
            for (int c = 0; c < 3; ++c) store(v[c], out.v.row(i) + c * width + f);
        });
    }
}

// By sender: the derivative for x and v.
template <class T, bool kTwice>
MDGNN_INLINE void send(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    for (std::int64_t j = begin; j < end; ++j) {
        messages_of<T, kTwice>(p, p.op.columns, j, edges, messages);
        each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V x[3] = {}, a[3] = {}, b[3] = {};  // a, b: sums of grad.v times the filter and its slope
            for (const Message<T>& m : messages) {
                V s, v[3], along, filter[3];
                load(p.grad.s.row(m.other) + f, s);
                load_three(p.grad.v.row(m.other) + f, width, v);
                dot(v, m.unit, along);
                for (int c = 0; c < 3; ++c) interpolate(m.value, m.coefficients + c * width + f, all, filter[c]);
                for (int c = 0; c < 3; ++c) a[c] += v[c] * filter[2];
                if constexpr (kTwice) {
                    V slope[3], by_along;
                    for (int c = 0; c < 3; ++c) interpolate(m.slope, m.coefficients + c * width + f, all, slope[c]);
                    dot(v, m.by_unit, by_along);
                    x[0] += s * slope[0];
                    x[1] += along * slope[1] + by_along * filter[1];
                    for (int c = 0; c < 3; ++c) b[c] += v[c] * slope[2];
                } else {
                    x[0] += s * filter[0];
                    x[1] += along * filter[1];
                }
            }
            V own[3], of_vector;
            load_three(p.op.v.row(j) + f, width, own);
            load(p.op.x.row(j) + 2 * width + f, of_vector);
            for (int c = 0; c < 3; ++c) {
                V result = of_vector * (kTwice ? b[c] : a[c]);
                x[2] += own[c] * (kTwice ? b[c] : a[c]);
                if constexpr (kTwice) {
                    V by_own, by_x;
                    load(p.by.v.row(j) + c * width + f, by_own);
                    load(p.by.x.row(j) + 2 * width + f, by_x);
                    x[2] += by_own * a[c];
                    result += by_x * a[c];
                }
                store(result, out.v.row(j) + c * width + f);
            }
            for (int c = 0; c < 3; ++c) store(x[c], out.x.row(j) + c * width + f);
        });
    }
}

// What multiplies x W in the sum: q, and (twice) that for the gradients of unit and v, by_q, whose first block is zero.
template <class T, bool kTwice, class V>
MDGNN_INLINE void factors(const Painn<T>& p, std::int64_t i, const Message<T>& m, std::int64_t f, V* q, V* by_q,
                          V* grad_v) {
    const std::int64_t width = p.op.v.cols / 3;
    V vector[3];
    load(p.grad.s.row(i) + f, q[0]);
    load_three(p.grad.v.row(i) + f, width, grad_v);
    load_three(p.op.v.row(m.other) + f, width, vector);
    dot(grad_v, m.unit, q[1]);
    q[2] = grad_v[0] * vector[0] + grad_v[1] * vector[1] + grad_v[2] * vector[2];
    if constexpr (kTwice) {
        load_three(p.by.v.row(m.other) + f, width, vector);
        dot(grad_v, m.by_unit, by_q[1]);
        by_q[2] = grad_v[0] * vector[0] + grad_v[1] * vector[1] + grad_v[2] * vector[2];
    }
}

// By edge: the derivative for r and unit.
template <class T, bool kTwice>
MDGNN_INLINE void edge_gradients(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t begin,
                                 std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t first = p.op.rows.row_ptr[i], last = p.op.rows.row_ptr[i + 1];
        std::fill(out.r + first, out.r + last, T(0));
        std::fill(out.unit + 3 * first, out.unit + 3 * last, T(0));
        messages_of<T, kTwice>(p, p.op.rows, i, edges, messages);
        for (std::size_t k = 0; k < messages.size(); ++k) {
            const Message<T>& m = messages[k];
            const T per_unit = p.op.table.per_unit, t = edges[k].t;
            const FilterWeights<T> first_order = filter_slope(t, per_unit, T(1));
            FilterWeights<T> second_order;
            if constexpr (kTwice) second_order = filter_curvature(t, per_unit, p.by.r[m.edge]);
            T sums[4];  // r, then unit
            sum_pieces<T, 4>(
                width,
                [&]<class V>(V* sum, std::int64_t f) __attribute__((always_inline)) {
                    V q[3], by_q[3], grad_v[3], block[3], by[3];
                    factors<T, kTwice>(p, i, m, f, q, by_q, grad_v);
                    load_three(p.op.x.row(m.other) + f, width, block);
                    if constexpr (kTwice) load_three(p.by.x.row(m.other) + f, width, by);
                    for (int c = 0; c < 3; ++c) {
                        const T* const at = m.coefficients + c * width + f;
                        V slope;
                        interpolate(first_order, at, all, slope);
                        if constexpr (kTwice) {
                            V curvature;
                            interpolate(second_order, at, all, curvature);
                            sum[0] += q[c] * (by[c] * slope + block[c] * curvature);
                            if (c > 0) sum[0] += by_q[c] * block[c] * slope;
                        } else {
                            sum[0] += q[c] * block[c] * slope;
                        }
                    }
                    V filter, b;
                    interpolate(m.value, m.coefficients + width + f, all, filter);
                    b = block[1] * filter;
                    if constexpr (kTwice) {
                        V scaled_slope;
                        interpolate(m.slope, m.coefficients + width + f, all, scaled_slope);
                        b = by[1] * filter + block[1] * scaled_slope;
                    }
                    for (int c = 0; c < 3; ++c) sum[1 + c] += grad_v[c] * b;
                },
                sums);
            out.r[m.edge] = sums[0];
            std::copy(sums + 1, sums + 4, out.unit + 3 * m.edge);
        }
    }
}

// Adds the derivative for the coefficients over the rows begin .. end.
template <class T, bool kTwice>
MDGNN_INLINE void add_to_table(const Painn<T>& p, T* coefficients, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = p.op.v.cols / 3, all = 3 * width;
    std::vector<FilterEdge<T>> edges;
    std::vector<Message<T>> messages;
    for (std::int64_t i = begin; i < end; ++i) {
        messages_of<T, kTwice>(p, p.op.rows, i, edges, messages);
        for (const Message<T>& m : messages) {
            T* const at = coefficients + (m.coefficients - p.op.table.coefficients);
            each_piece<T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
                V q[3], by_q[3], grad_v[3], block[3], by[3];
                factors<T, kTwice>(p, i, m, f, q, by_q, grad_v);
                load_three(p.op.x.row(m.other) + f, width, block);
                if constexpr (kTwice) load_three(p.by.x.row(m.other) + f, width, by);
                for (int c = 0; c < 3; ++c) {
                    V value = q[c] * block[c], slope = value;
                    if constexpr (kTwice) value = c > 0 ? q[c] * by[c] + by_q[c] * block[c] : q[c] * by[c];
                    for (int n = 0; n < 4; ++n) {
                        T* const here = at + n * all + c * width + f;
                        V sum;
                        load(here, sum);
                        sum += value * m.value.at[n];
                        if constexpr (kTwice) sum += slope * m.slope.at[n];
                        store(sum, here);
                    }
                }
            });
        }
    }
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                          \
    MDGNN_SIMD_CLONES void receive_loop(const Painn<T>& p, const PainnResult<T>& out, std::int64_t a,           \
                                        std::int64_t b) {                                                       \
        p.twice ? receive<T, true>(p, out, a, b) : receive<T, false>(p, out, a, b);                             \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void send_loop(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,           \
                                     std::int64_t b) {                                                          \
        p.twice ? send<T, true>(p, out, a, b) : send<T, false>(p, out, a, b);                                   \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void edge_loop(const Painn<T>& p, const PainnGradients<T>& out, std::int64_t a,           \
                                     std::int64_t b) {                                                          \
        p.twice ? edge_gradients<T, true>(p, out, a, b) : edge_gradients<T, false>(p, out, a, b);               \
    }                                                                                                           \
    MDGNN_SIMD_CLONES void table_loop(const Painn<T>& p, T* coefficients, std::int64_t a, std::int64_t b) {     \
        p.twice ? add_to_table<T, true>(p, coefficients, a, b) : add_to_table<T, false>(p, coefficients, a, b); \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

template <class T>
void run_receive(const Painn<T>& p, const PainnResult<T>& out, const Context& context) {
    parallel_for(p.op.rows.n_rows, filter_grain(p.op.rows, p.op.x.cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { receive_loop(p, out, a, b); });
}

template <class T>
void run_gradients(const Painn<T>& p, const PainnGradients<T>& out, const Context& context) {
    const std::int64_t grain = filter_grain(p.op.rows, p.op.x.cols);
    if (out.x)
        parallel_for(p.op.columns.n_rows, grain, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { send_loop(p, out, a, b); });
    if (out.r)
        parallel_for(p.op.rows.n_rows, grain, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { edge_loop(p, out, a, b); });
    if (out.coefficients)
        sum_over_blocks<T>(p.op.rows, 4 * p.op.table.n_intervals * p.op.table.width, out.coefficients, context,
                           [&](T* coefficients, std::int64_t a, std::int64_t b) { table_loop(p, coefficients, a, b); });
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
