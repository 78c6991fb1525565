// What one edge adds to its ends, and gets from them: shared by cpu.cpp and cuda.cu.
#pragma once

#include "ops/force_virial/force_virial.hpp"

namespace mdgnn {

// The sums of one atom. Of the symmetric virial xx, yy, zz, yz, xz, xy, without the factor of -1/4.
struct AtomSums {
    double force[3] = {};
    double virial[6] = {};
};

// Adds an edge; sign: 1 for its receiver, -1 for its sender. D may be null.
template <class T>
MDGNN_HD inline void add_edge(const T* gradient, const double* D, double sign, AtomSums& sums) {
    const double g[3] = {static_cast<double>(gradient[0]), static_cast<double>(gradient[1]),
                         static_cast<double>(gradient[2])};
    for (int c = 0; c < 3; ++c) sums.force[c] += sign * g[c];
    if (!D) return;
    for (int c = 0; c < 3; ++c) {
        const int a = c == 0 ? 1 : 0, b = c == 2 ? 1 : 2;
        sums.virial[c] += 2 * g[c] * D[c];
        sums.virial[3 + c] += g[a] * D[b] + g[b] * D[a];
    }
}

MDGNN_HD inline void write_virial(const AtomSums& sums, double* virial) {
    for (int c = 0; c < 3; ++c) {
        const int a = c == 0 ? 1 : 0, b = c == 2 ? 1 : 2;
        virial[4 * c] = -0.25 * sums.virial[c];
        virial[3 * a + b] = virial[3 * b + a] = -0.25 * sums.virial[3 + c];
    }
}

// The derivative of <grad_forces, forces> + <grad_virials, virials> for the gradient of an edge from j to i.
template <class T>
MDGNN_HD inline void edge_derivative(const double* grad_forces, const double* grad_virials, const double* D,
                                     std::int64_t i, std::int64_t j, T* out) {
    double sum[3] = {};
    if (grad_virials) {
        const double *u = grad_virials + 9 * i, *v = grad_virials + 9 * j;
        for (int a = 0; a < 3; ++a)
            for (int b = 0; b < 3; ++b)
                sum[a] -= 0.25 * ((u[3 * a + b] + u[3 * b + a]) + (v[3 * a + b] + v[3 * b + a])) * D[b];
    }
    if (grad_forces)
        for (int c = 0; c < 3; ++c) sum[c] += grad_forces[3 * i + c] - grad_forces[3 * j + c];
    for (int c = 0; c < 3; ++c) out[c] = static_cast<T>(sum[c]);
}

}  // namespace mdgnn
