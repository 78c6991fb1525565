// Run-time choice of the instruction set for a function's loops, where the compiler offers it. The bits are the same on
// every level where contraction is off (CMakeLists.txt).
#pragma once

// Sanitizers are not ready when the choice is made, before main. MDGNN_GENERIC: tests of what other machines run.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(MDGNN_GENERIC)
#if __GNUC__ < 12  // does not know the levels
#define MDGNN_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define MDGNN_SIMD_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#endif
#else
#define MDGNN_SIMD_CLONES
#endif

// Code that needs instructions of AVX-512 which compilers do not find: behind this, in functions marked so, and only
// after asking.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(MDGNN_GENERIC)
#define MDGNN_AVX512 1
#define MDGNN_AVX512_TARGET __attribute__((target("avx512f,avx512vl,avx512dq,fma,prefer-vector-width=512")))
#include <immintrin.h>

namespace mdgnn {

inline bool has_avx512() {
    static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma") &&
                            __builtin_cpu_supports("popcnt");  // of the neighbour list
    return has;
}

}  // namespace mdgnn
#endif
