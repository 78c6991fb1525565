// Parallelisation: as cfconv's, by radial_filter/cuda.hpp: a warp per row (by receiver; by sender for x and v), its
// groups of lanes along the features and over the edges; a lane has its features' three blocks and three components.
// Derivatives for r and unit give each edge a group, whose lanes combine in a fixed tree; those for the table are sums
// over edges sorted by interval (radial_filter/cuda_table.hpp). No atomics.
// Memory traffic per edge: forward 12 F numbers of the table, 6 F of x and v; by sender 12 F of the table and 4 F of
// gradients: x and v leave the sum; for r and unit 10 F of the table, 6 F of x and v and, from L1, 4 F of gradients;
// for the table 6 F and 4 F. One edge at a time and lane: its 16 to 24 loads of 16 bytes are enough under way, and two
// would leave room for one block on a multiprocessor.
// Alternatives: those of the two headers. Not measured yet.
#include <type_traits>

#include "ops/painn_message/math.hpp"
#include "ops/painn_message/painn_message.hpp"
#include "ops/radial_filter/cuda.hpp"
#include "ops/radial_filter/cuda_table.hpp"

namespace mdgnn::cuda {
namespace {

// What the kernels see. `by`: what the double backward multiplies gradients by.
template <class T>
struct Painn {
    PainnMessage<T> op;
    PainnResult<const T> grad;
    PainnGradients<const T> by;

    MDGNN_HD std::int64_t width() const { return op.v.cols / 3; }
};

template <int V, class T>
__device__ MDGNN_INLINE Three<Pack<T, V>> load_three(const T* from, std::int64_t width) {
    return {{load_pack<V>(from), load_pack<V>(from + width), load_pack<V>(from + 2 * width)}};
}

template <class T, int V>
__device__ MDGNN_INLINE void store_three(const Three<Pack<T, V>>& from, T* to, std::int64_t width) {
#pragma unroll
    for (int c = 0; c < 3; ++c) store_pack(from[c], to + c * width);
}

template <class T>
__device__ MDGNN_INLINE Three<T> three_of(const T* from) {
    return {{from[0], from[1], from[2]}};
}

template <class T, int V>
using Edge = PainnEdge<Pack<T, V>, T>;

template <bool kDoubleBackward, class T, int V>
__device__ MDGNN_INLINE void load_directions(const Painn<T>& p, const StagedEdge<T>& e, Edge<T, V>& to) {
    to.unit = three_of(p.op.unit + 3 * e.edge);
    if constexpr (kDoubleBackward) to.by_unit = three_of(p.by.unit + 3 * e.edge);
}

// x and v of the sender, and what multiplies their gradients.
template <bool kDoubleBackward, class T, int V>
__device__ MDGNN_INLINE void load_sender(const Painn<T>& p, const StagedEdge<T>& e, std::int64_t f, Edge<T, V>& to) {
    const std::int64_t width = p.width();
    to.x = load_three<V>(p.op.x.row(e.other) + f, width);
    to.v = load_three<V>(p.op.v.row(e.other) + f, width);
    if constexpr (kDoubleBackward) {
        to.by_x = load_three<V>(p.by.x.row(e.other) + f, width);
        to.by_v = load_three<V>(p.by.v.row(e.other) + f, width);
    }
}

// The three blocks of the filter and, in the double backward, their slopes times what multiplies the gradient for r.
template <bool kDoubleBackward, class T, int V>
__device__ MDGNN_INLINE void load_filter(const Painn<T>& p, const StagedEdge<T>& e, std::int64_t f, Edge<T, V>& to) {
    const RadialTable<T>& table = p.op.table;
    const FilterWeights<T> value = filter_value(e.t);
    FilterWeights<T> slope;
    if constexpr (kDoubleBackward) slope = filter_slope(e.t, table.per_unit, p.by.r[e.edge]);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        Pack<T, V> at[4];
        load_coefficients<0, V>(table.coefficients + e.place + c * p.width() + f, table.width, at);
        to.w[c] = interpolate<0, V>(value, at);
        if constexpr (kDoubleBackward) to.dw[c] = interpolate<1, V>(slope, at);
    }
}

// By receiver: the results, or (double backward) the derivative for `grad`.
template <class T, int V, bool kDoubleBackward>
__global__ void __launch_bounds__(kWarp* kWarps, 2) receive(Painn<T> p, PainnResult<T> out, Layout layout) {
    __shared__ StagedEdge<T> staged_of_warps[kWarps][kWarp];
    StagedEdge<T>* const staged = staged_of_warps[warp_of_block()];
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    const std::int64_t width = p.width();
    for (Task task(p.op.rows.n_rows * layout.tiles); task; ++task) {
        const std::int64_t i = task.at / layout.tiles;
        const std::int64_t f = (task.at % layout.tiles * layout.group + member) * V;
        const std::int64_t end = p.op.rows.row_ptr[i + 1];
        Pack<T, V> s = {};
        Three<Pack<T, V>> v = {};
        for (std::int64_t begin = p.op.rows.row_ptr[i]; begin < end; begin += kWarp) {
            const int n = stage_edges(p.op.rows, p.op.table, p.op.r, begin, end, staged, [](std::int64_t) {});
            if (f < width)
                each_edge<1>(group, n, groups, [&](int k) {
                    Edge<T, V> e;
                    load_directions<kDoubleBackward>(p, staged[k], e);
                    load_sender<kDoubleBackward>(p, staged[k], f, e);
                    load_filter<kDoubleBackward>(p, staged[k], f, e);
                    add_message<kDoubleBackward>(e, s, v);
                });
        }
        sum_groups(s, layout.group);
        for (int c = 0; c < 3; ++c) sum_groups(v[c], layout.group);
        if (group > 0 || f >= width) continue;
        store_pack(s, out.s.row(i) + f);
        store_three(v, out.v.row(i) + f, width);
    }
}

// By sender: the derivative for x and v.
template <class T, int V, bool kDoubleBackward>
__global__ void __launch_bounds__(kWarp* kWarps, 2) send(Painn<T> p, PainnGradients<T> out, Layout layout) {
    __shared__ StagedEdge<T> staged_of_warps[kWarps][kWarp];
    StagedEdge<T>* const staged = staged_of_warps[warp_of_block()];
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    const std::int64_t width = p.width();
    for (Task task(p.op.columns.n_rows * layout.tiles); task; ++task) {
        const std::int64_t j = task.at / layout.tiles;
        const std::int64_t f = (task.at % layout.tiles * layout.group + member) * V;
        const std::int64_t end = p.op.columns.row_ptr[j + 1];
        PainnSent<Pack<T, V>> sum;
        for (std::int64_t begin = p.op.columns.row_ptr[j]; begin < end; begin += kWarp) {
            const int n = stage_edges(p.op.columns, p.op.table, p.op.r, begin, end, staged, [](std::int64_t) {});
            if (f < width)
                each_edge<1>(group, n, groups, [&](int k) {
                    Edge<T, V> e;
                    load_directions<kDoubleBackward>(p, staged[k], e);
                    load_filter<kDoubleBackward>(p, staged[k], f, e);
                    const auto gv = load_three<V>(p.grad.v.row(staged[k].other) + f, width);
                    add_sent<kDoubleBackward>(e, load_pack<V>(p.grad.s.row(staged[k].other) + f), gv, sum);
                });
        }
        sum_groups(sum.x0, layout.group), sum_groups(sum.x1, layout.group);
        for (int c = 0; c < 3; ++c) {
            sum_groups(sum.a[c], layout.group);
            if constexpr (kDoubleBackward) sum_groups(sum.b[c], layout.group);
        }
        if (group > 0 || f >= width) continue;
        Pack<T, V> by_x2 = {};
        Three<Pack<T, V>> by_v = {}, for_x = {{sum.x0, sum.x1, {}}}, for_v;
        if constexpr (kDoubleBackward) by_x2 = load_pack<V>(p.by.x.row(j) + 2 * width + f);
        if constexpr (kDoubleBackward) by_v = load_three<V>(p.by.v.row(j) + f, width);
        finish_sent<kDoubleBackward>(sum, load_pack<V>(p.op.x.row(j) + 2 * width + f),
                                     load_three<V>(p.op.v.row(j) + f, width), by_x2, by_v, for_x[2], for_v);
        store_three(for_x, out.x.row(j) + f, width);
        store_three(for_v, out.v.row(j) + f, width);
    }
}

// Adds an edge's terms of the derivatives for r and unit, for features from f on.
template <class T, int V, bool kDoubleBackward>
__device__ MDGNN_INLINE void add_edge_terms(const Painn<T>& p, const StagedEdge<T>& staged, std::int64_t i,
                                            std::int64_t f, Pack<T, V>* sums) {
    const RadialTable<T>& table = p.op.table;
    const FilterWeights<T> value = filter_value(staged.t), slope = filter_slope(staged.t, table.per_unit, T(1));
    FilterWeights<T> by_slope, curvature;
    if constexpr (kDoubleBackward) by_slope = filter_slope(staged.t, table.per_unit, p.by.r[staged.edge]);
    if constexpr (kDoubleBackward) curvature = filter_curvature(staged.t, table.per_unit, p.by.r[staged.edge]);
    Edge<T, V> e;
    load_directions<kDoubleBackward>(p, staged, e);
    load_sender<kDoubleBackward>(p, staged, f, e);
    Three<Pack<T, V>> first, second;
#pragma unroll
    for (int c = 0; c < 3; ++c) {
        Pack<T, V> at[4];
        const T* const from = table.coefficients + staged.place + c * p.width() + f;
        load_coefficients<1, V>(from, table.width, at);
        first[c] = interpolate<1, V>(slope, at);
        if constexpr (kDoubleBackward) second[c] = interpolate<2, V>(curvature, at);
        if (c != 1) continue;  // only the direction's block is needed itself
        at[0] = load_pack<V>(from);
        e.w[c] = interpolate<0, V>(value, at);
        if constexpr (kDoubleBackward) e.dw[c] = interpolate<1, V>(by_slope, at);
    }
    const auto gv = load_three<V>(p.grad.v.row(i) + f, p.width());
    add_edge_gradients<kDoubleBackward>(e, load_pack<V>(p.grad.s.row(i) + f), gv, first, second, sums);
}

// By edge: the derivative for r and unit. Groups without an edge of their own take the last one again.
template <class T, int V, bool kDoubleBackward>
__global__ void __launch_bounds__(kWarp* kWarps, 2) edge_gradients(Painn<T> p, PainnGradients<T> out, Layout layout) {
    __shared__ StagedEdge<T> staged_of_warps[kWarps][kWarp];
    StagedEdge<T>* const staged = staged_of_warps[warp_of_block()];
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    const auto write = [&](std::int64_t edge, T r, T x, T y, T z) {
        out.r[edge] = r;
        out.unit[3 * edge] = x, out.unit[3 * edge + 1] = y, out.unit[3 * edge + 2] = z;
    };
    for (Task task(p.op.rows.n_rows); task; ++task) {
        const std::int64_t end = p.op.rows.row_ptr[task.at + 1];
        for (std::int64_t begin = p.op.rows.row_ptr[task.at]; begin < end; begin += kWarp) {
            const auto nothing = [&](std::int64_t edge) { write(edge, 0, 0, 0, 0); };
            const int n = stage_edges(p.op.rows, p.op.table, p.op.r, begin, end, staged, nothing);
            for (int k = group; k - group < n; k += groups) {
                const StagedEdge<T>& e = staged[k < n ? k : n - 1];
                Pack<T, V> packs[4] = {};
                for (std::int64_t f = member * V; f < p.width(); f += layout.group * V)
                    add_edge_terms<T, V, kDoubleBackward>(p, e, task.at, f, packs);
                T sums[4];
#pragma unroll
                for (int m = 0; m < 4; ++m) {
                    sums[m] = sum_of_pack(packs[m]);
                    sum_lanes(sums[m], layout.group);
                }
                if (member == 0 && k < n) write(e.edge, sums[0], sums[1], sums[2], sums[3]);
            }
        }
    }
}

// What an edge contributes to the derivative for the table.
template <class T, int V, bool kDoubleBackward>
struct ToTable {
    static constexpr int kBlocks = 3;
    static constexpr bool kValues = true, kSlopes = kDoubleBackward;
    Painn<T> p;

    __device__ MDGNN_INLINE T factor(std::int64_t edge) const { return p.by.r[edge]; }
    __device__ MDGNN_INLINE void contribute(const StagedEdge<T>& staged, std::int64_t receiver, std::int64_t f,
                                            Pack<T, V>* value, Pack<T, V>* slope) const {
        Edge<T, V> e;
        load_directions<kDoubleBackward>(p, staged, e);
        load_sender<kDoubleBackward>(p, staged, f, e);
        const auto gv = load_three<V>(p.grad.v.row(receiver) + f, p.width());
        filter_gradients<kDoubleBackward>(e, load_pack<V>(p.grad.s.row(receiver) + f), gv, value, slope);
    }
};

// Calls run with the constant V: packs where every row of all arrays begins at 16 bytes.
template <class T, class Run, class... P>
void choose(const Painn<T>& p, Run&& run, const P*... arrays) {
    if (fits_packs<T>(p.width(), p.op.x.data, p.op.v.data, p.op.table.coefficients, p.grad.s.data, p.grad.v.data,
                      p.by.x.data, p.by.v.data, arrays...))
        return run(std::integral_constant<int, kPack<T>>{});
    run(std::integral_constant<int, 1>{});
}

template <class T, bool kDoubleBackward>
void run_receive(const Painn<T>& p, const PainnResult<T>& out, const Context& context) {
    if (p.width() == 0) return;
    const auto run = [&](auto v) {
        constexpr int V = v;
        const Layout layout = layout_for<V>(p.width());
        launch_warps(receive<T, V, kDoubleBackward>, "painn_message: sums over receivers' rows",
                     p.op.rows.n_rows * layout.tiles, context, p, out, layout);
    };
    choose(p, run, out.s.data, out.v.data);
}

template <class T, bool kDoubleBackward>
void run_gradients(const Painn<T>& p, const PainnGradients<T>& out, const Context& context) {
    const auto run = [&](auto v) {
        constexpr int V = v;
        const Layout layout = layout_for<V>(p.width());
        const Rows& rows = p.op.rows;
        if (out.x && p.width() > 0)
            launch_warps(send<T, V, kDoubleBackward>, "painn_message: sums over senders' rows",
                         p.op.columns.n_rows * layout.tiles, context, p, out, layout);
        if (out.r)
            launch_warps(edge_gradients<T, V, kDoubleBackward>, "painn_message: derivatives for edges", rows.n_rows,
                         context, p, out, layout);
        if (out.coefficients)
            sum_over_intervals<T, V>(ToTable<T, V, kDoubleBackward>{p}, rows, p.op.table, p.op.r, p.op.workspace,
                                     out.coefficients, "painn_message: derivatives for the table", context);
    };
    choose(p, run, out.x.data, out.v.data, out.coefficients);
}

}  // namespace

template <class T>
void painn_message(const PainnMessage<T>& op, const PainnResult<T>& out, const Context& context) {
    const DeviceGuard guard(context.device);
    run_receive<T, false>({op, {}, {}}, out, context);
}

template <class T>
void painn_message_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad, const PainnGradients<T>& out,
                            const Context& context) {
    const DeviceGuard guard(context.device);
    run_gradients<T, false>({op, grad, {}}, out, context);
}

template <class T>
void painn_message_double_backward(const PainnMessage<T>& op, const PainnResult<const T>& grad,
                                   const PainnGradients<const T>& grad2, const PainnResult<T>& out_grad,
                                   const PainnGradients<T>& out, const Context& context) {
    const DeviceGuard guard(context.device);
    const Painn<T> p{op, grad, grad2};
    if (out_grad.s) run_receive<T, true>(p, out_grad, context);
    run_gradients<T, true>(p, out, context);
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

}  // namespace mdgnn::cuda
