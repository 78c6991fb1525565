// Parallelisation: receivers are split over threads, senders for results by sender, and intervals of the table for its
// gradient (radial_filter/intervals.hpp): every row is summed by one thread in edge order. So no bits depend on the
// number of threads.
// Memory traffic per edge and pass: 4 C numbers of the table and C of x, from the second cache (the table of 1,023
// intervals and 64 features takes 1 MB in float32). Multiply-adds per edge and feature: 4 forward, 8 for both first
// derivatives. Times of a thread with AVX2 (Sapphire Rapids, 97 GFLOP/s), an edge and layer of the engine with forces,
// 561 and 6,525 atoms: 44 and 47 ns. The loops alone, 32 and 64 vector instructions for 64 features, would take 5 and
// 11 ns; with a table in the first cache they take 8 and 12, with this one 14 and 17: it is the second cache that
// binds, 20 lines an edge. What gained: places in the table found in vectors (4 ns), addresses that are constants (5
// ns). Alternatives that lost: the derivatives for x and r in passes of their own, by sender and by receiver, 1.4
// times; in that pass, sums for x in memory and a sum over all lanes per edge, 1.3 times. In AVX2: half a row at a
// time, 1.05 times; quintic polynomials on 128 intervals, whose table is a fifth, 1.1 times; with the edges of 8
// receivers sorted by interval, the forward pass 1.2 times beside that. Receivers in an order in which neighbours
// follow upon each other: no change at 6,525 atoms in shells.
#include <algorithm>
#include <vector>

#include "core/scratch.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/cfconv/cfconv.hpp"
#include "ops/radial_filter/edges.hpp"
#include "ops/radial_filter/intervals.hpp"

namespace mdgnn::cpu {
namespace {

// One sum of products: features of the other end, with the filter or, times a factor per edge, its slope.
template <class T>
struct Convolution {
    Rows rows;
    RadialTable<T> table;
    const T* r = nullptr;
    Matrix<const T> by_value, by_slope;  // each may be null
    const T* factor = nullptr;           // (E), of the slopes
    bool adds = false;                   // to the derivatives for r
};

template <class T>
struct Scratch {
    FilterRow<T> row;
    std::vector<T> sums;  // for r
};

// Vectors of a row that are summed at once: with half of the registers, a row of 64 float32 in AVX2 is read in one go.
template <int kBytes>
constexpr int kSums = kBytes == 64 ? 4 : 8;

template <int kBytes, class T, bool kValue, bool kSlope, std::int64_t kWidth>
MDGNN_INLINE void convolve(const Convolution<T>& c, Matrix<T> out, std::int64_t begin, std::int64_t end) {
    FilterRow<T>& row = scratch_of_this_thread<Scratch<T>>().row;
    const std::int64_t width = kWidth > 0 ? kWidth : out.cols;
    for (std::int64_t i = begin; i < end; ++i) {
        find_row(c.rows, c.table, c.r, i, row);
        T* const to = out.row(i);
        const auto sum_piece = [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
            V sum[kParts] = {};
            for (std::int64_t k = 0; k < row.n; ++k) {
                const T *const at = c.table.coefficients + 4 * width * row.interval[k] + f, t = row.t[k];
                FilterWeights<T> slope;
                const T *x = nullptr, *y = nullptr;
                if constexpr (kValue) x = c.by_value.row(row.other[k]) + f;
                if constexpr (kSlope) {
                    slope = filter_slope(t, c.table.per_unit, c.factor[row.edge(k)]);
                    y = c.by_slope.row(row.other[k]) + f;
                }
#pragma GCC unroll 8
                for (int p = 0; p < kParts; ++p) {
                    V features, filter;
                    if constexpr (kValue) {
                        load(x + p * lanes, features);
                        cubic(at + p * lanes, width, t, filter);
                        sum[p] += features * filter;
                    }
                    if constexpr (kSlope) {
                        load(y + p * lanes, features);
                        interpolate_slope(slope, at + p * lanes, width, filter);
                        sum[p] += features * filter;
                    }
                }
            }
            std::memcpy(to + f, sum, sizeof sum);
        };
        each_piece<kBytes, T, kSums<kBytes>>(width, sum_piece);
    }
}

// By sender, whose rows c has, with the gradients of receivers: the derivatives for r and (kX) for x in one pass, so
// that the table is read once.
template <int kBytes, class T, bool kX, std::int64_t kWidth>
MDGNN_INLINE void send(const Convolution<T>& c, Matrix<const T> x, Matrix<T> out_x, T* out_r, std::int64_t begin,
                       std::int64_t end) {
    Scratch<T>& scratch = scratch_of_this_thread<Scratch<T>>();
    FilterRow<T>& row = scratch.row;
    std::vector<T>& sums = scratch.sums;
    const std::int64_t width = kWidth > 0 ? kWidth : x.cols;
    for (std::int64_t j = begin; j < end; ++j) {
        const std::int64_t first = c.rows.row_ptr[j], last = c.rows.row_ptr[j + 1];
        find_row(c.rows, c.table, c.r, j, row);
        if (!c.adds && row.n < last - first)  // some are beyond the cutoff
            for (std::int64_t k = first; k < last; ++k) out_r[edge_at(c.rows, k)] = T(0);
        sums.assign(static_cast<std::size_t>(row.n), T(0));
        const auto sum_piece = [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
            V sum[kParts] = {};
            const T* const features = x.row(j) + f;
            for (std::int64_t k = 0; k < row.n; ++k) {
                const T* const at = c.table.coefficients + 4 * width * row.interval[k] + f;
                const T *const g = c.by_value.row(row.other[k]) + f, t = row.t[k], t2 = 2 * t, t3 = 3 * t * t;
                V along = {};
#pragma GCC unroll 8
                for (int p = 0; p < kParts; ++p) {
                    V gradient, feature, filter, change;
                    cubic_with_slope(at + p * lanes, width, t, t2, t3, filter, change);
                    load(g + p * lanes, gradient), load(features + p * lanes, feature);
                    if constexpr (kX) sum[p] += gradient * filter;
                    along += gradient * (feature * change);
                }
                T total;
                sum_of_lanes(along, total);
                sums[static_cast<std::size_t>(k)] += total;
            }
            if constexpr (kX) std::memcpy(out_x.row(j) + f, sum, sizeof sum);
        };
        each_piece<kBytes, T, kSums<kBytes>>(width, sum_piece);
        for (std::int64_t k = 0; k < row.n; ++k) {
            T* const to = out_r + row.edge(k);
            const T sum = c.table.per_unit * sums[static_cast<std::size_t>(k)];
            *to = c.adds ? *to + sum : sum;
        }
    }
}

// Double backward, by sender, whose rows c has, with the gradients of receivers by slope: the derivatives for x and r.
// by_x multiplies the gradient of x, c.factor that of r.
template <int kBytes, class T, std::int64_t kWidth>
MDGNN_INLINE void send_double(const Convolution<T>& c, Matrix<const T> x, Matrix<const T> by_x, Matrix<T> out_x,
                              T* out_r, std::int64_t begin, std::int64_t end) {
    Scratch<T>& scratch = scratch_of_this_thread<Scratch<T>>();
    FilterRow<T>& row = scratch.row;
    const std::int64_t width = kWidth > 0 ? kWidth : x.cols;
    std::vector<T>& sums = scratch.sums;
    for (std::int64_t j = begin; j < end; ++j) {
        const std::int64_t first = c.rows.row_ptr[j], last = c.rows.row_ptr[j + 1];
        find_row(c.rows, c.table, c.r, j, row);
        if (out_r && row.n < last - first)  // some are beyond the cutoff
            for (std::int64_t k = first; k < last; ++k) out_r[edge_at(c.rows, k)] = T(0);
        sums.assign(static_cast<std::size_t>(row.n), T(0));
        const auto sum_piece = [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            constexpr std::int64_t lanes = sizeof(V) / sizeof(T);
            V sum[kParts] = {};
            for (std::int64_t k = 0; k < row.n; ++k) {
                const T* const at = c.table.coefficients + 4 * width * row.interval[k] + f;
                const T* const g = c.by_slope.row(row.other[k]) + f;
                const T factor = (c.factor ? c.factor[row.edge(k)] : T(0)) * c.table.per_unit;
                const T t = row.t[k], t2 = 2 * t, t3 = 3 * t * t, t6 = 6 * t;
                V along = {};
#pragma GCC unroll 8
                for (int p = 0; p < kParts; ++p) {
                    V gradient, feature, filter, slope, change;
                    cubic_with_curvature(at + p * lanes, width, t, t2, t3, t6, factor, filter, slope, change);
                    load(g + p * lanes, gradient), load(x.row(j) + f + p * lanes, feature);
                    sum[p] += gradient * (slope * factor);
                    change *= feature;
                    if (by_x) load(by_x.row(j) + f + p * lanes, feature), change += feature * slope;
                    along += gradient * change;
                }
                T total;
                sum_of_lanes(along, total);
                sums[static_cast<std::size_t>(k)] += total;
            }
            if (out_x) std::memcpy(out_x.row(j) + f, sum, sizeof sum);
        };
        each_piece<kBytes, T, kSums<kBytes> / 2>(width, sum_piece);
        if (!out_r) continue;
        for (std::int64_t k = 0; k < row.n; ++k)
            out_r[row.edge(k)] = c.table.per_unit * sums[static_cast<std::size_t>(k)];
    }
}

// Adds the gradient of the coefficients of an interval over its edges. kValue, kSlope: by_value and by_slope are there.
template <int kBytes, class T, bool kValue, bool kSlope, std::int64_t kWidth>
MDGNN_INLINE void add_to_interval(const Convolution<T>& c, Matrix<const T> grad, std::span<const IntervalEdge<T>> edges,
                                  T* sums) {
    const std::int64_t width = kWidth > 0 ? kWidth : grad.cols;
    for (const IntervalEdge<T>& e : edges) {
        const T *const g = grad.row(e.receiver), *x = g, *y = g;
        const FilterWeights<T> value = filter_value(e.t);
        FilterWeights<T> slope;
        if constexpr (kValue) x = c.by_value.row(e.sender);
        if constexpr (kSlope) {
            slope = filter_slope(e.t, c.table.per_unit, c.factor[e.edge]);
            y = c.by_slope.row(e.sender);
        }
        each_piece<kBytes, T, 1>(width, [&]<class V, int kParts>(std::int64_t f) __attribute__((always_inline)) {
            V gradient, of_value = {}, of_slope = {};
            load(g + f, gradient);
            if constexpr (kValue) load(x + f, of_value), of_value *= gradient;
            if constexpr (kSlope) load(y + f, of_slope), of_slope *= gradient;
            for (int q = 0; q < 4; ++q) {
                V sum;
                load(sums + q * width + f, sum);
                if constexpr (kValue) sum += of_value * value.at[q];
                if constexpr (kSlope)
                    if (q > 0) sum += of_slope * slope.at[q];
                store(sum, sums + q * width + f);
            }
        });
    }
}

// The instruction set is chosen by functions that are not templates.
#define LOOPS(T, target, bytes)                                                                                    \
    target void convolve_loop(Vectors<bytes>, const Convolution<T>& c, Matrix<T> out, std::int64_t a,              \
                              std::int64_t b) {                                                                    \
        if (c.by_value && c.by_slope)                                                                              \
            out.cols == kCommonWidth ? convolve<bytes, T, true, true, kCommonWidth>(c, out, a, b)                  \
                                     : convolve<bytes, T, true, true, 0>(c, out, a, b);                            \
        if (c.by_value && !c.by_slope)                                                                             \
            out.cols == kCommonWidth ? convolve<bytes, T, true, false, kCommonWidth>(c, out, a, b)                 \
                                     : convolve<bytes, T, true, false, 0>(c, out, a, b);                           \
        if (!c.by_value) convolve<bytes, T, false, true, 0>(c, out, a, b);                                         \
    }                                                                                                              \
    target void send_double_loop(Vectors<bytes>, const Convolution<T>& c, Matrix<const T> x, Matrix<const T> by_x, \
                                 Matrix<T> out_x, T* out_r, std::int64_t a, std::int64_t b) {                      \
        x.cols == kCommonWidth ? send_double<bytes, T, kCommonWidth>(c, x, by_x, out_x, out_r, a, b)               \
                               : send_double<bytes, T, 0>(c, x, by_x, out_x, out_r, a, b);                         \
    }                                                                                                              \
    target void send_loop(Vectors<bytes>, const Convolution<T>& c, Matrix<const T> x, Matrix<T> out_x, T* out_r,   \
                          std::int64_t a, std::int64_t b) {                                                        \
        if (!out_x) return send<bytes, T, false, 0>(c, x, out_x, out_r, a, b);                                     \
        x.cols == kCommonWidth ? send<bytes, T, true, kCommonWidth>(c, x, out_x, out_r, a, b)                      \
                               : send<bytes, T, true, 0>(c, x, out_x, out_r, a, b);                                \
    }                                                                                                              \
    target void table_loop(Vectors<bytes>, const Convolution<T>& c, Matrix<const T> grad,                          \
                           std::span<const IntervalEdge<T>> edges, T* sums) {                                      \
        const bool common = grad.cols == kCommonWidth;                                                             \
        if (c.by_value && c.by_slope)                                                                              \
            common ? add_to_interval<bytes, T, true, true, kCommonWidth>(c, grad, edges, sums)                     \
                   : add_to_interval<bytes, T, true, true, 0>(c, grad, edges, sums);                               \
        if (c.by_value && !c.by_slope)                                                                             \
            common ? add_to_interval<bytes, T, true, false, kCommonWidth>(c, grad, edges, sums)                    \
                   : add_to_interval<bytes, T, true, false, 0>(c, grad, edges, sums);                              \
        if (!c.by_value) add_to_interval<bytes, T, false, true, 0>(c, grad, edges, sums);                          \
    }
MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS)

template <class T>
void run_convolve(const Convolution<T>& c, Matrix<T> out, const Context& context) {
    parallel_for(c.rows.n_rows, filter_grain(c.rows, out.cols), context.n_threads, [&](std::int64_t a, std::int64_t b) {
        with_vectors([&](auto v) { convolve_loop(v, c, out, a, b); });
    });
}

template <class T>
void run_intervals(const Convolution<T>& c, Matrix<const T> grad, T* out, const Context& context) {
    sum_by_interval<T>(c.rows, c.table, c.r, out, context,
                       [&](std::int64_t, std::span<const IntervalEdge<T>> edges, T* sums) {
                           with_vectors([&](auto v) { table_loop(v, c, grad, edges, sums); });
                       });
}

}  // namespace

template <class T>
void cfconv(const CfConv<T>& op, Matrix<T> out, const Context& context) {
    run_convolve<T>({op.rows, op.table, op.r, op.x, {}, nullptr}, out, context);
}

template <class T>
void cfconv_backward(const CfConv<T>& op, Matrix<const T> grad, Matrix<T> out_x, T* out_r, T* out_coefficients,
                     const Context& context) {
    const Convolution<T> forward{op.rows, op.table, op.r, op.x, {}, nullptr};
    const Convolution<T> backward{op.columns, op.table, op.r, grad, {}, nullptr, op.adds};
    if (out_r)
        parallel_for(op.columns.n_rows, filter_grain(op.columns, 2 * grad.cols), context.n_threads,
                     [&](std::int64_t a, std::int64_t b) {
                         with_vectors([&](auto v) { send_loop(v, backward, op.x, out_x, out_r, a, b); });
                     });
    else if (out_x)
        run_convolve(backward, out_x, context);
    if (out_coefficients) run_intervals(forward, grad, out_coefficients, context);
}

template <class T>
void cfconv_double_backward(const CfConv<T>& op, Matrix<const T> grad, Matrix<const T> grad2_x, const T* grad2_r,
                            Matrix<T> out_grad, Matrix<T> out_x, T* out_r, T* out_coefficients,
                            const Context& context) {
    const Matrix<const T> none, x = grad2_r ? op.x : none;
    const Convolution<T> forward{op.rows, op.table, op.r, grad2_x, x, grad2_r};
    if (out_grad) run_convolve(forward, out_grad, context);  // one of the two is there
    if (out_x || out_r) {
        const Convolution<T> backward{op.columns, op.table, op.r, {}, grad, grad2_r};
        parallel_for(
            op.columns.n_rows, filter_grain(op.columns, 2 * grad.cols), context.n_threads,
            [&](std::int64_t a, std::int64_t b) {
                with_vectors([&](auto v) { send_double_loop(v, backward, op.x, grad2_x, out_x, out_r, a, b); });
            });
    }
    if (out_coefficients) run_intervals(forward, grad, out_coefficients, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                         \
    template void cfconv<T>(const CfConv<T>&, Matrix<T>, const Context&);                                            \
    template void cfconv_backward<T>(const CfConv<T>&, Matrix<const T>, Matrix<T>, T*, T*, const Context&);          \
    template void cfconv_double_backward<T>(const CfConv<T>&, Matrix<const T>, Matrix<const T>, const T*, Matrix<T>, \
                                            Matrix<T>, T*, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
