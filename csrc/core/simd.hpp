// Instruction sets that are chosen at run time, where the compiler offers it: MDGNN_SIMD_CLONES for loops that
// compilers vectorise, with_vectors for loops over explicit vectors (core/vectors.hpp). Clones have the same bits on
// every level where contraction is off (CMakeLists.txt); elsewhere levels differ, by their multiply-adds and by the
// order in which lanes are added.
#pragma once

// Bytes of the longest vectors: 64 (AVX-512), 32 (AVX2 with FMA) or 16 (SSE2; NEON, which has multiply-adds, too). Less
// than the machine has is for tests and measurements of what other machines run: MDGNN_SIMD of CMake.
#ifndef MDGNN_SIMD_BYTES
#define MDGNN_SIMD_BYTES 64
#endif

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && MDGNN_SIMD_BYTES > 16
#define MDGNN_SIMD_LEVELS 1
#if __GNUC__ < 12  // does not know the levels
#define MDGNN_LEVEL_64 "avx512f,avx512vl,avx512dq,avx512bw,fma"
#define MDGNN_LEVEL_32 "avx2,fma"
#else
#define MDGNN_LEVEL_64 "arch=x86-64-v4"
#define MDGNN_LEVEL_32 "arch=x86-64-v3"
#endif
#endif

// Sanitizers are not ready when the clone is chosen, before main.
#if !defined(MDGNN_SIMD_LEVELS) || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MDGNN_SIMD_CLONES
#elif __GNUC__ < 12 && MDGNN_SIMD_BYTES >= 64
#define MDGNN_SIMD_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#elif __GNUC__ < 12
#define MDGNN_SIMD_CLONES __attribute__((target_clones("avx2", "default")))
#elif MDGNN_SIMD_BYTES >= 64
#define MDGNN_SIMD_CLONES __attribute__((target_clones(MDGNN_LEVEL_64, MDGNN_LEVEL_32, "default")))
#else
#define MDGNN_SIMD_CLONES __attribute__((target_clones(MDGNN_LEVEL_32, "default")))
#endif

// Code that needs instructions of AVX-512 which compilers do not find: behind this, in functions marked so, and only
// after asking.
#if defined(__x86_64__) && defined(__GNUC__) && MDGNN_SIMD_BYTES >= 64
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

// Loops over explicit vectors come once for every length: a vector longer than a register would leave half of the
// registers, and compilers take it apart into single numbers where there is no such register at all. A macro
// LOOPS(T, attribute, bytes) defines them, each with Vectors<bytes> as its first argument.
#define MDGNN_LOOPS_16(LOOPS) LOOPS(float, , 16) LOOPS(double, , 16)
#if defined(MDGNN_SIMD_LEVELS)
#define MDGNN_TARGET_32 __attribute__((target(MDGNN_LEVEL_32)))
#define MDGNN_LOOPS_32(LOOPS) LOOPS(float, MDGNN_TARGET_32, 32) LOOPS(double, MDGNN_TARGET_32, 32)
#else
#define MDGNN_LOOPS_32(LOOPS)
#endif
#if defined(MDGNN_SIMD_LEVELS) && MDGNN_SIMD_BYTES >= 64
#define MDGNN_TARGET_64 __attribute__((target(MDGNN_LEVEL_64 ",prefer-vector-width=512")))
#define MDGNN_LOOPS_64(LOOPS) LOOPS(float, MDGNN_TARGET_64, 64) LOOPS(double, MDGNN_TARGET_64, 64)
#else
#define MDGNN_LOOPS_64(LOOPS)
#endif
#define MDGNN_LOOPS_OF_ALL_WIDTHS(LOOPS) MDGNN_LOOPS_16(LOOPS) MDGNN_LOOPS_32(LOOPS) MDGNN_LOOPS_64(LOOPS)

namespace mdgnn {

template <int kBytes>
struct Vectors {
#if defined(__aarch64__)
    static constexpr int registers = 32;
#else
    static constexpr int registers = kBytes == 64 ? 32 : 16;
#endif
};

// Bytes of the vectors that this machine's loops have.
inline int vector_bytes() {
#if !defined(MDGNN_SIMD_LEVELS)
    return 16;
#else
#if __GNUC__ < 12
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    const bool wide = __builtin_cpu_supports("x86-64-v4"), narrow = __builtin_cpu_supports("x86-64-v3");
#endif
    return MDGNN_SIMD_BYTES >= 64 && wide ? 64 : narrow ? 32 : 16;
#endif
}

// body(Vectors<...>()), for this machine.
template <class Body>
void with_vectors(const Body& body) {
#ifdef MDGNN_SIMD_LEVELS
    static const int bytes = vector_bytes();
#if MDGNN_SIMD_BYTES >= 64
    if (bytes == 64) return body(Vectors<64>());
#endif
    if (bytes == 32) return body(Vectors<32>());
#endif
    body(Vectors<16>());
}

}  // namespace mdgnn
