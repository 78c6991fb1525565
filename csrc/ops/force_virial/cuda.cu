// Parallelisation: a warp for each atom, whose lanes take the atom's edges; in `backward` for each receiver. A lane
// sums its edges in order, in double precision, and the lanes are combined in a fixed tree: no atomics, the same bits
// on every run. Memory traffic: as on the CPU. Rows of 3 or 9 numbers are loaded by the warp together, lanes side by
// side, and handed over through shared memory: an edge's row takes 1 to 2 sectors of 32 bytes wherever it is, an atom's
// virial 3 or 4. Floor: 36 bytes an edge twice (48 in float64) and its number, 8; backward 8, D 24, out 12 or 24, and
// of the sender a virial, 72, and a force, 24, in the launch that has one. Bytes bound all of it: 60 operations an
// edge. Alternatives that lost, by sectors over the floor (benchmarks/gpu_traffic.py: 147 atoms, 78 edges each;
// float32, in brackets float64); not measured on a GPU:
// - each lane loads its own edge, one number at a time: sums 8.1 (6.6), backward 7.0 (6.9); with every number loaded
//   once, as nvcc may make it, 3.9 (3.4) and 3.6 (3.5). Now 1.8 (1.6) and 1.2 (1.1). It had 38 to 56 registers, now 64.
// - 32 edges from where a sector begins instead of where the row does: 3 % fewer sectors, of the lanes 75 % take part
//   instead of 82 %.
#include "core/cuda.hpp"
#include "ops/force_virial/math.hpp"

namespace mdgnn::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 4;  // of a multiprocessor of 228 KB (backward takes 35 to 38 KB): 64 registers, no spills
constexpr int kWarp = 32, kWarps = kThreads / kWarp;
constexpr unsigned kAll = 0xffffffffu;      // lanes
constexpr std::int64_t kMaxBlocks = 65535;  // grids are strided: any number of rows fits

// The lane of this thread, its warp in the block, the warp's first row, and how far the next one is.
struct Lane {
    int lane, warp;
    std::int64_t row, stride;
};

__device__ inline Lane lane_of_thread() {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    return {static_cast<int>(threadIdx.x) % kWarp, warp, static_cast<std::int64_t>(blockIdx.x) * kWarps + warp,
            static_cast<std::int64_t>(gridDim.x) * kWarps};
}

// Calls f(k) by all lanes for the entries k of row i, 32 at a time; for lanes without one k is -1.
template <class F>
__device__ inline void each_entry(const Rows& rows, std::int64_t i, int lane, F&& f) {
    const std::int64_t end = rows.row_ptr[i + 1];
    for (std::int64_t first = rows.row_ptr[i]; first < end; first += kWarp) f(first + lane < end ? first + lane : -1);
}

// Loads row `row` of an array of kNumbers columns for each lane, unless it is negative, to place `lane` of `shared`.
// Lanes that stand together read numbers that stand together.
template <int kNumbers, class T>
__device__ inline void load_rows(const T* array, std::int64_t row, int lane, T* shared) {
    for (int m = lane; m < kNumbers * kWarp; m += kWarp) {
        const std::int64_t of_owner = __shfl_sync(kAll, row, m / kNumbers);
        if (of_owner >= 0) shared[m] = array[kNumbers * of_owner + m % kNumbers];
    }
}

// The way back.
template <int kNumbers, class T>
__device__ inline void store_rows(const T* shared, std::int64_t row, int lane, T* array) {
    for (int m = lane; m < kNumbers * kWarp; m += kWarp) {
        const std::int64_t of_owner = __shfl_sync(kAll, row, m / kNumbers);
        if (of_owner >= 0) array[kNumbers * of_owner + m % kNumbers] = shared[m];
    }
}

__device__ inline double sum_of_warp(double x) {
    for (int distance = kWarp / 2; distance > 0; distance /= 2) x += __shfl_down_sync(kAll, x, distance);
    return x;
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    sum_edges(EdgeVectors op, const T* gradients, double* forces, double* virials) {
    struct Shared {
        double vectors[3 * kWarp], virial[9], force[3];
        T gradients[3 * kWarp];
    };
    __shared__ Shared shared_of_warp[kWarps];
    const auto [lane, warp, first, stride] = lane_of_thread();
    Shared& shared = shared_of_warp[warp];
    for (std::int64_t i = first; i < op.rows.n_rows; i += stride) {
        AtomSums sums;
        const auto add = [&, lane = lane](std::int64_t edge, double sign) {
            load_rows<3>(gradients, edge, lane, shared.gradients);
            if (virials) load_rows<3>(op.vectors, edge, lane, shared.vectors);
            __syncwarp();
            if (edge >= 0) {
                add_force(shared.gradients + 3 * lane, sign, sums);
                if (virials) add_virial(shared.gradients + 3 * lane, shared.vectors + 3 * lane, sums);
            }
            __syncwarp();  // the numbers have been read
        };
        each_entry(op.rows, i, lane, [&](std::int64_t k) { add(k, 1.0); });
        each_entry(op.columns, i, lane, [&](std::int64_t k) { add(k < 0 ? k : op.columns.index[k], -1.0); });
        for (double& x : sums.force) x = sum_of_warp(x);
        if (virials)
            for (double& x : sums.virial) x = sum_of_warp(x);
        if (lane == 0) {
            for (int c = 0; c < 3; ++c) shared.force[c] = sums.force[c];
            if (virials) write_virial(sums, shared.virial);
        }
        __syncwarp();
        if (lane < 3) forces[3 * i + lane] = shared.force[lane];
        if (virials && lane < 9) virials[9 * i + lane] = shared.virial[lane];
        __syncwarp();  // the sums have been read
    }
}

template <class T>
__global__ void __launch_bounds__(kThreads, kBlocks)
    hand_to_edges(EdgeVectors op, const double* grad_forces, const double* grad_virials, T* out) {
    struct Shared {
        double receiver_virial[9], receiver_force[3];
        double virials[9 * kWarp], forces[3 * kWarp], vectors[3 * kWarp];  // of senders, and of edges
        T out[3 * kWarp];
    };
    __shared__ Shared shared_of_warp[kWarps];
    const auto [lane, warp, first, stride] = lane_of_thread();
    Shared& shared = shared_of_warp[warp];
    for (std::int64_t i = first; i < op.rows.n_rows; i += stride) {
        if (grad_virials && lane < 9) shared.receiver_virial[lane] = grad_virials[9 * i + lane];
        if (grad_forces && lane < 3) shared.receiver_force[lane] = grad_forces[3 * i + lane];
        each_entry(op.rows, i, lane, [&, lane = lane](std::int64_t k) {
            const std::int64_t sender = k < 0 ? k : op.rows.index[k];
            if (grad_virials) {
                load_rows<9>(grad_virials, sender, lane, shared.virials);
                load_rows<3>(op.vectors, k, lane, shared.vectors);
            }
            if (grad_forces) load_rows<3>(grad_forces, sender, lane, shared.forces);
            __syncwarp();  // also: the results of the turn before have been stored
            if (k >= 0) {
                double sum[3] = {};
                if (grad_virials)
                    add_virial_derivative(shared.receiver_virial, shared.virials + 9 * lane, shared.vectors + 3 * lane,
                                          sum);
                if (grad_forces) add_force_derivative(shared.receiver_force, shared.forces + 3 * lane, sum);
                for (int c = 0; c < 3; ++c) shared.out[3 * lane + c] = static_cast<T>(sum[c]);
            }
            __syncwarp();  // also: the numbers have been read
            store_rows<3>(shared.out, k, lane, out);
        });
    }
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
