// Run-time choice of the instruction set for a function's loops, where the compiler offers it. Clones have the same
// bits on every level where contraction is off (CMakeLists.txt); loops of several widths add lanes in different orders.
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

// Loops over vectors of features come with two widths: 64 bytes for AVX-512, and 32 for all others, to whom vectors of
// twice a register's length would leave half of the registers (AVX2: 1.5 to 3 times as long). A macro
// LOOPS(T, attribute, bytes) defines them, each with Vectors<bytes> as its first argument.
#if defined(MDGNN_AVX512) && !defined(__clang__) && defined(__linux__)
#define MDGNN_WIDE 1
#if __GNUC__ < 12
#define MDGNN_WIDE_TARGET __attribute__((target("avx512f,avx512vl,avx512dq,fma,prefer-vector-width=512")))
#define MDGNN_NARROW_LEVELS target_clones("avx2", "default")
#else
#define MDGNN_WIDE_TARGET __attribute__((target("arch=x86-64-v4,prefer-vector-width=512")))
#define MDGNN_NARROW_LEVELS target_clones("arch=x86-64-v3", "default")
#endif
#define MDGNN_WIDE_LOOPS(LOOPS) LOOPS(float, MDGNN_WIDE_TARGET, 64) LOOPS(double, MDGNN_WIDE_TARGET, 64)
#else
#define MDGNN_WIDE_LOOPS(LOOPS)
#endif
#if defined(MDGNN_WIDE) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define MDGNN_NARROW_TARGET __attribute__((MDGNN_NARROW_LEVELS))
#else
#define MDGNN_NARROW_TARGET
#endif
#define MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS) \
    LOOPS(float, MDGNN_NARROW_TARGET, 32) LOOPS(double, MDGNN_NARROW_TARGET, 32) MDGNN_WIDE_LOOPS(LOOPS)

namespace mdgnn {

template <int kBytes>
struct Vectors {};

// body(Vectors<...>()), for this machine.
template <class Body>
void with_vectors(const Body& body) {
#ifdef MDGNN_WIDE
#if __GNUC__ < 12
    static const bool wide = has_avx512();
#else
    static const bool wide = __builtin_cpu_supports("x86-64-v4");
#endif
    if (wide) return body(Vectors<64>());
#endif
    body(Vectors<32>());
}

}  // namespace mdgnn
