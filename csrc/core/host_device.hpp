// Macros that let one source of maths serve the host compiler and nvcc (DESIGN rule: maths is written once).
#pragma once

#if defined(__CUDACC__)
#define MDGNN_HD __host__ __device__
#define MDGNN_INLINE __forceinline__
#else
#define MDGNN_HD
#define MDGNN_INLINE inline __attribute__((always_inline))
#endif
