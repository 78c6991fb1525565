// Parallelisation: rows (or columns) are split over threads; a row is summed by one thread in edge order, so there are
// no atomics and the bits do not depend on the number of threads.
// Memory traffic per edge and feature: one gathered read of values (forward, out_weight) or grad (out_values). Sums
// stay in registers. Nothing of size edges x features is written, except where `values` itself has a row per edge. The
// floor is that read: 64 features in float32 are 4 cache lines, from the second cache some 3 ns an edge. A thread with
// AVX2 (Zen 3, 561 atoms) takes 4.1 ns, with the numbers of the edge; 10 where sums are in memory, with SSE2's vectors.
// Rows of edges come from memory, 256 bytes in 12 to 16 ns. Bits are those of sums one by one on every level: nothing
// contracts. Alternatives that lost: a pass of its own for what is left of a row, twice for 9 features; more passes
// over all edges of a row, 1.4 times for rows of edges in float64.
#include <algorithm>
#include <stdexcept>

#include "core/lanes.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "core/vectors.hpp"
#include "ops/scatter_add/math.hpp"

namespace mdgnn::cpu {
namespace {

// Rows per chunk such that a chunk is some ten thousand multiplications: enough to pay for waking a thread.
std::int64_t grain(const Rows& rows, std::int64_t n_cols) {
    const std::int64_t edges = rows.n_rows > 0 ? rows.row_ptr[rows.n_rows] : 0;
    const std::int64_t work_per_row = (edges / (rows.n_rows + 1) + 1) * (n_cols + 4);
    return 16384 / work_per_row + 1;
}

// out[i] = scale_i * sum_k (w[k] x[index k] + w2[k] x2[index k]); each of the two may be missing. By columns, the rows
// of `receivers` have their scales inside of the sum.
template <class T>
struct Sum {
    Rows rows;
    Reduce reduce = Reduce::sum;
    Matrix<const T> x;
    const T* w = nullptr;
    Matrix<const T> x2;
    const T* w2 = nullptr;
    const Rows* receivers = nullptr;
};

// Vectors of a row that are summed at once: half of the registers.
template <int kBytes>
constexpr int kSums = kBytes == 64 ? 4 : 8;

// Edges of a row whose values stay in the first cache, where a row takes more sums than that.
constexpr std::int64_t kBlock = 16;

// To row i, edges begin to end of it: features from f on by vectors V, of which the last begins at `last`.
template <class V, int kParts, class T>
MDGNN_INLINE void add_edges(const Sum<T>& sum, std::int64_t i, std::int64_t begin, std::int64_t end, std::int64_t f,
                            std::int64_t last, T* to) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    const auto at = [&](int p) __attribute__((always_inline)) { return p < kParts - 1 ? f + p * lanes : last; };
    V sums[kParts] = {};
    if (begin > sum.rows.row_ptr[i])
#pragma GCC unroll 8
        for (int p = 0; p < kParts; ++p) load(to + at(p), sums[p]);
    const auto add = [&](T a, const T* x) __attribute__((always_inline)) {
#pragma GCC unroll 8
        for (int p = 0; p < kParts; ++p) {
            V features;
            load(x + at(p), features);
            sums[p] += a * features;
        }
    };
    for (std::int64_t k = begin; k < end; ++k) {
        const std::int64_t j = entry(sum.rows.index, k);
        if (sum.x) {
            T a = weight_of(sum.w, sum.rows, k);
            if (sum.receivers) a *= row_scale<T>(*sum.receivers, j, sum.reduce);
            add(a, sum.x.row(j));
        }
        if (sum.x2) add(weight_of(sum.w2, sum.rows, k), sum.x2.row(j));
    }
    const bool done = end == sum.rows.row_ptr[i + 1];
    const T scale = done && !sum.receivers ? row_scale<T>(sum.rows, i, sum.reduce) : T(1);
#pragma GCC unroll 8
    for (int p = 0; p < kParts; ++p) store(scale * sums[p], to + at(p));
}

// A row that is no multiple of V ends with one that overlaps the one before: both have the same sums there.
template <class V, int kMost, class T>
MDGNN_INLINE void sum_row(const Sum<T>& sum, std::int64_t i, Matrix<T> out) {
    constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
    const std::int64_t count = (out.cols + lanes - 1) / lanes, last = sum.rows.row_ptr[i + 1];
    const std::int64_t block = count > kMost ? kBlock : last;
    std::int64_t begin = sum.rows.row_ptr[i], end = 0;
    do {  // once, too, where there are no edges
        end = std::min(begin + block, last);
        for (std::int64_t done = 0, parts = 0; done < count; done += parts) {
            parts = std::min<std::int64_t>(count - done, kMost);
            if (kMost > 2 && count - done - parts == 1) --parts;  // what overlaps is summed together
            const std::int64_t f = done * lanes, final = std::min(f + (parts - 1) * lanes, out.cols - lanes);
            const auto add = [&]<int kParts>() __attribute__((always_inline)) {
                if (kParts == parts) add_edges<V, kParts>(sum, i, begin, end, f, final, out.row(i));
            };
            add.template operator()<1>(), add.template operator()<2>(), add.template operator()<3>();
            if constexpr (kMost >= 4) add.template operator()<4>();
            if constexpr (kMost >= 8) {
                add.template operator()<5>(), add.template operator()<6>();
                add.template operator()<7>(), add.template operator()<8>();
            }
        }
        begin = end;
    } while (begin < last);
}

template <int kBytes, class T>
MDGNN_INLINE void sum_rows(const Sum<T>& sum, Matrix<T> out, std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        if (out.cols >= Wide<T, kBytes>::n)
            sum_row<typename Wide<T, kBytes>::type, kSums<kBytes>>(sum, i, out);
        else if (kBytes > 32 && out.cols >= Wide<T, 32>::n)
            sum_row<typename Wide<T, 32>::type, 3>(sum, i, out);
        else if (kBytes > 16 && out.cols >= Wide<T, 16>::n)
            sum_row<typename Wide<T, 16>::type, 3>(sum, i, out);
        else
            sum_row<T, 3>(sum, i, out);
    }
}

// Values that belong to one edge each: row i writes the gradients of its own edges.
template <class T>
MDGNN_INLINE void spread_rows(const ScatterAdd<T>& op, Matrix<const T> g, const T* w, Matrix<T> out, std::int64_t begin,
                              std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        const T scale = row_scale<T>(op.rows, i, op.reduce);
        const T* const from = g.row(i);
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
            const T a = weight_of(w, op.rows, k) * scale;
            T* __restrict const to = out.row(k);
            for (std::int64_t f = 0; f < g.cols; ++f) to[f] = a * from[f];
        }
    }
}

// out[e] = scale_i * <g[i], x[index]>
template <class T>
MDGNN_INLINE void dot_rows(const ScatterAdd<T>& op, Matrix<const T> g, Matrix<const T> x, T* out, std::int64_t begin,
                           std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        const T scale = row_scale<T>(op.rows, i, op.reduce);
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) {
            const T *u = g.row(i), *v = x.row(entry(op.rows.index, k));
            const auto product = [&](std::int64_t f) __attribute__((always_inline)) { return u[f] * v[f]; };
            out[entry(op.rows.edge, k)] = scale * sum_lanes<T>(g.cols, product);
        }
    }
}

template <class T>
MDGNN_INLINE void max_rows(const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, std::int64_t begin,
                           std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
        T* y = out.row(i);
        std::int64_t* winner = argmax + i * out.cols;
        const std::int64_t first = op.rows.row_ptr[i], last = op.rows.row_ptr[i + 1];
        for (std::int64_t f = 0; f < out.cols; ++f) y[f] = T(0), winner[f] = -1;
        for (std::int64_t k = first; k < last; ++k) {
            const T* x = op.values.row(entry(op.rows.index, k));
            const T w = weight_of(op.weight, op.rows, k);
            for (std::int64_t f = 0; f < out.cols; ++f)
                if (k == first || replaces_maximum(w * x[f], y[f])) y[f] = w * x[f], winner[f] = entry(op.rows.edge, k);
        }
    }
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                        \
    target void sum_loop(Vectors<bytes>, const Sum<T>& sum, Matrix<T> out, std::int64_t a, std::int64_t b) {           \
        sum_rows<bytes, T>(sum, out, a, b);                                                                            \
    }                                                                                                                  \
    target void spread_loop(Vectors<bytes>, const ScatterAdd<T>& op, Matrix<const T> g, const T* w, Matrix<T> out,     \
                            std::int64_t a, std::int64_t b) {                                                          \
        spread_rows<T>(op, g, w, out, a, b);                                                                           \
    }                                                                                                                  \
    target void dot_loop(Vectors<bytes>, const ScatterAdd<T>& op, Matrix<const T> g, Matrix<const T> x, T* out,        \
                         std::int64_t a, std::int64_t b) {                                                             \
        dot_rows<T>(op, g, x, out, a, b);                                                                              \
    }                                                                                                                  \
    target void max_loop(Vectors<bytes>, const ScatterAdd<T>& op, Matrix<T> out, std::int64_t* argmax, std::int64_t a, \
                         std::int64_t b) {                                                                             \
        max_rows<T>(op, out, argmax, a, b);                                                                            \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

// loop(v, a, b) for all rows, by chunks.
template <class Loop>
void over(const Rows& rows, std::int64_t n_cols, const Context& context, const Loop& loop) {
    parallel_for(rows.n_rows, grain(rows, n_cols), context.n_threads,
                 [&](std::int64_t a, std::int64_t b) { with_vectors([&](auto v) { loop(v, a, b); }); });
}

template <class T>
void run_sum(const Sum<T>& sum, Matrix<T> out, const Context& context) {
    over(sum.rows, out.cols, context, [&](auto v, std::int64_t a, std::int64_t b) { sum_loop(v, sum, out, a, b); });
}

// out[j] = sum over the edges that gather value j of w * scale_i * g[i]
template <class T>
void sum_columns(const ScatterAdd<T>& op, Matrix<const T> g, const T* w, Matrix<T> out, const Context& context) {
    if (op.rows.index) return run_sum<T>({op.columns, op.reduce, g, w, {}, nullptr, &op.rows}, out, context);
    over(op.rows, g.cols, context,
         [&](auto v, std::int64_t a, std::int64_t b) { spread_loop(v, op, g, w, out, a, b); });
}

template <class T>
void run_dot(const ScatterAdd<T>& op, Matrix<const T> g, Matrix<const T> x, T* out, const Context& context) {
    over(op.rows, g.cols, context, [&](auto v, std::int64_t a, std::int64_t b) { dot_loop(v, op, g, x, out, a, b); });
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
    if (op.reduce == Reduce::max)
        return over(op.rows, out.cols, context,
                    [&](auto v, std::int64_t a, std::int64_t b) { max_loop(v, op, out, argmax, a, b); });
    run_sum<T>({op.rows, op.reduce, op.values, op.weight, {}, nullptr}, out, context);
}

template <class T>
void scatter_add_backward(const ScatterAdd<T>& op, Matrix<const T> grad, const std::int64_t* argmax,
                          Matrix<T> out_values, T* out_weight, const Context& context) {
    if (op.reduce == Reduce::max) return max_backward(op, grad, argmax, out_values, out_weight);
    if (out_values) sum_columns(op, grad, op.weight, out_values, context);
    if (out_weight) run_dot(op, grad, op.values, out_weight, context);
}

template <class T>
void scatter_add_double_backward(const ScatterAdd<T>& op, Matrix<const T> grad, Matrix<const T> grad2_values,
                                 const T* grad2_weight, Matrix<T> out_grad, Matrix<T> out_values, T* out_weight,
                                 const Context& context) {
    if (op.reduce == Reduce::max) throw std::invalid_argument("scatter_add: max has no second derivative");
    const Matrix<const T> values = grad2_weight ? op.values : Matrix<const T>{};
    if (out_grad) run_sum<T>({op.rows, op.reduce, grad2_values, op.weight, values, grad2_weight}, out_grad, context);
    if (out_values) sum_columns(op, grad, grad2_weight, out_values, context);
    if (out_weight) run_dot(op, grad, grad2_values, out_weight, context);
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
