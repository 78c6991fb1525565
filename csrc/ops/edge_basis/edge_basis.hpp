// edge_basis: lengths of edge vectors, and Gaussians of them, in one pass.
//
//   r[e] = |v[e]|,   b[e, k] = exp(-(r[e] - centers[k])^2 / (2 width^2))
//
// The direction v / r of an edge of length zero counts as zero.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

// Arguments shared by the three functions.
template <class T>
struct EdgeBasis {
    const T* vectors = nullptr;  // (n_edges, 3)
    std::int64_t n_edges = 0;
    const T* centers = nullptr;  // (n_basis)
    std::int64_t n_basis = 0;
    T sharpness = 0;  // 1 / (2 width^2)

    template <class V>
    void fields(V&& visit) {
        visit("vectors", vectors);
        visit("n_edges", n_edges);
        visit("centers", centers);
        visit("n_basis", n_basis);
        visit("sharpness", sharpness);
    }
};

namespace cpu {

// distances (E), basis (E, B)
template <class T>
void edge_basis(const EdgeBasis<T>& op, T* distances, T* basis, const Context& context);

// grad_distances (E) and grad_basis (E, B) may be null; out (E, 3).
template <class T>
void edge_basis_backward(const EdgeBasis<T>& op, const T* grad_distances, const T* grad_basis, T* out,
                         const Context& context);

// The derivative of <grad2, out of backward>, grad2 (E, 3), with respect to grad_distances, grad_basis and vectors.
// Inputs that are null count as zero, and their results may be null.
template <class T>
void edge_basis_double_backward(const EdgeBasis<T>& op, const T* grad2, const T* grad_distances, const T* grad_basis,
                                T* out_distances, T* out_basis, T* out, const Context& context);

}  // namespace cpu
}  // namespace mdgnn
