// Parallelisation: fixed chunks of edges over threads; every edge is computed alone, so that no bits depend on the
// number of threads. Memory traffic per edge: what comes and goes, once, which is the floor: in float32 12 bytes in and
// 16 out forward, 28 and 12 back. Nothing but the vectors is kept for the derivatives, and nothing of the size of the
// edges is made on the way to them.
#include <cmath>

#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/polar/polar.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kEdges = 8192;  // that a thread takes at a time

// Of one edge: its inverse length, 0 for a length of zero, and its direction.
template <class T>
struct Direction {
    T length, inverse, u[3];

    MDGNN_INLINE explicit Direction(const T* v) {
        length = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
        inverse = length > T(0) ? T(1) / length : T(0);
        for (int c = 0; c < 3; ++c) u[c] = v[c] * inverse;
    }
    MDGNN_INLINE T along(const T* a) const { return a[0] * u[0] + a[1] * u[1] + a[2] * u[2]; }
};

template <class T>
MDGNN_INLINE void forward(const T* v, T* lengths, T* unit, std::int64_t begin, std::int64_t end) {
    for (std::int64_t e = begin; e < end; ++e) {
        const Direction<T> d(v + 3 * e);
        lengths[e] = d.length;
        for (int c = 0; unit && c < 3; ++c) unit[3 * e + c] = d.u[c];
    }
}

// g_r u + (g - (g . u) u) / r
template <class T>
MDGNN_INLINE void backward(const T* v, const PolarPair<const T>& grad, T* out, std::int64_t begin, std::int64_t end) {
    for (std::int64_t e = begin; e < end; ++e) {
        const Direction<T> d(v + 3 * e);
        const T g_r = grad.lengths ? grad.lengths[e] : T(0);
        T g[3] = {};
        for (int c = 0; grad.unit && c < 3; ++c) g[c] = grad.unit[3 * e + c];
        const T radial = g_r - d.along(g) * d.inverse;
        for (int c = 0; c < 3; ++c) out[3 * e + c] = radial * d.u[c] + g[c] * d.inverse;
    }
}

// With a = grad2: L = g_r (a . u) + (a . g - (g . u) (a . u)) / r.
template <class T>
MDGNN_INLINE void double_backward(const T* v, const T* grad2, const PolarPair<const T>& grad,
                                  const PolarPair<T>& out_grad, T* out, std::int64_t begin, std::int64_t end) {
    for (std::int64_t e = begin; e < end; ++e) {
        const Direction<T> d(v + 3 * e);
        const T* const a = grad2 + 3 * e;
        const T g_r = grad.lengths ? grad.lengths[e] : T(0), a_u = d.along(a);
        T g[3] = {};
        for (int c = 0; grad.unit && c < 3; ++c) g[c] = grad.unit[3 * e + c];
        const T g_u = d.along(g), a_g = a[0] * g[0] + a[1] * g[1] + a[2] * g[2];
        if (out_grad.lengths) out_grad.lengths[e] = a_u;
        for (int c = 0; out_grad.unit && c < 3; ++c) out_grad.unit[3 * e + c] = (a[c] - a_u * d.u[c]) * d.inverse;
        T for_u[3];  // the derivative of L for u
        for (int c = 0; c < 3; ++c) for_u[c] = g_r * a[c] - (g_u * a[c] + a_u * g[c]) * d.inverse;
        // of u across itself, and of 1 / r along it
        const T radial = d.along(for_u) + (a_g - g_u * a_u) * d.inverse;
        for (int c = 0; c < 3; ++c) out[3 * e + c] = (for_u[c] - radial * d.u[c]) * d.inverse;
    }
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                       \
    MDGNN_SIMD_CLONES void forward_loop(const T* v, T* r, T* u, std::int64_t i, std::int64_t j) {            \
        forward<T>(v, r, u, i, j);                                                                           \
    }                                                                                                        \
    MDGNN_SIMD_CLONES void backward_loop(const T* v, const PolarPair<const T>& grad, T* out, std::int64_t i, \
                                         std::int64_t j) {                                                   \
        backward<T>(v, grad, out, i, j);                                                                     \
    }                                                                                                        \
    MDGNN_SIMD_CLONES void double_backward_loop(const T* v, const T* grad2, const PolarPair<const T>& grad,  \
                                                const PolarPair<T>& out_grad, T* out, std::int64_t i,        \
                                                std::int64_t j) {                                            \
        double_backward<T>(v, grad2, grad, out_grad, out, i, j);                                             \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

}  // namespace

template <class T>
void polar(const T* vectors, std::int64_t n_edges, T* lengths, T* unit, const Context& context) {
    parallel_for(n_edges, kEdges, context.n_threads,
                 [&](std::int64_t i, std::int64_t j) { forward_loop(vectors, lengths, unit, i, j); });
}

template <class T>
void polar_backward(const T* vectors, std::int64_t n_edges, const PolarPair<const T>& grad, T* out,
                    const Context& context) {
    parallel_for(n_edges, kEdges, context.n_threads,
                 [&](std::int64_t i, std::int64_t j) { backward_loop(vectors, grad, out, i, j); });
}

template <class T>
void polar_double_backward(const T* vectors, std::int64_t n_edges, const T* grad2, const PolarPair<const T>& grad,
                           const PolarPair<T>& out_grad, T* out, const Context& context) {
    parallel_for(n_edges, kEdges, context.n_threads, [&](std::int64_t i, std::int64_t j) {
        double_backward_loop(vectors, grad2, grad, out_grad, out, i, j);
    });
}

#define MDGNN_INSTANTIATE(T)                                                                                \
    template void polar<T>(const T*, std::int64_t, T*, T*, const Context&);                                 \
    template void polar_backward<T>(const T*, std::int64_t, const PolarPair<const T>&, T*, const Context&); \
    template void polar_double_backward<T>(const T*, std::int64_t, const T*, const PolarPair<const T>&,     \
                                           const PolarPair<T>&, T*, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
