// Kernels of one warp whose traffic test_traffic.py knows. They read floats of `x`, each of which is written, and write
// none where nothing is said.
#include <cuda_runtime.h>

namespace {

constexpr int kWarp = 32;

__device__ int lane() { return static_cast<int>(threadIdx.x); }

// Keeps what a kernel has read.
__device__ void use(float value) {
    if (value < 0) __syncwarp(1u << lane());
}

__global__ void side_by_side(float* x) { use(x[lane()]); }
__global__ void not_at_a_sector(float* x) { use(x[lane() + 1]); }
__global__ void far_apart(float* x) { use(x[8 * lane()]); }
__global__ void all_the_same(float* x) { use(x[5]); }
__global__ void half_of_the_lanes(float* x) {
    if (lane() < 16) use(x[lane()]);
}
struct alignas(16) Four {
    float at[4];
};
__global__ void sixteen_bytes(float* x) {
    const Four four = reinterpret_cast<Four*>(x)[lane()];
    use(four.at[0] + four.at[1] + four.at[2] + four.at[3]);
}
struct alignas(16) Eight {
    float at[8];
};
__global__ void aligned_structs(float* x) {
    const Eight eight = reinterpret_cast<Eight*>(x)[lane()];
    float sum = 0;
    for (float number : eight.at) sum += number;
    use(sum);
}
__global__ void four_of_four_bytes(float* x) {
    x += 4 * lane();
    use(x[3] + x[0] + x[1] + x[2]);
}
__global__ void three_of_four_bytes(float* x) {
    x += 3 * lane();
    use(x[0] + x[1] + x[2]);
}
__global__ void written(float* x) { x[lane()] = 1; }
__global__ void the_same_again(float* x) {
    use(x[lane()]);
    __syncwarp();
    use(x[lane()]);
}

// Half of the lanes go round once, the others twice; then all of them meet and go round again.
__global__ void loops_of_two_lengths(float* x) {
    for (int turn = 0; turn < 2; ++turn) {
        for (int k = 0; k <= lane() / 16; ++k) use(x[kWarp * k + lane()]);
        __syncwarp();
    }
}

template <int kApart>
__device__ void read_column(float value) {
    __shared__ float rows[kWarp * 33];
    for (int k = 0; k < 33; ++k) rows[kWarp * k + lane()] = value;
    __syncwarp();
    use(rows[kApart * lane()]);
}
__global__ void columns_of_one_bank(float*) { read_column<32>(1.0f); }
__global__ void columns_of_all_banks(float*) { read_column<33>(1.0f); }

}  // namespace

#define LAUNCH(KERNEL)                                 \
    extern "C" const char* launch_##KERNEL(float* x) { \
        KERNEL<<<1, kWarp, 0, nullptr>>>(x);           \
        return cudaGetErrorString(cudaGetLastError()); \
    }
LAUNCH(side_by_side)
LAUNCH(not_at_a_sector)
LAUNCH(far_apart)
LAUNCH(all_the_same)
LAUNCH(half_of_the_lanes)
LAUNCH(sixteen_bytes)
LAUNCH(aligned_structs)
LAUNCH(four_of_four_bytes)
LAUNCH(three_of_four_bytes)
LAUNCH(written)
LAUNCH(the_same_again)
LAUNCH(loops_of_two_lengths)
LAUNCH(columns_of_one_bank)
LAUNCH(columns_of_all_banks)
