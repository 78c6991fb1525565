// force_virial: from derivatives with respect to edge vectors to forces and virials of atoms. An edge k of receiver i
// and sender j has the vector D[k] = r_j - r_i + S @ cell, so
//
//   forces[i]  = sum of g[k] over the edges that i receives - the same over the edges that i sends,
//   virials[i] = sum of -(g[k] x D[k] + D[k] x g[k]) / 4 over the edges that i receives and those that it sends:
//
// half of an edge's virial, made symmetric, goes to either end, and the sum over atoms is -(sum D x g + transpose) / 2.
// Both are sums over edges, linear in g and in D, and with virials symmetric under their exchange. So the derivative
// ladder has two functions for any number of steps: the sums, and `backward`, which hands gradients of atoms to edges.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

// rows: by receiver, the index holds senders; columns: by sender, the index holds edges. vectors (E, 3) may be null
// where there are no virials.
struct EdgeVectors {
    Rows rows, columns;
    const double* vectors = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("vectors", vectors);
    }
};

#define MDGNN_FORCE_VIRIAL_INTERFACE                                                                                 \
    /* gradients (E, 3); forces (N, 3); virials (N, 3, 3) or null. */                                                \
    template <class T>                                                                                               \
    void force_virial(const EdgeVectors& op, const T* gradients, double* forces, double* virials,                    \
                      const Context& context);                                                                       \
                                                                                                                     \
    /* grad_forces (N, 3) and grad_virials (N, 3, 3) may be null; out (E, 3) is the derivative for gradients. */     \
    template <class T>                                                                                               \
    void force_virial_backward(const EdgeVectors& op, const double* grad_forces, const double* grad_virials, T* out, \
                               const Context& context);

namespace cpu {
MDGNN_FORCE_VIRIAL_INTERFACE
}
namespace cuda {
MDGNN_FORCE_VIRIAL_INTERFACE
}

}  // namespace mdgnn
