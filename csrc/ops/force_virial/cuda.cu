// Parallelisation: a warp for each atom, whose lanes walk the atom's edges; in `backward` for each receiver. A lane
// sums its edges in order, in double precision, and the lanes are combined in a fixed tree: no atomics, the same bits
// on every run. Memory traffic: as on the CPU; lanes that stand together read rows of 3 numbers that stand together.
// Alternatives that lost: none measured yet (shorter groups of lanes for rows of few edges; one thread for each edge in
// `backward`, which needs the receivers as another array of E numbers).
#include "core/cuda.hpp"
#include "ops/force_virial/math.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr std::int64_t kMaxBlocks = 65535;  // grids are strided: any number of rows fits

// The lane of this thread, its warp's first row, and how far the next one is.
struct Lane {
    int lane;
    std::int64_t row, stride;
};

__device__ inline Lane lane_of_thread() {
    const int per_block = static_cast<int>(blockDim.x) / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    return {static_cast<int>(threadIdx.x) % kWarp, static_cast<std::int64_t>(blockIdx.x) * per_block + warp,
            static_cast<std::int64_t>(gridDim.x) * per_block};
}

__device__ inline double sum_of_warp(double x) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_down_sync(0xffffffffu, x, distance);
    return x;
}

template <class T>
__global__ void sum_edges(EdgeVectors op, const T* gradients, double* forces, double* virials) {
    const auto [lane, first, stride] = lane_of_thread();
    const auto vector = [&](std::int64_t k) { return virials ? op.vectors + 3 * k : nullptr; };
    for (std::int64_t i = first; i < op.rows.n_rows; i += stride) {
        AtomSums sums;
        for (std::int64_t k = op.rows.row_ptr[i] + lane; k < op.rows.row_ptr[i + 1]; k += kWarp)
            add_edge(gradients + 3 * k, vector(k), 1.0, sums);
        for (std::int64_t k = op.columns.row_ptr[i] + lane; k < op.columns.row_ptr[i + 1]; k += kWarp) {
            const std::int64_t edge = op.columns.index[k];
            add_edge(gradients + 3 * edge, vector(edge), -1.0, sums);
        }
        for (double& x : sums.force) x = sum_of_warp(x);
        if (virials)
            for (double& x : sums.virial) x = sum_of_warp(x);
        if (lane != 0) continue;
        for (int c = 0; c < 3; ++c) forces[3 * i + c] = sums.force[c];
        if (virials) write_virial(sums, virials + 9 * i);
    }
}

template <class T>
__global__ void hand_to_edges(EdgeVectors op, const double* grad_forces, const double* grad_virials, T* out) {
    const auto [lane, first, stride] = lane_of_thread();
    for (std::int64_t i = first; i < op.rows.n_rows; i += stride)
        for (std::int64_t k = op.rows.row_ptr[i] + lane; k < op.rows.row_ptr[i + 1]; k += kWarp)
            edge_derivative(grad_forces, grad_virials, grad_virials ? op.vectors + 3 * k : nullptr, i, op.rows.index[k],
                            out + 3 * k);
}

std::int64_t blocks_for(std::int64_t n_rows) {
    const std::int64_t blocks = (n_rows * kWarp + kThreads - 1) / kThreads;
    return blocks < kMaxBlocks ? blocks : kMaxBlocks;
}

}  // namespace

template <class T>
void force_virial(const EdgeVectors& op, const T* gradients, double* forces, double* virials, const Context& context) {
    if (op.rows.n_rows == 0) return;
    const DeviceGuard guard(context.device);
    launch(sum_edges<T>, "force_virial", blocks_for(op.rows.n_rows), kThreads, context, op, gradients, forces, virials);
}

template <class T>
void force_virial_backward(const EdgeVectors& op, const double* grad_forces, const double* grad_virials, T* out,
                           const Context& context) {
    if (op.rows.n_rows == 0) return;
    const DeviceGuard guard(context.device);
    launch(hand_to_edges<T>, "force_virial: backward", blocks_for(op.rows.n_rows), kThreads, context, op, grad_forces,
           grad_virials, out);
}

#define MDGNN_INSTANTIATE(T)                                                                       \
    template void force_virial<T>(const EdgeVectors&, const T*, double*, double*, const Context&); \
    template void force_virial_backward<T>(const EdgeVectors&, const double*, const double*, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cuda
