// CUDA on a CPU, for tests: what the project's .cu files use of <cuda_runtime.h>, for any C++20 compiler. It stands
// before CUDA's own headers on the include path. What is not here does not compile; README.md says how the machine
// works.
#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __shared__ static  // translate.py declares each such array to the machine
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;  // of the thread that runs at the moment

// --- the host's side -------------------------------------------------------------------------------------------------

using cudaStream_t = void*;
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidDevice = 101,
    cudaErrorLaunchFailure = 719,
};
cudaError_t cudaGetLastError();
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaSetDevice(int device);
const char* cudaGetErrorString(cudaError_t error);
cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n_bytes, cudaStream_t stream);

namespace emulation {

// A kernel and its parameters, without their types: `call(kernel, parameters)` runs one thread.
struct Kernel {
    void (*call)(const void* kernel, const void* parameters);
    const void* function;
    const void* parameters;
    std::size_t n_bytes;  // of the parameters
};
void launch_kernel(const Kernel& kernel, dim3 grid, dim3 block, cudaStream_t stream);

// What kernel<<<grid, block, 0, stream>>> becomes; its call takes the arguments. Only a literal 0 is a nullptr_t:
// kernels with dynamic shared memory do not compile.
template <class... P>
auto launch(void (*kernel)(P...), dim3 grid, dim3 block, std::nullptr_t, cudaStream_t stream) {
    return [=](const auto&... arguments) {
        const std::tuple<P...> parameters(arguments...);
        const auto call = [](const void* function, const void* given) {
            std::apply(reinterpret_cast<void (*)(P...)>(const_cast<void*>(function)),
                       *static_cast<const std::tuple<P...>*>(given));
        };
        launch_kernel({call, reinterpret_cast<const void*>(kernel), &parameters, sizeof parameters}, grid, block,
                      stream);
    };
}

// --- a thread's side -------------------------------------------------------------------------------------------------

// Every thread that passes the declaration of a shared array says so.
void declare_shared(void* array, std::size_t n_bytes, const char* name);

enum class Collective { syncthreads, syncwarp, shfl, shfl_up, shfl_down, shfl_xor, ballot, match_any };

struct CallSite {
    const char* file;
    int line;
};

// The threads of a mask (of the block, for syncthreads) wait for each other; the result for this one.
std::uint64_t meet(Collective collective, unsigned mask, std::uint64_t value, int argument, CallSite site);

// Before an atomic operation: it is an access to memory that other atomics may overlap.
void before_atomic(void* address, std::size_t n_bytes);

template <class T>
std::uint64_t bits_of(T value) {
    static_assert(sizeof(T) <= 8);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    return bits;
}
template <class T>
T value_of(std::uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace emulation

#define EMULATION_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATION_SITE) {
    emulation::meet(emulation::Collective::syncthreads, ~0u, 0, 0, {file, line});
}
inline void __syncwarp(unsigned mask = ~0u, EMULATION_SITE) {
    emulation::meet(emulation::Collective::syncwarp, mask, 0, 0, {file, line});
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane, EMULATION_SITE) {
    using namespace emulation;
    return value_of<T>(meet(Collective::shfl, mask, bits_of(value), lane, {file, line}));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, EMULATION_SITE) {
    using namespace emulation;
    return value_of<T>(meet(Collective::shfl_up, mask, bits_of(value), static_cast<int>(distance), {file, line}));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, EMULATION_SITE) {
    using namespace emulation;
    return value_of<T>(meet(Collective::shfl_down, mask, bits_of(value), static_cast<int>(distance), {file, line}));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, EMULATION_SITE) {
    using namespace emulation;
    return value_of<T>(meet(Collective::shfl_xor, mask, bits_of(value), lanes, {file, line}));
}
inline unsigned __ballot_sync(unsigned mask, bool value, EMULATION_SITE) {
    return static_cast<unsigned>(emulation::meet(emulation::Collective::ballot, mask, value, 0, {file, line}));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, EMULATION_SITE) {
    using namespace emulation;
    return static_cast<unsigned>(meet(Collective::match_any, mask, bits_of(value), 0, {file, line}));
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

// Atomics of the types that CUDA has. Threads run one at a time, so plain operations do; no hooks see those.
namespace emulation {
template <class T>
concept Atomic32Or64 = std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;
}  // namespace emulation

#define EMULATION_ATOMIC(NAME, RESULT, ...)                                                \
    template <class T>                                                                     \
        requires(emulation::Atomic32Or64<T> __VA_ARGS__)                                   \
    __attribute__((no_sanitize("thread"))) T NAME(T* address, std::type_identity_t<T> x) { \
        emulation::before_atomic(address, sizeof(T));                                      \
        const T old = *address;                                                            \
        *address = RESULT;                                                                 \
        return old;                                                                        \
    }
EMULATION_ATOMIC(atomicAdd, old + x, || std::same_as<T, float> || std::same_as<T, double>)
EMULATION_ATOMIC(atomicMin, x < old ? x : old, || std::same_as<T, long long>)
EMULATION_ATOMIC(atomicMax, old < x ? x : old, || std::same_as<T, long long>)
#undef EMULATION_ATOMIC

template <emulation::Atomic32Or64 T>
__attribute__((no_sanitize("thread"))) T atomicCAS(T* address, std::type_identity_t<T> compare,
                                                   std::type_identity_t<T> x) {
    emulation::before_atomic(address, sizeof(T));
    const T old = *address;
    if (old == compare) *address = x;
    return old;
}
#undef EMULATION_SITE
