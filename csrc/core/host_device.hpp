// Macros by which one source of maths serves the host compiler and nvcc: it is written once for host, device and dtype.
#pragma once

#if defined(__CUDACC__)
#define MDGNN_HD __host__ __device__
#define MDGNN_INLINE __forceinline__
#else
#define MDGNN_HD
#define MDGNN_INLINE inline __attribute__((always_inline))
#endif
