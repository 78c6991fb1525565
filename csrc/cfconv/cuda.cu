// Parallelisation: radial_filter/cuda.hpp's: a warp per row (by receiver; by sender for results for x), its groups of
// lanes along the features and over the edges. Gradients for r give each edge a group, whose lanes combine in a fixed
// tree; those for the table are sums over edges sorted by interval (radial_filter/cuda_table.hpp). No atomics.
// Memory traffic per edge: forward 4 C numbers of the table and C of x; for r 3 C of the table, C of x and, from L1, C
// of grad; for the table C of x and C of grad. Up to 8 operations per edge and feature: 5 to 16 bytes of L2 bound all
// of them.
// Alternatives: those of the two headers. Not measured yet.
#include "cfconv/cfconv.hpp"
#include "radial_filter/cuda.hpp"
#include "radial_filter/cuda_table.hpp"

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

template <class T, int V>
void run_convolve(const Convolution<T>& c, Matrix<T> out, const Context& context) {
    if (out.cols == 0) return;
    const Layout layout = layout_for<V>(out.cols);
    const std::int64_t n = c.rows.n_rows * layout.tiles;
    const auto kernel = !c.by_slope   ? convolve<T, V, true, false>
                        : !c.by_value ? convolve<T, V, false, true>
                                      : convolve<T, V, true, true>;
    launch_warps(kernel, "cfconv: sums over rows", n, context, c, out, layout);
}

// Packs where every row of all arrays begins at 16 bytes.
template <class T>
void run_convolve(const Convolution<T>& c, Matrix<T> out, const Context& context) {
    if (fits_packs<T>(out.cols, c.table.coefficients, c.by_value.data, c.by_slope.data, out.data))
        run_convolve<T, kPack<T>>(c, out, context);
    else
        run_convolve<T, 1>(c, out, context);
}

}  // namespace

template <class T>
void cfconv(const CfConv<T>& op, Matrix<T> out, const Context& context) {
    const DeviceGuard guard(context.device);
    run_convolve<T>({op.rows, op.table, op.r, op.x, {}, nullptr}, out, context);
}

template void cfconv<float>(const CfConv<float>&, Matrix<float>, const Context&);
template void cfconv<double>(const CfConv<double>&, Matrix<double>, const Context&);

}  // namespace mdgnn::cuda
