// Parallelisation: receivers are split over threads, and senders in a second pass of the derivatives; each row is
// summed by one thread in edge order, so there are no atomics and the bits do not depend on the number of threads.
// Memory traffic per edge and feature: edge_part is read once (every pass), its gradient written once and, where the
// gradient of `ends` is wanted, read once more by sender. Rows of `ends` are small and stay in cache.
// Arithmetic per edge and feature: one exp and one division, vectorised; contraction is off, so that every SIMD level
// gives the same bits.
//
// Alternatives that lost: a chain of scatter_add and silu kernels (2 to 3.5 times the time with the derivative, four
// arrays of size E x H); reading edge_part as a block of columns of all layers' (4 times the time at 561 atoms).
#include <algorithm>
#include <vector>

#include "core/lanes.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/concat_message/concat_message.hpp"
#include "ops/silu/math.hpp"

namespace mdgnn::cpu {
namespace {

// Rows per chunk such that a chunk is worth some ten thousand exponentials: enough to pay for waking a thread.
template <class T>
std::int64_t grain(const ConcatMessage<T>& op) {
    const std::int64_t edges = op.rows.n_rows > 0 ? op.rows.row_ptr[op.rows.n_rows] : 0;
    return 8192 / ((edges / (op.rows.n_rows + 1) + 1) * (op.ends.cols / 2 + 4)) + 1;
}

template <class T>
struct Edge {
    const T *part, *sent, *received;
    T x(std::int64_t f) const { return (sent[f] + received[f]) + part[f]; }
};

template <class T>
inline Edge<T> edge(const ConcatMessage<T>& op, std::int64_t i, std::int64_t k) {
    const std::int64_t width = op.ends.cols / 2;
    return {op.edge_part.data + k * op.edge_stride, op.ends.row(op.rows.index[k]), op.ends.row(i) + width};
}

template <class T>
inline __attribute__((always_inline)) void sum_messages(const ConcatMessage<T>& op, Matrix<T> out, std::int64_t begin,
                                                        std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        T* __restrict y = out.row(i);
        std::fill(y, y + out.cols, T(0));
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
            const Edge<T> e = edge(op, i, k);
            const T w = op.envelope ? op.envelope[k] : T(1);
            for (std::int64_t f = 0; f < out.cols; ++f) y[f] += w * silu_value(e.x(f));
        }
    }
}

template <class T>
inline __attribute__((always_inline)) void edge_gradients(const ConcatMessage<T>& op, Matrix<const T> grad,
                                                          Matrix<T> out_edge_part, Matrix<T> out_ends, T* out_envelope,
                                                          std::int64_t begin, std::int64_t end) {
    const std::int64_t width = grad.cols;
    std::vector<T> sum(width);
    for (std::int64_t i = begin; i < end; ++i) {
        const T* __restrict g = grad.row(i);
        T* __restrict r = sum.data();
        std::fill(r, r + width, T(0));
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
            const Edge<T> e = edge(op, i, k);
            const T w = op.envelope ? op.envelope[k] : T(1);
            T* __restrict out = out_edge_part.row(k);
            for (std::int64_t f = 0; f < width; ++f) {
                out[f] = w * g[f] * silu_slope(e.x(f));
                r[f] += out[f];
            }
            if (out_envelope)
                out_envelope[k] = sum_lanes<T>(width, [&](std::int64_t f) { return g[f] * silu_value(e.x(f)); });
        }
        if (out_ends) std::copy(r, r + width, out_ends.row(i) + width);
    }
}

template <class T>
inline __attribute__((always_inline)) void second_gradients(const ConcatMessage<T>& op, Matrix<const T> grad,
                                                            const ConcatMessageGrad2<T>& grad2, Matrix<T> out_grad,
                                                            Matrix<T> out_edge_part, Matrix<T> out_ends,
                                                            T* out_envelope, std::int64_t begin, std::int64_t end) {
    const std::int64_t width = grad.cols;
    std::vector<T> sum(width), factor(width);
    for (std::int64_t i = begin; i < end; ++i) {
        const T* __restrict g = grad.row(i);
        T* __restrict r = sum.data();
        T* __restrict q = factor.data();  // what multiplies the gradient of x
        T* __restrict y = out_grad.row(i);
        std::fill(r, r + width, T(0));
        std::fill(y, y + width, T(0));
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
            const Edge<T> e = edge(op, i, k);
            const T w = op.envelope ? op.envelope[k] : T(1);
            const T t = grad2.envelope ? grad2.envelope[k] : T(0);
            std::fill(q, q + width, T(0));
            if (grad2.edge_part) {
                const T* u = grad2.edge_part.row(k);
                for (std::int64_t f = 0; f < width; ++f) q[f] += u[f];
            }
            if (grad2.ends) {
                const T *u = grad2.ends.row(op.rows.index[k]), *v = grad2.ends.row(i) + width;
                for (std::int64_t f = 0; f < width; ++f) q[f] += u[f] + v[f];
            }
            T* __restrict out = out_edge_part.row(k);
            for (std::int64_t f = 0; f < width; ++f) {
                const T x = e.x(f), slope = silu_slope(x);
                y[f] += w * q[f] * slope + t * silu_value(x);
                out[f] = g[f] * (w * q[f] * silu_curvature(x) + t * slope);
                r[f] += out[f];
            }
            if (out_envelope)
                out_envelope[k] = sum_lanes<T>(width, [&](std::int64_t f) { return g[f] * q[f] * silu_slope(e.x(f)); });
        }
        if (out_ends) std::copy(r, r + width, out_ends.row(i) + width);
    }
}

// ends[j, :H] = sum of the rows of x over the edges that j sends
template <class T>
inline __attribute__((always_inline)) void sum_sent(const Rows& columns, Matrix<const T> x, Matrix<T> ends,
                                                    std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
        T* __restrict y = ends.row(j);
        std::fill(y, y + x.cols, T(0));
        for (std::int64_t k = columns.row_ptr[j]; k < columns.row_ptr[j + 1]; ++k) {
            const T* __restrict v = x.row(columns.index[k]);
            for (std::int64_t f = 0; f < x.cols; ++f) y[f] += v[f];
        }
    }
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                               \
    MDGNN_SIMD_CLONES void forward_loop(const ConcatMessage<T>& op, Matrix<T> out, std::int64_t a, std::int64_t b) { \
        sum_messages<T>(op, out, a, b);                                                                              \
    }                                                                                                                \
    MDGNN_SIMD_CLONES void backward_loop(const ConcatMessage<T>& op, Matrix<const T> grad, Matrix<T> edge,           \
                                         Matrix<T> ends, T* weight, std::int64_t a, std::int64_t b) {                \
        edge_gradients<T>(op, grad, edge, ends, weight, a, b);                                                       \
    }                                                                                                                \
    MDGNN_SIMD_CLONES void double_backward_loop(                                                                     \
        const ConcatMessage<T>& op, Matrix<const T> grad, const ConcatMessageGrad2<T>& grad2, Matrix<T> out_grad,    \
        Matrix<T> edge, Matrix<T> ends, T* weight, std::int64_t a, std::int64_t b) {                                 \
        second_gradients<T>(op, grad, grad2, out_grad, edge, ends, weight, a, b);                                    \
    }                                                                                                                \
    MDGNN_SIMD_CLONES void sent_loop(const Rows& columns, Matrix<const T> x, Matrix<T> ends, std::int64_t a,         \
                                     std::int64_t b) {                                                               \
        sum_sent<T>(columns, x, ends, a, b);                                                                         \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

template <class T>
void add_sent(const ConcatMessage<T>& op, Matrix<T> x, Matrix<T> ends, const Context& context) {
    if (!ends) return;
    const Matrix<const T> read{x.data, x.rows, x.cols};
    parallel_for(ends.rows, grain(op), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { sent_loop(op.columns, read, ends, a, b); });
}

}  // namespace

template <class T>
void concat_message(const ConcatMessage<T>& op, Matrix<T> out, const Context& context) {
    parallel_for(op.rows.n_rows, grain(op), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { forward_loop(op, out, a, b); });
}

template <class T>
void concat_message_backward(const ConcatMessage<T>& op, Matrix<const T> grad, Matrix<T> out_edge_part,
                             Matrix<T> out_ends, T* out_envelope, const Context& context) {
    parallel_for(op.rows.n_rows, grain(op), context.n_threads, [&](std::int64_t a, std::int64_t b) {
        backward_loop(op, grad, out_edge_part, out_ends, out_envelope, a, b);
    });
    add_sent(op, out_edge_part, out_ends, context);
}

template <class T>
void concat_message_double_backward(const ConcatMessage<T>& op, Matrix<const T> grad,
                                    const ConcatMessageGrad2<T>& grad2, Matrix<T> out_grad, Matrix<T> out_edge_part,
                                    Matrix<T> out_ends, T* out_envelope, const Context& context) {
    parallel_for(op.rows.n_rows, grain(op), context.n_threads, [&](std::int64_t a, std::int64_t b) {
        double_backward_loop(op, grad, grad2, out_grad, out_edge_part, out_ends, out_envelope, a, b);
    });
    add_sent(op, out_edge_part, out_ends, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                           \
    template void concat_message<T>(const ConcatMessage<T>&, Matrix<T>, const Context&);                               \
    template void concat_message_backward<T>(const ConcatMessage<T>&, Matrix<const T>, Matrix<T>, Matrix<T>, T*,       \
                                             const Context&);                                                          \
    template void concat_message_double_backward<T>(const ConcatMessage<T>&, Matrix<const T>,                          \
                                                    const ConcatMessageGrad2<T>&, Matrix<T>, Matrix<T>, Matrix<T>, T*, \
                                                    const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
