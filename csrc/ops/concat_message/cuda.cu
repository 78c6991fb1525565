// Parallelisation: that of radial_filter/cuda.hpp, without a table to stage edges for. A warp takes a row by receiver,
// its groups of lanes edges, a lane 16 bytes of features. Features beyond a warp's are other warps', except that with a
// gradient of the weights, a sum over all features of an edge, one warp has them all. The senders' share of the
// gradient of `ends` is a sum by sender over the rows that the receivers have written. Lanes add in the order of the
// edges; groups and lanes are added by fixed trees: no atomics, the same bits on every run.
// Memory traffic per edge and feature: as on the CPU. edge_part is read once in every pass, its gradient is written
// once and, where that of `ends` is wanted, read once more by sender. Rows of `ends` are gathered, from L2 where they
// fit. Some edges are loaded before the first of them is worked out or written: their loads are under way together.
// Arithmetic per edge and feature: one exp and one division in every pass, some 40 operations forward; on paper about
// what the loads of float32 take, and longer than those of float64.
// Alternatives, not measured: to work out each message again for its sender, which gathers grad and reads edge_part
// where this reads the gradient; several warps for a long row.
#include "ops/concat_message/concat_message.hpp"
#include "ops/radial_filter/cuda.hpp"
#include "ops/silu/math.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kSummed = 4, kWritten = 2;  // edges of a group whose loads are under way together

// What the kernels of derivatives see. In the double backward `by` multiplies the gradients.
template <class T>
struct Concat {
    ConcatMessage<T> op;
    Matrix<const T> grad;
    ConcatMessageGrad2<T> by;
};

// What they write, `grad` in the double backward alone; ends and weight may be null.
template <class T>
struct Derivatives {
    Matrix<T> grad, edge, ends;
    T* weight = nullptr;
};

// Some features of a receiver: its share of x, and of what multiplies the gradient of x.
template <class T, int V>
struct Receiver {
    Pack<T, V> share, grad, by;
};

// Some features of an edge as they are loaded; what is absent is zero.
template <class T, int V>
struct Message {
    Pack<T, V> part, sent, by_edge, by_sent;
    T weight, by_weight;
};

template <bool kDoubleBackward, int V, class T>
__device__ MDGNN_INLINE Receiver<T, V> receiver_of(const Concat<T>& p, std::int64_t i, std::int64_t f) {
    const std::int64_t width = p.op.ends.cols / 2;
    Receiver<T, V> receiver = {load_pack<V>(p.op.ends.row(i) + width + f), {}, {}};
    if (p.grad) receiver.grad = load_pack<V>(p.grad.row(i) + f);
    if (kDoubleBackward && p.by.ends) receiver.by = load_pack<V>(p.by.ends.row(i) + width + f);
    return receiver;
}

template <bool kDoubleBackward, int V, class T>
__device__ MDGNN_INLINE Message<T, V> message_of(const Concat<T>& p, std::int64_t k, std::int64_t j, std::int64_t f) {
    Message<T, V> m = {};
    m.part = load_pack<V>(p.op.edge_part.data + k * p.op.edge_stride + f);
    m.sent = load_pack<V>(p.op.ends.row(j) + f);
    m.weight = p.op.weight ? p.op.weight[k] : T(1);
    if constexpr (kDoubleBackward) {
        if (p.by.edge) m.by_edge = load_pack<V>(p.by.edge.row(k) + f);
        if (p.by.ends) m.by_sent = load_pack<V>(p.by.ends.row(j) + f);
        if (p.by.weight) m.by_weight = p.by.weight[k];
    }
    return m;
}

// Those of kAtOnce edges, `step` apart; beyond the row's last one that one again.
template <bool kDoubleBackward, int kAtOnce, int V, class T>
__device__ MDGNN_INLINE void load_messages(const Concat<T>& p, std::int64_t first, std::int64_t end, int step,
                                           std::int64_t f, Message<T, V>* messages) {
    std::int64_t edges[kAtOnce], senders[kAtOnce];
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) {
        edges[u] = first + u * step < end ? first + u * step : end - 1;
        senders[u] = p.op.rows.index[edges[u]];
    }
#pragma unroll
    for (int u = 0; u < kAtOnce; ++u) messages[u] = message_of<kDoubleBackward, V>(p, edges[u], senders[u], f);
}

template <class T, int V>
__device__ MDGNN_INLINE Pack<T, V> argument(const Message<T, V>& m, const Receiver<T, V>& receiver) {
    return (m.sent + receiver.share) + m.part;
}

template <class T, int V>
__global__ void __launch_bounds__(kWarp* kWarps, 2) sum_messages(Concat<T> p, Matrix<T> out, Layout layout) {
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    for (Task task(p.op.rows.n_rows * layout.tiles); task; ++task) {
        const std::int64_t i = task.at / layout.tiles, end = p.op.rows.row_ptr[i + 1];
        const std::int64_t f = (task.at % layout.tiles * layout.group + member) * V;
        Pack<T, V> sum = {};
        if (f < out.cols) {
            const Receiver<T, V> receiver = receiver_of<false, V>(p, i, f);
            for (std::int64_t k = p.op.rows.row_ptr[i] + group; k < end; k += kSummed * groups) {
                Message<T, V> messages[kSummed];
                load_messages<false, kSummed>(p, k, end, groups, f, messages);
#pragma unroll
                for (int u = 0; u < kSummed; ++u) {
                    if (k + u * groups >= end) break;
                    const Pack<T, V> x = argument(messages[u], receiver);
                    for (int v = 0; v < V; ++v) sum.at[v] += messages[u].weight * silu_value(x.at[v]);
                }
            }
        }
        sum_groups(sum, layout.group);
        if (group == 0 && f < out.cols) store_pack(sum, out.row(i) + f);
    }
}

// Sums over the edges of a row: the gradient of x and, in the double backward, that of the receiver's grad.
template <class T, int V>
struct Sums {
    Pack<T, V> x = {}, grad = {};
};

// Works out the gradient of x, adds to the sums and to that of the weight, and returns the first.
template <bool kDoubleBackward, class T, int V>
__device__ MDGNN_INLINE Pack<T, V> differentiate(const Message<T, V>& m, const Receiver<T, V>& receiver,
                                                 Sums<T, V>& sums, T& of_weight) {
    const Pack<T, V> x = argument(m, receiver);
    Pack<T, V> grads;
#pragma unroll
    for (int v = 0; v < V; ++v) {
        const SiluOfOne<T> silu(x.at[v]);
        const T g = receiver.grad.at[v], slope = silu.slope();
        if constexpr (kDoubleBackward) {
            const T q = m.by_edge.at[v] + (m.by_sent.at[v] + receiver.by.at[v]);
            sums.grad.at[v] += m.weight * q * slope + m.by_weight * silu.value();
            grads.at[v] = g * (m.weight * q * silu.curvature() + m.by_weight * slope);
            of_weight += g * q * slope;
        } else {
            grads.at[v] = m.weight * g * slope;
            of_weight += g * silu.value();
        }
    }
    sums.x += grads;
    return grads;
}

// Writes the gradients of a group's edges, kWritten of them from `first` on; all lanes of a warp call it together.
template <bool kDoubleBackward, class T, int V>
__device__ MDGNN_INLINE void write_edges(const Concat<T>& p, const Derivatives<T>& out, const Layout& layout,
                                         const Receiver<T, V>& receiver, std::int64_t first, std::int64_t end,
                                         std::int64_t tile, Sums<T, V>& sums) {
    const int member = lane_of_warp() % layout.group, groups = kWarp / layout.group;
    const std::int64_t f = (tile * layout.group + member) * V;
    T of_weights[kWritten] = {};
    if (f < p.grad.cols && first < end) {
        Message<T, V> messages[kWritten];
        load_messages<kDoubleBackward, kWritten>(p, first, end, groups, f, messages);
#pragma unroll
        for (int u = 0; u < kWritten; ++u)
            if (first + u * groups < end)
                store_pack(differentiate<kDoubleBackward>(messages[u], receiver, sums, of_weights[u]),
                           out.edge.row(first + u * groups) + f);
    }
    if (!out.weight) return;
#pragma unroll
    for (int u = 0; u < kWritten; ++u) {
        sum_lanes(of_weights[u], layout.group);
        if (member != 0 || first + u * groups >= end) continue;
        T& of_weight = out.weight[first + u * groups];
        of_weight = tile == 0 ? of_weights[u] : of_weight + of_weights[u];
    }
}

// By receiver: all but the senders' share of the gradient of `ends`. A task is a row's tiles part, part + parts, ..
template <class T, int V, bool kDoubleBackward>
__global__ void __launch_bounds__(kWarp* kWarps, 2)
    receive(Concat<T> p, Derivatives<T> out, Layout layout, std::int64_t parts) {
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const int groups = kWarp / layout.group;
    const std::int64_t width = p.grad.cols;
    for (Task task(p.op.rows.n_rows * parts); task; ++task) {
        const std::int64_t i = task.at / parts, begin = p.op.rows.row_ptr[i], end = p.op.rows.row_ptr[i + 1];
        for (std::int64_t tile = task.at % parts; tile < layout.tiles; tile += parts) {
            const std::int64_t f = (tile * layout.group + member) * V;
            Receiver<T, V> receiver = {};
            if (f < width) receiver = receiver_of<kDoubleBackward, V>(p, i, f);
            Sums<T, V> sums;
            for (std::int64_t first = begin; first < end; first += kWritten * groups)
                write_edges<kDoubleBackward>(p, out, layout, receiver, first + group, end, tile, sums);
            sum_groups(sums.x, layout.group);
            if constexpr (kDoubleBackward) sum_groups(sums.grad, layout.group);
            if (group != 0 || f >= width) continue;
            if (out.ends) store_pack(sums.x, out.ends.row(i) + width + f);
            if constexpr (kDoubleBackward) store_pack(sums.grad, out.grad.row(i) + f);
        }
    }
}

// ends[j, :H] = the sum of the rows of x over the edges that j sends
template <class T, int V>
__global__ void __launch_bounds__(kWarp* kWarps, 2)
    sum_sent(Rows columns, Matrix<const T> x, Matrix<T> ends, Layout layout) {
    const int member = lane_of_warp() % layout.group, group = lane_of_warp() / layout.group;
    const std::int64_t groups = kWarp / layout.group;
    for (Task task(columns.n_rows * layout.tiles); task; ++task) {
        const std::int64_t j = task.at / layout.tiles;
        const std::int64_t f = (task.at % layout.tiles * layout.group + member) * V;
        Pack<T, V> sum = {};
        if (f < x.cols)
            each_edge<8>(columns.row_ptr[j] + group, columns.row_ptr[j + 1], groups,
                         [&](std::int64_t k) { sum += load_pack<V>(x.row(columns.index[k]) + f); });
        sum_groups(sum, layout.group);
        if (group == 0 && f < x.cols) store_pack(sum, ends.row(j) + f);
    }
}

template <bool kDoubleBackward, int V, class T>
void run_derivatives(const Concat<T>& p, const Derivatives<T>& out, const Context& context) {
    const Layout layout = layout_for<V>(p.grad.cols);
    const std::int64_t parts = out.weight ? 1 : layout.tiles;
    launch_warps(receive<T, V, kDoubleBackward>, "concat_message: derivatives by receiver", p.op.rows.n_rows * parts,
                 context, p, out, layout, parts);
    if (!out.ends) return;
    const Matrix<const T> written{out.edge.data, out.edge.rows, out.edge.cols};
    launch_warps(sum_sent<T, V>, "concat_message: derivatives by sender", p.op.columns.n_rows * layout.tiles, context,
                 p.op.columns, written, out.ends, layout);
}

template <bool kDoubleBackward, class T>
void derivatives(const Concat<T>& p, const Derivatives<T>& out, const Context& context) {
    const DeviceGuard guard(context.device);
    const bool packs = p.op.edge_stride % kPack<T> == 0 &&
                       fits_packs<T>(p.grad.cols, p.op.edge_part.data, p.op.ends.data, p.grad.data, p.by.edge.data,
                                     p.by.ends.data, out.grad.data, out.edge.data, out.ends.data);
    packs ? run_derivatives<kDoubleBackward, kPack<T>>(p, out, context)
          : run_derivatives<kDoubleBackward, 1>(p, out, context);
}

template <int V, class T>
void run_forward(const ConcatMessage<T>& op, Matrix<T> out, const Context& context) {
    const Layout layout = layout_for<V>(out.cols);
    launch_warps(sum_messages<T, V>, "concat_message", op.rows.n_rows * layout.tiles, context, Concat<T>{op, {}, {}},
                 out, layout);
}

}  // namespace

template <class T>
void concat_message(const ConcatMessage<T>& op, Matrix<T> out, const Context& context) {
    const DeviceGuard guard(context.device);
    const bool packs =
        op.edge_stride % kPack<T> == 0 && fits_packs<T>(out.cols, op.edge_part.data, op.ends.data, out.data);
    packs ? run_forward<kPack<T>>(op, out, context) : run_forward<1>(op, out, context);
}

template <class T>
void concat_message_backward(const ConcatMessage<T>& op, Matrix<const T> grad, Matrix<T> grad_edge, Matrix<T> grad_ends,
                             T* grad_weight, const Context& context) {
    derivatives<false, T>({op, grad, {}}, {{}, grad_edge, grad_ends, grad_weight}, context);
}

template <class T>
void concat_message_double_backward(const ConcatMessage<T>& op, Matrix<const T> grad,
                                    const ConcatMessageGrad2<T>& grad2, Matrix<T> out_grad, Matrix<T> out_edge,
                                    Matrix<T> out_ends, T* out_weight, const Context& context) {
    derivatives<true, T>({op, grad, grad2}, {out_grad, out_edge, out_ends, out_weight}, context);
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

}  // namespace mdgnn::cuda
