// Parallelisation: rows (or columns) are split over threads; a row is summed by one thread in edge order, so there are
// no atomics and the bits do not depend on the number of threads.
// Memory traffic per edge and feature: one gathered read of values (forward, out_weight) or grad (out_values); the
// output row stays in cache until it is complete. Nothing of size edges x features is written, except where `values`
// itself has a row per edge.
// The loops over features vectorise with the baseline instruction set; a run-time choice of wider SIMD belongs at the
// three *_row functions below.
#include <algorithm>
#include <stdexcept>

#include "core/lanes.hpp"
#include "core/thread_pool.hpp"
#include "ops/scatter_add/math.hpp"

namespace mdgnn::cpu {
namespace {

// Rows per chunk such that a chunk is some ten thousand multiplications: enough to pay for waking a thread.
std::int64_t grain(const Rows& rows, std::int64_t n_cols) {
    const std::int64_t edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0;
    const std::int64_t work_per_row = (edges / (rows.n_rows + 1) + 1) * (n_cols + 4);
    return 16384 / work_per_row + 1;
}

template <class T>
void add_row(std::int64_t n, T a, const T* __restrict x, T* __restrict y) {
    for (std::int64_t f = 0; f < n; ++f) y[f] += a * x[f];
}

template <class T>
void scale_row(std::int64_t n, T a, const T* __restrict x, T* __restrict y) {
    for (std::int64_t f = 0; f < n; ++f) y[f] = a * x[f];
}

// out[i] = scale_i * sum_k w x[index] (+ w2 x2[index])
template <class T>
void sum_rows(const ScatterAdd<T>& op, Matrix<const T> x, const T* w, Matrix<const T> x2, const T* w2, Matrix<T> out,
              const Context& context) {
    parallel_for(op.rows.n_rows, grain(op.rows, out.cols), context.n_threads,
                 [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i) {
                         T* y = out.row(i);
                         for (std::int64_t f = 0; f < out.cols; ++f) y[f] = T(0);
                         for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
                             const std::int64_t j = entry(op.rows.index, k);
                             if (x) add_row(out.cols, weight_of(w, op.rows, k), x.row(j), y);
                             if (x2) add_row(out.cols, weight_of(w2, op.rows, k), x2.row(j), y);
                         }
                         const T scale = row_scale<T>(op.rows, i, op.reduce);
                         for (std::int64_t f = 0; f < out.cols; ++f) y[f] *= scale;
                     }
                 });
}

// out[j] = sum over the edges that gather value j of w * scale_i * g[i]
template <class T>
void sum_columns(const ScatterAdd<T>& op, Matrix<const T> g, const T* w, Matrix<T> out, const Context& context) {
    if (!op.rows.index) {  // every value belongs to one edge: write it where it is
        parallel_for(op.rows.n_rows, grain(op.rows, g.cols), context.n_threads,
                     [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t i = begin; i < end; ++i) {
                             const T scale = row_scale<T>(op.rows, i, op.reduce);
                             for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k)
                                 scale_row(g.cols, weight_of(w, op.rows, k) * scale, g.row(i), out.row(k));
                         }
                     });
        return;
    }
    parallel_for(op.columns.n_rows, grain(op.columns, g.cols), context.n_threads,
                 [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t j = begin; j < end; ++j) {
                         T* y = out.row(j);
                         for (std::int64_t f = 0; f < out.cols; ++f) y[f] = T(0);
                         for (std::int64_t k = op.columns.row_ptr[j]; k < op.columns.row_ptr[j + 1]; ++k) {
                             const std::int64_t i = entry(op.columns.index, k);
                             const T scale = row_scale<T>(op.rows, i, op.reduce);
                             add_row(out.cols, weight_of(w, op.columns, k) * scale, g.row(i), y);
                         }
                     }
                 });
}

// out[e] = scale_i * <g[i], x[index]>
template <class T>
void dot_rows(const ScatterAdd<T>& op, Matrix<const T> g, Matrix<const T> x, T* out, const Context& context) {
    parallel_for(op.rows.n_rows, grain(op.rows, g.cols), context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const T scale = row_scale<T>(op.rows, i, op.reduce);
            for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
                const T *u = g.row(i), *v = x.row(entry(op.rows.index, k));
                out[entry(op.rows.edge, k)] = scale * sum_lanes<T>(g.cols, [&](std::int64_t f) { return u[f] * v[f]; });
            }
        }
    });
}

template <class T>
void max_rows(const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, const Context& context) {
    parallel_for(op.rows.n_rows, grain(op.rows, out.cols), context.n_threads,
                 [&](std::int64_t begin, std::int64_t end) {
                     for (std::int64_t i = begin; i < end; ++i) {
                         T* y = out.row(i);
                         std::int64_t* winner = argmax + i * out.cols;
                         const std::int64_t first = op.rows.row_ptr[i], last = op.rows.row_ptr[i + 1];
                         for (std::int64_t f = 0; f < out.cols; ++f) y[f] = T(0), winner[f] = -1;
                         for (std::int64_t k = first; k < last; ++k) {
                             const T* x = op.values.row(entry(op.rows.index, k));
                             const T w = weight_of(op.weight, op.rows, k);
                             for (std::int64_t f = 0; f < out.cols; ++f)
                                 if (k == first || replaces_maximum(w * x[f], y[f]))
                                     y[f] = w * x[f], winner[f] = entry(op.rows.edge, k);
                         }
                     }
                 });
}

// Serial: a maximum's gradient touches one edge per (row, feature), far less than a pass over the edges.
template <class T>
void max_backward(const ScatterAdd<T>& op, Matrix<const T> grad, const std::int64_t* argmax, Matrix<T> out_values,
                  T* out_weight) {
    if (out_values) std::fill(out_values.data, out_values.data + out_values.rows * out_values.cols, T(0));
    for (std::int64_t i = 0; i < op.rows.n_rows; ++i) {
        const T* g = grad.row(i);
        const std::int64_t* winner = argmax + i * grad.cols;
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
            const std::int64_t e = entry(op.rows.edge, k), j = entry(op.rows.index, k);
            const T w = weight_of(op.weight, op.rows, k);
            T sum = 0;
            for (std::int64_t f = 0; f < grad.cols; ++f) {
                if (winner[f] != e) continue;
                if (out_values) out_values.row(j)[f] += w * g[f];
                sum += g[f] * op.values.row(j)[f];
            }
            if (out_weight) out_weight[e] = sum;
        }
    }
}

}  // namespace

template <class T>
void scatter_add(const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, const Context& context) {
    if (op.reduce == Reduce::max) return max_rows(op, out, argmax, context);
    sum_rows<T>(op, op.values, op.weight, {}, nullptr, out, context);
}

template <class T>
void scatter_add_backward(const ScatterAdd<T>& op, Matrix<const T> grad, const std::int64_t* argmax,
                          Matrix<T> out_values, T* out_weight, const Context& context) {
    if (op.reduce == Reduce::max) return max_backward(op, grad, argmax, out_values, out_weight);
    if (out_values) sum_columns(op, grad, op.weight, out_values, context);
    if (out_weight) dot_rows(op, grad, op.values, out_weight, context);
}

template <class T>
void scatter_add_double_backward(const ScatterAdd<T>& op, Matrix<const T> grad, Matrix<const T> grad2_values,
                                 const T* grad2_weight, Matrix<T> out_grad, Matrix<T> out_values, T* out_weight,
                                 const Context& context) {
    if (op.reduce == Reduce::max) throw std::invalid_argument("scatter_add: max has no second derivative");
    const Matrix<const T> values = grad2_weight ? op.values : Matrix<const T>{};
    if (out_grad) sum_rows(op, grad2_values, op.weight, values, grad2_weight, out_grad, context);
    if (out_values) sum_columns(op, grad, grad2_weight, out_values, context);
    if (out_weight) dot_rows(op, grad, grad2_values, out_weight, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                         \
    template void scatter_add<T>(const ScatterAdd<T>&, Matrix<T>, std::int64_t*, const Context&);                    \
    template void scatter_add_backward<T>(const ScatterAdd<T>&, Matrix<const T>, const std::int64_t*, Matrix<T>, T*, \
                                          const Context&);                                                           \
    template void scatter_add_double_backward<T>(const ScatterAdd<T>&, Matrix<const T>, Matrix<const T>, const T*,   \
                                                 Matrix<T>, Matrix<T>, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
