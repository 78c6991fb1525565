// Parallelisation: fixed chunks of edges over threads; every edge is computed alone, so that the bits depend neither on
// the number of threads nor on an edge's place.
// Memory traffic per edge: the vector once, the basis once. Gaussians are computed again for the derivatives.
// Alternatives that lost: torch operators (six kernels forward, eight backward, each a pass over E x B).
#include <cmath>

#include "core/lanes.hpp"
#include "core/simd.hpp"
#include "core/thread_pool.hpp"
#include "ops/edge_basis/edge_basis.hpp"
#include "ops/edge_basis/math.hpp"

namespace mdgnn::cpu {
namespace {

template <class T>
inline T length(const T* v) {
    return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
}

template <class T>
inline __attribute__((always_inline)) void values(const EdgeBasis<T>& op, T* distances, T* basis, std::int64_t begin,
                                                  std::int64_t end) {
    const T* centers = op.centers;
    const T s = op.sharpness;
    for (std::int64_t e = begin; e < end; ++e) {
        const T r = length(op.vectors + 3 * e);
        T* __restrict b = basis + e * op.n_basis;
        distances[e] = r;
        for (std::int64_t k = 0; k < op.n_basis; ++k) b[k] = gaussian(r - centers[k], s);
    }
}

template <class T>
inline __attribute__((always_inline)) void first_gradients(const EdgeBasis<T>& op, const T* grad_distances,
                                                           const T* grad_basis, T* grad_vectors, std::int64_t begin,
                                                           std::int64_t end) {
    const T* centers = op.centers;
    const T s = op.sharpness;
    for (std::int64_t e = begin; e < end; ++e) {
        const T *v = op.vectors + 3 * e, *g = grad_basis ? grad_basis + e * op.n_basis : nullptr;
        const T r = length(v);
        T r_grad = grad_distances ? grad_distances[e] : T(0);
        if (grad_basis)
            r_grad +=
                sum_lanes<T>(op.n_basis, [&](std::int64_t k) { return g[k] * gaussian_slope(r - centers[k], s); });
        const T factor = r > T(0) ? r_grad / r : T(0);
        for (int a = 0; a < 3; ++a) grad_vectors[3 * e + a] = factor * v[a];
    }
}

template <class T>
inline __attribute__((always_inline)) void second_gradients(const EdgeBasis<T>& op, const T* grad2,
                                                            const T* grad_distances, const T* grad_basis,
                                                            T* out_distances, T* out_basis, T* out_vectors,
                                                            std::int64_t begin, std::int64_t end) {
    const T* centers = op.centers;
    const T s = op.sharpness;
    for (std::int64_t e = begin; e < end; ++e) {
        const T *v = op.vectors + 3 * e, *a = grad2 + 3 * e, *g = grad_basis ? grad_basis + e * op.n_basis : nullptr;
        const T r = length(v);
        const T inverse = r > T(0) ? T(1) / r : T(0);
        const T along = (a[0] * v[0] + a[1] * v[1] + a[2] * v[2]) * inverse;
        T r_grad = grad_distances ? grad_distances[e] : T(0), curvature = T(0);
        if (grad_basis) {
            T* __restrict out = out_basis + e * op.n_basis;
            for (std::int64_t k = 0; k < op.n_basis; ++k) out[k] = along * gaussian_slope(r - centers[k], s);
            r_grad +=
                sum_lanes<T>(op.n_basis, [&](std::int64_t k) { return g[k] * gaussian_slope(r - centers[k], s); });
            curvature =
                sum_lanes<T>(op.n_basis, [&](std::int64_t k) { return g[k] * gaussian_curvature(r - centers[k], s); });
        }
        if (grad_distances) out_distances[e] = along;
        for (int c = 0; c < 3; ++c) {
            const T u = v[c] * inverse;
            out_vectors[3 * e + c] = along * curvature * u + r_grad * inverse * (a[c] - along * u);
        }
    }
}

// The instruction set is chosen by functions that are not templates: one set of them per type.
#define MDGNN_LOOPS(T)                                                                                             \
    MDGNN_SIMD_CLONES void forward_loop(const EdgeBasis<T>& op, T* r, T* b, std::int64_t i, std::int64_t j) {      \
        values<T>(op, r, b, i, j);                                                                                 \
    }                                                                                                              \
    MDGNN_SIMD_CLONES void backward_loop(const EdgeBasis<T>& op, const T* gr, const T* gb, T* out, std::int64_t i, \
                                         std::int64_t j) {                                                         \
        first_gradients<T>(op, gr, gb, out, i, j);                                                                 \
    }                                                                                                              \
    MDGNN_SIMD_CLONES void double_backward_loop(const EdgeBasis<T>& op, const T* grad2, const T* gr, const T* gb,  \
                                                T* out_r, T* out_b, T* out, std::int64_t i, std::int64_t j) {      \
        second_gradients<T>(op, grad2, gr, gb, out_r, out_b, out, i, j);                                           \
    }
MDGNN_LOOPS(float)
MDGNN_LOOPS(double)

template <class T>
std::int64_t grain(const EdgeBasis<T>& op) {
    return 8192 / (op.n_basis + 1) + 1;
}

}  // namespace

template <class T>
void edge_basis(const EdgeBasis<T>& op, T* distances, T* basis, const Context& context) {
    parallel_for(op.n_edges, grain(op), context.n_threads,
                 [&](std::int64_t i, std::int64_t j) { forward_loop(op, distances, basis, i, j); });
}

template <class T>
void edge_basis_backward(const EdgeBasis<T>& op, const T* grad_distances, const T* grad_basis, T* out,
                         const Context& context) {
    parallel_for(op.n_edges, grain(op), context.n_threads,
                 [&](std::int64_t i, std::int64_t j) { backward_loop(op, grad_distances, grad_basis, out, i, j); });
}

template <class T>
void edge_basis_double_backward(const EdgeBasis<T>& op, const T* grad2, const T* grad_distances, const T* grad_basis,
                                T* out_distances, T* out_basis, T* out, const Context& context) {
    parallel_for(op.n_edges, grain(op), context.n_threads, [&](std::int64_t i, std::int64_t j) {
        double_backward_loop(op, grad2, grad_distances, grad_basis, out_distances, out_basis, out, i, j);
    });
}

#define MDGNN_INSTANTIATE(T)                                                                                   \
    template void edge_basis<T>(const EdgeBasis<T>&, T*, T*, const Context&);                                  \
    template void edge_basis_backward<T>(const EdgeBasis<T>&, const T*, const T*, T*, const Context&);         \
    template void edge_basis_double_backward<T>(const EdgeBasis<T>&, const T*, const T*, const T*, T*, T*, T*, \
                                                const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
