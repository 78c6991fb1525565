// Parallelisation: radial_filter/cuda.hpp's: a warp per row (by receiver; by sender for results for x), its groups of
// lanes along the features and over the edges. Gradients for r give each edge a group, whose lanes combine in a fixed
// tree; those for the table are sums over edges sorted by interval (radial_filter/cuda_table.hpp). No atomics.
// Memory traffic per edge: forward 4 C numbers of the table and C of x; for r 3 C of the table, C of x and, from L1, C
// of grad; for the table C of x and C of grad. Up to 8 operations per edge and feature: 5 to 16 bytes of L2 bound all
// of them.
// Alternatives: those of the two headers. Not measured yet.
#include <type_traits>

#include "ops/cfconv/cfconv.hpp"
#include "ops/radial_filter/cuda.hpp"
#include "ops/radial_filter/cuda_table.hpp"

namespace mdgnn::cuda {
namespace {

// One sum of products: features of the other end, with the filter or, times a factor per edge, its slope.
template <class T>
struct Convolution {
    Rows rows;
    RadialTable<T> table;
    const T* r = nullptr;
    Matrix<const T> by_value, by_slope;  // each may be null
    const T* factor = nullptr;           // (E), of the slopes
};

// What edge e contributes to the sum of its row, for features from f on.
template <int V, bool kValue, bool kSlope, class T>
__device__ MDGNN_INLINE void convolve_edge(const Convolution<T>& c, const StagedEdge<T>& e, std::int64_t f,
                                           Pack<T, V>& sum) {
    Pack<T, V> at[4];
    load_coefficients<kValue ? 0 : 1, V>(c.table.coefficients + e.place + f, c.table.width, at);
    if constexpr (kValue) sum += load_pack<V>(c.by_value.row(e.other) + f) * interpolate<0, V>(filter_value(e.t), at);
    if constexpr (kSlope) {
        const FilterWeights<T> slope = filter_slope(e.t, c.table.per_unit, c.factor[e.edge]);
        sum += load_pack<V>(c.by_slope.row(e.other) + f) * interpolate<1, V>(slope, at);
    }
}

// Four edges at once hide the latency of small graphs; two blocks of a multiprocessor have registers for them.
template <class T, int V, bool kValue, bool kSlope>
__global__ void __launch_bounds__(kWarp* kWarps, 2) convolve(Convolution<T> c, Matrix<T> out, Layout layout) {
    __shared__ StagedEdge<T> staged_of_warps[kWarps][kWarp];
    StagedEdge<T>* const staged = staged_of_warps[warp_of_block()];
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    for (Task task(c.rows.n_rows * layout.tiles); task; ++task) {
        const std::int64_t i = task.at / layout.tiles;
        const std::int64_t f = (task.at % layout.tiles * layout.group + member) * V;
        const std::int64_t end = c.rows.row_ptr[i + 1];
        Pack<T, V> sum = {};
        for (std::int64_t begin = c.rows.row_ptr[i]; begin < end; begin += kWarp) {
            const int n = stage_edges(c.rows, c.table, c.r, begin, end, staged, [](std::int64_t) {});
            if (f < out.cols)
                each_edge<4>(group, n, groups, [&](int k) { convolve_edge<V, kValue, kSlope>(c, staged[k], f, sum); });
        }
        sum_groups(sum, layout.group);
        if (group == 0 && f < out.cols) store_pack(sum, out.row(i) + f);
    }
}

// g (x W' + y W'' factor) of an edge, for features from f on.
template <int V, bool kValue, bool kSlope, class T>
__device__ MDGNN_INLINE T distance_grad_of_edge(const Convolution<T>& c, const StagedEdge<T>& e, const Pack<T, V>& g,
                                                std::int64_t f) {
    Pack<T, V> at[4], sum = {};
    load_coefficients<kValue ? 1 : 2, V>(c.table.coefficients + e.place + f, c.table.width, at);
    if constexpr (kValue) {
        const FilterWeights<T> slope = filter_slope(e.t, c.table.per_unit, T(1));
        sum = load_pack<V>(c.by_value.row(e.other) + f) * interpolate<1, V>(slope, at);
    }
    if constexpr (kSlope) {
        const FilterWeights<T> curvature = filter_curvature(e.t, c.table.per_unit, c.factor[e.edge]);
        sum += load_pack<V>(c.by_slope.row(e.other) + f) * interpolate<2, V>(curvature, at);
    }
    return sum_of_pack(g * sum);
}

// out[k] = the sum of the above over features. A group takes four edges at once, the last one again where there are
// fewer.
template <class T, int V, bool kValue, bool kSlope>
__global__ void __launch_bounds__(kWarp* kWarps, 2)
    distance_grads(Convolution<T> c, Matrix<const T> grad, T* out, Layout layout) {
    constexpr int kAtOnce = 4;
    __shared__ StagedEdge<T> staged_of_warps[kWarps][kWarp];
    StagedEdge<T>* const staged = staged_of_warps[warp_of_block()];
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    for (Task task(c.rows.n_rows); task; ++task) {
        const T* const g = grad.row(task.at);
        const std::int64_t end = c.rows.row_ptr[task.at + 1];
        for (std::int64_t begin = c.rows.row_ptr[task.at]; begin < end; begin += kWarp) {
            const auto nothing = [&](std::int64_t edge) { out[edge] = 0; };
            const int n = stage_edges(c.rows, c.table, c.r, begin, end, staged, nothing);
            for (int first = group; first - group < n; first += kAtOnce * groups) {
                T sums[kAtOnce] = {};
                for (std::int64_t f = member * V; f < grad.cols; f += layout.group * V) {
                    const Pack<T, V> gradient = load_pack<V>(g + f);
#pragma unroll
                    for (int u = 0; u < kAtOnce; ++u) {
                        const int k = first + u * groups < n ? first + u * groups : n - 1;
                        sums[u] += distance_grad_of_edge<V, kValue, kSlope>(c, staged[k], gradient, f);
                    }
                }
#pragma unroll
                for (int u = 0; u < kAtOnce; ++u) {
                    sum_lanes(sums[u], layout.group);
                    if (member == 0 && first + u * groups < n) out[staged[first + u * groups].edge] = sums[u];
                }
            }
        }
    }
}

// What an edge contributes to the gradient of the table.
template <class T, int V, bool kValue, bool kSlope>
struct ToTable {
    static constexpr int kBlocks = 1;
    static constexpr bool kValues = kValue, kSlopes = kSlope;
    Convolution<T> c;
    Matrix<const T> grad;

    __device__ MDGNN_INLINE T factor(std::int64_t edge) const { return c.factor[edge]; }
    __device__ MDGNN_INLINE void contribute(const StagedEdge<T>& e, std::int64_t receiver, std::int64_t f,
                                            Pack<T, V>* value, Pack<T, V>* slope) const {
        const Pack<T, V> gradient = load_pack<V>(grad.row(receiver) + f);
        if constexpr (kValue) value[0] = gradient * load_pack<V>(c.by_value.row(e.other) + f);
        if constexpr (kSlope) slope[0] = gradient * load_pack<V>(c.by_slope.row(e.other) + f);
    }
};

template <auto kValue>
using Constant = std::integral_constant<decltype(kValue), kValue>;

// Calls run with constants: V, whether c has values and whether it has slopes. Packs where every row of all arrays
// begins at 16 bytes.
template <class T, class Run, class... P>
void choose(const Convolution<T>& c, Run&& run, const P*... arrays) {
    const auto sums = [&](auto v) {
        if (!c.by_slope) return run(v, Constant<true>{}, Constant<false>{});
        if (!c.by_value) return run(v, Constant<false>{}, Constant<true>{});
        run(v, Constant<true>{}, Constant<true>{});
    };
    if (fits_packs<T>(c.table.width, c.table.coefficients, c.by_value.data, c.by_slope.data, arrays...))
        return sums(Constant<kPack<T>>{});
    sums(Constant<1>{});
}

template <class T>
void run_convolve(const Convolution<T>& c, Matrix<T> out, const Context& context) {
    if (out.cols == 0) return;
    const auto run = [&](auto v, auto value, auto slope) {
        const Layout layout = layout_for<v()>(out.cols);
        launch_warps(convolve<T, v(), value(), slope()>, "cfconv: sums over rows", c.rows.n_rows * layout.tiles,
                     context, c, out, layout);
    };
    choose(c, run, out.data);
}

template <class T>
void run_distance_grads(const Convolution<T>& c, Matrix<const T> grad, T* out, const Context& context) {
    const auto run = [&](auto v, auto value, auto slope) {
        launch_warps(distance_grads<T, v(), value(), slope()>, "cfconv: derivatives for r", c.rows.n_rows, context, c,
                     grad, out, layout_for<v()>(grad.cols));
    };
    choose(c, run, grad.data);
}

template <class T>
void run_intervals(const CfConv<T>& op, const Convolution<T>& c, Matrix<const T> grad, T* out, const Context& context) {
    const auto run = [&](auto v, auto value, auto slope) {
        sum_over_intervals<T, v()>(ToTable<T, v(), value(), slope()>{c, grad}, c.rows, c.table, c.r, op.workspace, out,
                                   "cfconv: derivatives for the table", context);
    };
    choose(c, run, grad.data, out);
}

}  // namespace

template <class T>
void cfconv(const CfConv<T>& op, Matrix<T> out, const Context& context) {
    const DeviceGuard guard(context.device);
    run_convolve<T>({op.rows, op.table, op.r, op.x, {}, nullptr}, out, context);
}

template <class T>
void cfconv_backward(const CfConv<T>& op, Matrix<const T> grad, Matrix<T> grad_x, T* grad_r, T* grad_coefficients,
                     const Context& context) {
    const DeviceGuard guard(context.device);
    const Convolution<T> forward{op.rows, op.table, op.r, op.x, {}, nullptr};
    if (grad_x) run_convolve<T>({op.columns, op.table, op.r, grad, {}, nullptr}, grad_x, context);
    if (grad_r) run_distance_grads(forward, grad, grad_r, context);
    if (grad_coefficients) run_intervals(op, forward, grad, grad_coefficients, context);
}

template <class T>
void cfconv_double_backward(const CfConv<T>& op, Matrix<const T> grad, Matrix<const T> grad2_x, const T* grad2_r,
                            Matrix<T> out_grad, Matrix<T> out_x, T* out_r, T* out_coefficients,
                            const Context& context) {
    const DeviceGuard guard(context.device);
    const Matrix<const T> none, x = grad2_r ? op.x : none;
    const Convolution<T> forward{op.rows, op.table, op.r, grad2_x, x, grad2_r};
    if (out_grad) run_convolve(forward, out_grad, context);  // one of the two is there
    if (out_x && grad2_r) run_convolve<T>({op.columns, op.table, op.r, none, grad, grad2_r}, out_x, context);
    if (out_x && !grad2_r)
        check(cudaMemsetAsync(out_x.data, 0, sizeof(T) * out_x.rows * out_x.cols, stream(context)), "cfconv: zeros");
    if (out_r) run_distance_grads(forward, grad, out_r, context);
    if (out_coefficients) run_intervals(op, forward, grad, out_coefficients, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                         \
    template void cfconv<T>(const CfConv<T>&, Matrix<T>, const Context&);                                            \
    template void cfconv_backward<T>(const CfConv<T>&, Matrix<const T>, Matrix<T>, T*, T*, const Context&);          \
    template void cfconv_double_backward<T>(const CfConv<T>&, Matrix<const T>, Matrix<const T>, const T*, Matrix<T>, \
                                            Matrix<T>, T*, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
