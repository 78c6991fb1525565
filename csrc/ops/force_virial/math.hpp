// What one edge adds to its ends, and gets from them: shared by cpu.cpp and cuda.cu.
#pragma once

#include "ops/force_virial/force_virial.hpp"

namespace mdgnn {

// The sums of one atom. Of the symmetric virial xx, yy, zz, yz, xz, xy, without the factor of -1/4.
struct AtomSums {
    double force[3] = {};
    double virial[6] = {};
};

// Adds an edge to the force; sign: 1 for its receiver, -1 for its sender.
template <class T>
MDGNN_HD inline void add_force(const T* gradient, double sign, AtomSums& sums) {
    for (int c = 0; c < 3; ++c) sums.force[c] += sign * static_cast<double>(gradient[c]);
}

// Adds an edge to the virial of either end.
template <class T>
MDGNN_HD inline void add_virial(const T* gradient, const double* D, AtomSums& sums) {
    const double g[3] = {static_cast<double>(gradient[0]), static_cast<double>(gradient[1]),
                         static_cast<double>(gradient[2])};
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

// The derivatives of <grad_forces, forces> and of <grad_virials, virials> for the gradient of an edge, from the numbers
// of its receiver and its sender, are added to `sum`.
MDGNN_HD inline void add_force_derivative(const double* receiver, const double* sender, double* sum) {
    for (int c = 0; c < 3; ++c) sum[c] += receiver[c] - sender[c];
}

MDGNN_HD inline void add_virial_derivative(const double* receiver, const double* sender, const double* D, double* sum) {
    const double *u = receiver, *v = sender;
    for (int a = 0; a < 3; ++a)
        for (int b = 0; b < 3; ++b)
            sum[a] -= 0.25 * ((u[3 * a + b] + u[3 * b + a]) + (v[3 * a + b] + v[3 * b + a])) * D[b];
}

}  // namespace mdgnn
