// Parallelisation: radial_filter/cuda.hpp's. A warp takes a row, 32 features of it at a time (or several edges at once
// for fewer features): by receiver for its share of `ends` and for r, by sender for the other share. The gradient of
// the table is summed over edges sorted by interval. No atomics: the same bits on every run.
// The numbers of an edge that all features share, the envelope and its slope, are worked out by one lane for each of 32
// edges and wait in shared memory. Sums over features for r run over 32 at a time, in order, and wait there, too, until
// each lane writes those of an edge; what the column of the envelope needs of them is left in 4 numbers an edge for the
// kernel of the table.
// Memory traffic per edge: 4 (H + 1) numbers of the table and H of `ends`, gathered, in every pass. Arithmetic per edge
// and feature: one exp and one division in every pass, some 40 operations forward; they bind, not the loads, so that
// single numbers do as well as packs (which a row of H + 1 does not allow).
// Each message is worked out again for its sender: what the CPU keeps of some edges at a time would not stay in an L1,
// and to write and gather it in L2 costs as much as the arithmetic that it saves.
// An alternative that lost: the first lane of a group writes an edge's sums as soon as it has them. That moves a sector
// for each number, by one lane.
// Alternatives, not measured: those of the header; pairs of features in a lane.
#include "ops/concat_message/table.hpp"
#include "ops/radial_filter/cuda.hpp"
#include "ops/radial_filter/cuda_table.hpp"
#include "ops/silu/math.hpp"

namespace mdgnn::cuda {
namespace {

// What the kernels see. The double backward multiplies the gradients by `by`.
template <class T>
struct Concat {
    ConcatMessageTable<T> op;
    ConcatMessageResult<const T> grad;
    ConcatMessageGradients<const T> by;

    MDGNN_HD std::int64_t width() const { return op.ends.cols / 2; }
};

// Of an edge, left for the kernel of the table: the derivative for c; c; in the double backward the derivative for the
// value that multiplies by_c, and by_c.
enum OfEdge { kAlong, kEnvelope, kAcross, kByEnvelope, kOfEdge };

// What an edge's features share. In the double backward by_r multiplies the gradient of r, and by_c that of c.
template <class T>
struct Envelope {
    T c, c_slope, c_curvature, by_r, by_c;
};

// The coefficients of one function in an interval, and a sum of them.
template <class T>
struct Cubic {
    Pack<T, 1> at[4];

    __device__ MDGNN_INLINE Cubic(const T* from, std::int64_t apart) { load_coefficients<0>(from, apart, at); }
    __device__ MDGNN_INLINE T value(T t) const { return interpolate<0, 1>(filter_value(t), at).at[0]; }
    __device__ MDGNN_INLINE T slope(T t, T per_unit) const {
        return interpolate<1, 1>(filter_slope(t, per_unit, T(1)), at).at[0];
    }
    __device__ MDGNN_INLINE T curvature(T t, T per_unit, T factor) const {
        return interpolate<2, 1>(filter_curvature(t, per_unit, factor), at).at[0];
    }
};

template <class T, bool kDoubleBackward>
__device__ MDGNN_INLINE Envelope<T> envelope_of(const Concat<T>& p, const StagedEdge<T>& e) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    const Cubic<T> envelope(p.op.table.coefficients + e.place + width, all);
    Envelope<T> values = {envelope.value(e.t), envelope.slope(e.t, per_unit), T(0), T(0), T(0)};
    if constexpr (kDoubleBackward) {
        values.by_r = p.by.r[e.edge];
        values.by_c = values.by_r * values.c_slope;
        values.c_curvature = envelope.curvature(e.t, per_unit, values.by_r);
        if (p.by.coefficients) {
            const Cubic<T> by(p.by.coefficients + e.place + width, all);
            values.by_c += by.value(e.t);
            values.c_curvature += by.slope(e.t, per_unit);
        }
    }
    return values;
}

// One feature of a message: g silu(x), and its derivatives times what they are multiplied by. What a kernel does not
// use, the compiler leaves out.
template <class T>
struct Piece {
    T g, silu, slope, gradient;         // gradient: the derivative for x
    T filter_slope, q = 0, change = 0;  // q: what multiplies the gradient of x; change: its slope
};

template <class T, bool kDoubleBackward>
__device__ MDGNN_INLINE Piece<T> piece_of(const Concat<T>& p, const StagedEdge<T>& e, const Envelope<T>& v,
                                          std::int64_t i, std::int64_t j, std::int64_t f) {
    const std::int64_t width = p.width(), all = width + 1;
    const T per_unit = p.op.table.per_unit;
    const Cubic<T> filter(p.op.table.coefficients + e.place + f, all);
    const SiluOfOne<T> silu((p.op.ends.row(j)[f] + p.op.ends.row(i)[width + f]) + filter.value(e.t));
    Piece<T> x;
    x.g = p.grad.messages.row(i)[f];
    x.silu = silu.value(), x.slope = silu.slope();
    x.filter_slope = filter.slope(e.t, per_unit);
    x.gradient = x.g * x.slope;
    if constexpr (kDoubleBackward) {
        x.q = (p.by.ends.row(j)[f] + p.by.ends.row(i)[width + f]) + x.filter_slope * v.by_r;
        x.change = filter.curvature(e.t, per_unit, v.by_r);
        if (p.by.coefficients) {
            const Cubic<T> by(p.by.coefficients + e.place + f, all);
            x.q += by.value(e.t);
            x.change += by.slope(e.t, per_unit);
        }
        x.gradient = x.gradient * v.by_c + x.g * x.q * silu.curvature() * v.c;
    } else {
        x.gradient *= v.c;
    }
    return x;
}

template <class T>
struct Stage {
    StagedEdge<T> edges[kWarp];
    Envelope<T> envelopes[kWarp];
};

// Stages edges as stage_edges does, with their envelopes.
template <bool kDoubleBackward, class T, class Beyond>
__device__ MDGNN_INLINE int stage_messages(const Concat<T>& p, const Rows& rows, std::int64_t begin, std::int64_t end,
                                           Stage<T>& stage, Beyond&& beyond) {
    const int n = stage_edges(rows, p.op.table, p.op.r, begin, end, stage.edges, beyond);
    if (lane_of_warp() < n)
        stage.envelopes[lane_of_warp()] = envelope_of<T, kDoubleBackward>(p, stage.edges[lane_of_warp()]);
    __syncwarp();
    return n;
}

template <class T>
__device__ MDGNN_INLINE T sum_of_groups(T x, int group) {
    Pack<T, 1> sum = {{x}};
    sum_groups(sum, group);
    return sum.at[0];
}

template <class T>
__global__ void __launch_bounds__(kWarp* kWarps) sum_messages(Concat<T> p, ConcatMessageResult<T> out, Layout layout) {
    __shared__ Stage<T> stages[kWarps];
    Stage<T>& stage = stages[warp_of_block()];
    const int lane = lane_of_warp(), member = lane % layout.group, group = lane / layout.group;
    const std::int64_t width = p.width(), all = width + 1;
    for (Task task(p.op.rows.n_rows * layout.tiles); task; ++task) {
        const std::int64_t i = task.at / layout.tiles, tile = task.at % layout.tiles;
        const std::int64_t f = tile * layout.group + member, end = p.op.rows.row_ptr[i + 1];
        const T received = f < width ? p.op.ends.row(i)[width + f] : T(0);
        T s = 0, sum = 0;
        for (std::int64_t begin = p.op.rows.row_ptr[i]; begin < end; begin += kWarp) {
            const int n = stage_messages<false>(p, p.op.rows, begin, end, stage, [](std::int64_t) {});
            if (lane < n) s += stage.envelopes[lane].c;
            if (f >= width) continue;  // to the next turn, where all lanes meet
            each_edge<2>(group, n, kWarp / layout.group, [&](int k) {
                const StagedEdge<T>& e = stage.edges[k];
                const Cubic<T> filter(p.op.table.coefficients + e.place + f, all);
                const T x = (p.op.ends.row(e.other)[f] + received) + filter.value(e.t);
                sum += silu_value(x) * stage.envelopes[k].c;
            });
        }
        sum = sum_of_groups(sum, layout.group);
        if (group == 0 && f < width) out.messages.row(i)[f] = sum;
        s = sum_of_groups(s, 1);
        if (lane == 0 && tile == 0) out.s[i] = s;
    }
}

// Sums over the features of a tile, for 32 edges: the derivative for r through the filter, that for c without that of
// s, and that for what multiplies c in it.
template <class T>
struct EdgeSums {
    T at[3][kWarp];
};

// Adds those of the edge that this lane has in the stage to its numbers in memory.
template <class T, bool kDoubleBackward>
__device__ MDGNN_INLINE void add_to_edge(const Concat<T>& p, const Stage<T>& stage, const EdgeSums<T>& of_tile,
                                         T grad_s, bool first, T* out_r) {
    const int lane = lane_of_warp();
    const StagedEdge<T>& e = stage.edges[lane];
    const Envelope<T>& v = stage.envelopes[lane];
    const T sums[3] = {of_tile.at[0][lane], of_tile.at[1][lane], of_tile.at[2][lane]};
    const T along = first ? sums[1] + grad_s : sums[1];
    if (out_r) {
        const T part = sums[0] + (kDoubleBackward ? v.c_curvature : v.c_slope) * along;
        out_r[e.edge] = first ? part : out_r[e.edge] + part;
    }
    if (!p.op.of_edges) return;
    T* const of_edge = p.op.of_edges + kOfEdge * e.edge;
    Pack<T, kOfEdge> numbers = {};
    if (!first) numbers = load_pack<kOfEdge>(of_edge);
    numbers.at[kAlong] = first ? along : numbers.at[kAlong] + along;
    numbers.at[kAcross] = first ? sums[2] : numbers.at[kAcross] + sums[2];
    numbers.at[kEnvelope] = v.c, numbers.at[kByEnvelope] = v.by_c;
    store_pack(numbers, of_edge);
}

// By receiver: its share of the derivative for `ends`, that for r, the numbers of edges, and (double backward) that for
// grad. The tiles of a row are one warp's, so that it adds up their sums over features.
template <class T, bool kDoubleBackward>
__global__ void __launch_bounds__(kWarp* kWarps)
    receive(Concat<T> p, ConcatMessageResult<T> out_grad, ConcatMessageGradients<T> out, Layout layout) {
    __shared__ Stage<T> stages[kWarps];
    __shared__ EdgeSums<T> sums_of_warps[kWarps];
    Stage<T>& stage = stages[warp_of_block()];
    EdgeSums<T>& of_tile = sums_of_warps[warp_of_block()];
    const int lane = lane_of_warp(), member = lane % layout.group, group = lane / layout.group;
    const int groups = kWarp / layout.group;
    const std::int64_t width = p.width();
    const bool sums_features = out.r || p.op.of_edges;
    for (Task task(p.op.rows.n_rows); task; ++task) {
        const std::int64_t i = task.at, end = p.op.rows.row_ptr[i + 1];
        const T grad_s = p.grad.s[i];
        T s = 0;
        for (std::int64_t tile = 0; tile < layout.tiles; ++tile) {
            const std::int64_t f = tile * layout.group + member;
            T received = 0, of_grad = 0;
            for (std::int64_t begin = p.op.rows.row_ptr[i]; begin < end; begin += kWarp) {
                const int n = stage_messages<kDoubleBackward>(p, p.op.rows, begin, end, stage, [&](std::int64_t edge) {
                    if (out.r) out.r[edge] = 0;
                });
                if (tile == 0 && lane < n) s += stage.envelopes[lane].by_c;
                for (int first = 0; first < n; first += groups) {  // a group without an edge has the last one
                    const bool has = first + group < n;
                    const int k = has ? first + group : n - 1;
                    const StagedEdge<T>& e = stage.edges[k];
                    const Envelope<T>& v = stage.envelopes[k];
                    T sums[3] = {};
                    if (f < width) {
                        const Piece<T> x = piece_of<T, kDoubleBackward>(p, e, v, i, e.other, f);
                        if (has) received += x.gradient, of_grad += x.q * x.slope * v.c + x.silu * v.by_c;
                        sums[0] = x.gradient * x.filter_slope;
                        if constexpr (kDoubleBackward) sums[0] += x.g * x.slope * (x.change * v.c + x.q * v.c_slope);
                        sums[1] = x.g * x.silu, sums[2] = x.g * x.slope * x.q;
                    }
                    if (!sums_features) continue;
#pragma unroll
                    for (int m = 0; m < 3; ++m) {
                        sum_lanes(sums[m], layout.group);
                        if (has && member == 0) of_tile.at[m][k] = sums[m];
                    }
                }
                if (!sums_features) continue;  // to the next turn, where all lanes meet
                __syncwarp();
                if (lane < n) add_to_edge<T, kDoubleBackward>(p, stage, of_tile, grad_s, tile == 0, out.r);
            }
            received = sum_of_groups(received, layout.group);
            if constexpr (kDoubleBackward) of_grad = sum_of_groups(of_grad, layout.group);
            if (group != 0 || f >= width) continue;
            if (out.ends) out.ends.row(i)[width + f] = received;
            if (kDoubleBackward && out_grad.messages) out_grad.messages.row(i)[f] = of_grad;
        }
        if constexpr (kDoubleBackward) s = sum_of_groups(s, 1);
        if (kDoubleBackward && out_grad.messages && lane == 0) out_grad.s[i] = s;
    }
}

// By sender: its share of the derivative for `ends`.
template <class T, bool kDoubleBackward>
__global__ void __launch_bounds__(kWarp* kWarps) send(Concat<T> p, Matrix<T> ends, Layout layout) {
    __shared__ Stage<T> stages[kWarps];
    Stage<T>& stage = stages[warp_of_block()];
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const Rows& columns = p.op.columns;
    for (Task task(columns.n_rows * layout.tiles); task; ++task) {
        const std::int64_t j = task.at / layout.tiles, end = columns.row_ptr[j + 1];
        const std::int64_t f = task.at % layout.tiles * layout.group + member;
        T sum = 0;
        for (std::int64_t begin = columns.row_ptr[j]; begin < end; begin += kWarp) {
            const int n = stage_messages<kDoubleBackward>(p, columns, begin, end, stage, [](std::int64_t) {});
            if (f >= p.width()) continue;  // to the next turn, where all lanes meet
            each_edge<2>(group, n, kWarp / layout.group, [&](int k) {
                const StagedEdge<T>& e = stage.edges[k];
                sum += piece_of<T, kDoubleBackward>(p, e, stage.envelopes[k], e.other, j, f).gradient;
            });
        }
        sum = sum_of_groups(sum, layout.group);
        if (group == 0 && f < p.width()) ends.row(j)[f] = sum;
    }
}

// What an edge contributes to the gradient of the table, after `receive`.
template <class T, bool kDoubleBackward>
struct ToTable {
    static constexpr int kBlocks = 1;
    static constexpr bool kValues = true, kSlopes = kDoubleBackward;
    Concat<T> p;

    __device__ MDGNN_INLINE T factor(std::int64_t edge) const { return p.by.r[edge]; }
    __device__ MDGNN_INLINE void contribute(const StagedEdge<T>& e, std::int64_t receiver, std::int64_t f,
                                            Pack<T, 1>* value, Pack<T, 1>* slope) const {
        const T* const of_edge = p.op.of_edges + kOfEdge * e.edge;
        if (f == p.width()) {
            value->at[0] = of_edge[kDoubleBackward ? kAcross : kAlong], slope->at[0] = of_edge[kAlong];
            return;
        }
        Envelope<T> v = {of_edge[kEnvelope], T(0), T(0), T(0), of_edge[kByEnvelope]};
        if constexpr (kDoubleBackward) v.by_r = p.by.r[e.edge];
        const Piece<T> x = piece_of<T, kDoubleBackward>(p, e, v, receiver, e.other, f);
        value->at[0] = x.gradient, slope->at[0] = x.g * x.slope * v.c;
    }
};

template <class T, bool kDoubleBackward>
void run_gradients(Concat<T> p, const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                   const Context& context) {
    const DeviceGuard guard(context.device);
    const Layout layout = layout_for<1>(p.width());
    if (!out.coefficients) p.op.of_edges = nullptr;
    if (out.ends || out.r || out.coefficients || out_grad.messages)
        launch_warps(receive<T, kDoubleBackward>, "concat_message_table: derivatives by receiver", p.op.rows.n_rows,
                     context, p, out_grad, out, layout);
    if (out.ends)
        launch_warps(send<T, kDoubleBackward>, "concat_message_table: derivatives by sender",
                     p.op.columns.n_rows * layout.tiles, context, p, out.ends, layout);
    if (out.coefficients)
        sum_over_intervals<T, 1>(ToTable<T, kDoubleBackward>{p}, p.op.rows, p.op.table, p.op.r, p.op.workspace,
                                 out.coefficients, "concat_message_table: derivatives for the table", context);
}

}  // namespace

template <class T>
void concat_message_table(const ConcatMessageTable<T>& op, const ConcatMessageResult<T>& out, const Context& context) {
    const DeviceGuard guard(context.device);
    const Layout layout = layout_for<1>(op.ends.cols / 2);
    launch_warps(sum_messages<T>, "concat_message_table", op.rows.n_rows * layout.tiles, context, Concat<T>{op, {}, {}},
                 out, layout);
}

template <class T>
void concat_message_table_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                   const ConcatMessageGradients<T>& out, const Context& context) {
    run_gradients<T, false>({op, grad, {}}, {}, out, context);
}

template <class T>
void concat_message_table_double_backward(const ConcatMessageTable<T>& op, const ConcatMessageResult<const T>& grad,
                                          const ConcatMessageGradients<const T>& grad2,
                                          const ConcatMessageResult<T>& out_grad, const ConcatMessageGradients<T>& out,
                                          const Context& context) {
    run_gradients<T, true>({op, grad, grad2}, out_grad, out, context);
}

#define MDGNN_INSTANTIATE(T)                                                                                          \
    template void concat_message_table<T>(const ConcatMessageTable<T>&, const ConcatMessageResult<T>&,                \
                                          const Context&);                                                            \
    template void concat_message_table_backward<T>(const ConcatMessageTable<T>&, const ConcatMessageResult<const T>&, \
                                                   const ConcatMessageGradients<T>&, const Context&);                 \
    template void concat_message_table_double_backward<T>(                                                            \
        const ConcatMessageTable<T>&, const ConcatMessageResult<const T>&, const ConcatMessageGradients<const T>&,    \
        const ConcatMessageResult<T>&, const ConcatMessageGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
