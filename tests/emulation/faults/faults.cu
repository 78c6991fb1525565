// Kernels with one fault each, and some without, for test_machine.py: the machine refuses the first and runs the
// others. Each host function launches one kernel on an array of n numbers and returns what cudaGetLastError says.
#include <cuda_runtime.h>

namespace {

constexpr int kThreads = 64, kWarp = 32;

__device__ int rank() { return static_cast<int>(threadIdx.x); }

// --- without a fault -------------------------------------------------------------------------------------------------

// Sums of the block by shuffles and shared memory; threads of the last warp end early.
__global__ void correct_sum(int* x, int n) {
    __shared__ int sums[kThreads / kWarp];
    const int i = static_cast<int>(blockIdx.x) * kThreads + rank();
    int value = i < n ? x[i] : 0;
    for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
    if (rank() % kWarp == 0) sums[rank() / kWarp] = value;
    __syncthreads();
    if (rank() >= kWarp) return;
    __syncwarp();
    if (rank() == 0) x[i] = sums[0] + sums[1];
}

__global__ void correct_atomics(int* x, int) { atomicAdd(&x[0], 1); }

// The last thread reads what all have added up: they meet before.
__global__ void correct_read_after_atomics(int* x, int) {
    atomicAdd(&x[0], 1);
    __syncthreads();
    if (rank() == kThreads - 1) x[1] = x[0];
}

// Each lane reads what the next one wrote, in turns.
__global__ void correct_turns(int* x, int n) {
    __shared__ int values[kWarp];
    const int lane = rank() % kWarp;
    if (rank() >= kWarp) return;
    for (int turn = 0; turn < 3; ++turn) {
        values[lane] = lane + turn;
        __syncwarp();
        const int next = values[(lane + 1) % kWarp];
        __syncwarp();
        if (lane < n) x[lane] = next;
    }
}

// Two halves of a warp that meet by themselves.
__global__ void correct_halves(int* x, int) {
    __shared__ int values[kThreads];
    const int lane = rank() % kWarp, half = lane / 16;
    const unsigned mask = half ? 0xffff0000u : 0x0000ffffu;
    values[rank()] = lane;
    __syncwarp(mask);
    const int other = values[rank() ^ 1];
    if (half) x[rank()] = other + __popc(__ballot_sync(mask, lane % 2 == 0));
}

// --- threads that do not meet ----------------------------------------------------------------------------------------

__global__ void lane_outside_its_mask(int* x, int) { x[rank()] = __shfl_sync(0x0000ffffu, x[rank()], 0); }

__global__ void missing_lane(int* x, int) {
    if (rank() % kWarp != 3) x[rank()] = __shfl_sync(0xfffffff7u, x[rank()], 3);
}

// Lane 0 waits for lane 1, which waits for the block.
__global__ void threads_that_wait_for_ever(int* x, int) {
    if (rank() == 0) __syncwarp(0x00000003u);
    __syncthreads();
    x[rank()] = 0;
}

__global__ void different_calls(int* x, int) {
    if (rank() % kWarp < 16)
        x[rank()] = __shfl_sync(0xffffffffu, 1, 0);
    else
        x[rank()] = __shfl_sync(0xffffffffu, 2, 0);
}

__global__ void different_barriers(int* x, int) {
    if (rank() < kWarp)
        __syncthreads();
    else
        __syncthreads();
    x[rank()] = 0;
}

__global__ void barrier_in_a_branch(int* x, int) {
    if (rank() == 5) {
        __syncthreads();
        x[0] = 1;
    }
    __syncwarp();
    __syncthreads();
}

// --- races of memory that is written
// before---------------------------------------------------------------------------------------------------------

__global__ void race_of_a_block(int* x, int) {
    __shared__ int values[kThreads];
    values[rank()] = 0;
    __syncthreads();
    values[rank()] = rank();
    x[rank()] = values[kThreads - 1 - rank()];
}

__global__ void race_of_a_warp(int* x, int) {
    __shared__ int values[kThreads];
    values[rank()] = 0;
    __syncthreads();
    values[rank()] = rank();
    __shfl_sync(0xffffffffu, 0, 0);  // orders no memory
    x[rank()] = values[rank() ^ 1];
}

__global__ void race_of_half_a_warp(int* x, int) {
    __shared__ int values[kThreads];
    values[rank()] = 0;
    __syncthreads();
    values[rank()] = rank();
    __syncwarp(rank() % kWarp < 16 ? 0x0000ffffu : 0xffff0000u);
    x[rank()] = values[rank() ^ 16];
}

__global__ void race_of_reads_before_a_write(int* x, int) {
    __shared__ int value;
    if (rank() == 0) value = 1;
    __syncthreads();
    x[rank()] = value;
    if (rank() == kThreads - 1) value = 2;
}

__global__ void race_of_warps_by_syncwarp(int* x, int) {
    __shared__ int values[kThreads];
    values[rank()] = 0;
    __syncthreads();
    values[rank()] = rank();
    __syncwarp();
    x[rank()] = values[rank() ^ kWarp];
}

__global__ void race_of_blocks(int* x, int) {
    if (rank() == 0) x[0] = x[1] + static_cast<int>(blockIdx.x);
}

__global__ void race_with_an_atomic(int* x, int) {
    if (rank() == 0)
        x[0] = 3;
    else
        atomicAdd(&x[0], 1);
}

// The last one's own is the last before the read: that of the others is not ordered.
__global__ void race_with_atomics_before(int* x, int) {
    atomicAdd(&x[0], 1);
    if (rank() == kThreads - 1) x[1] = x[0];
}

__global__ void race_with_atomics_of_another_warp(int* x, int) {
    if (rank() % kWarp == 0) atomicAdd(&x[0], 1);
    __syncwarp();
    if (rank() == kWarp) x[1] = x[0];
}

__global__ void race_with_atomics_of_blocks(int* x, int) {
    atomicAdd(&x[0], 1);
    __syncthreads();
    if (blockIdx.x == 1 && rank() == 0) x[1] = x[0];
}

// --- memory ----------------------------------------------------------------------------------------------------------

__global__ void read_beyond_the_array(int* x, int n) {
    if (rank() == 0) x[0] = x[n];
}

__global__ void write_before_the_array(int* x, int) {
    if (rank() == 0) x[-1] = 0;
}

__global__ void write_beyond_shared_memory(int* x, int n) {
    __shared__ int values[kThreads];
    values[rank() + n] = 0;
    x[rank()] = 0;
}

struct alignas(16) Four {
    int at[4];
};

__global__ void misaligned(int* x, int) {
    if (rank() == 0) *reinterpret_cast<Four*>(x + 1) = Four{};
}

__global__ void shared_memory_not_written(int* x, int) {
    __shared__ int values[kThreads];
    if (rank() != 7) values[rank()] = 0;
    __syncthreads();
    x[rank()] = values[rank()];
}

__global__ void global_memory_not_written(int* x, int n) { x[rank()] += x[n / 2 + rank()]; }  // n / 2 are written

__global__ void local_memory_of_another(int* x, int) {
    __shared__ int* mine;
    int local = 1;
    if (rank() == 0) mine = &local;
    __syncthreads();
    x[rank()] = *mine;
    __syncthreads();
}

__device__ int sum_of_much(int* x, int n) {
    volatile int much[16 * 1024];
    for (int k = 0; k < 16 * 1024; ++k) much[k] = n;
    int sum = 0;
    for (int k = 0; k < 16 * 1024; ++k) sum += much[k];
    return x[0] = sum;
}
__global__ void too_much_stack(int* x, int n) {
    if (rank() == 0) sum_of_much(x, n);
}

__global__ void pointer_of_the_host(int* x, int, const int* host) {
    if (rank() == 0) x[0] = host[0];
}
int of_the_host[1];

__global__ void shift_by_too_much(int* x, int n) {
    if (rank() == 0) x[0] = 1 << n;
}

const char* last_error() {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace

extern "C" const char* launch_pointer_of_the_host(int* x, int n) {
    pointer_of_the_host<<<1, kThreads, 0, nullptr>>>(x, n, of_the_host);
    return last_error();
}

#define LAUNCH(KERNEL, N_BLOCKS)                            \
    extern "C" const char* launch_##KERNEL(int* x, int n) { \
        KERNEL<<<N_BLOCKS, kThreads, 0, nullptr>>>(x, n);   \
        return last_error();                                \
    }
LAUNCH(correct_sum, 1)
LAUNCH(correct_atomics, 2)
LAUNCH(correct_read_after_atomics, 1)
LAUNCH(correct_turns, 1)
LAUNCH(correct_halves, 1)
LAUNCH(lane_outside_its_mask, 1)
LAUNCH(missing_lane, 1)
LAUNCH(threads_that_wait_for_ever, 1)
LAUNCH(different_calls, 1)
LAUNCH(different_barriers, 1)
LAUNCH(barrier_in_a_branch, 1)
LAUNCH(race_of_a_block, 1)
LAUNCH(race_of_a_warp, 1)
LAUNCH(race_of_half_a_warp, 1)
LAUNCH(race_of_reads_before_a_write, 1)
LAUNCH(race_of_warps_by_syncwarp, 1)
LAUNCH(race_of_blocks, 2)
LAUNCH(race_with_an_atomic, 1)
LAUNCH(race_with_atomics_before, 1)
LAUNCH(race_with_atomics_of_another_warp, 1)
LAUNCH(race_with_atomics_of_blocks, 2)
LAUNCH(read_beyond_the_array, 1)
LAUNCH(write_before_the_array, 1)
LAUNCH(write_beyond_shared_memory, 1)
LAUNCH(misaligned, 1)
LAUNCH(shared_memory_not_written, 1)
LAUNCH(global_memory_not_written, 1)
LAUNCH(local_memory_of_another, 1)
LAUNCH(too_much_stack, 1)
LAUNCH(shift_by_too_much, 1)
