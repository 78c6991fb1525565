// simple_gnn: the layers of SimpleGNN and its readout in one call, for the CPU. Of each layer, with F features of an
// atom and B of an edge,
//
//   sums = concat_message_linear(features, M1[:, 2F:], (h M1[:, :F]^T, h M1[:, F:2F]^T + m1), envelope)
//   total = sums M2^T + n m2
//   hidden = (h, total) U1^T + u1
//   h <- h + silu(hidden) U2^T + u2,
//
// where n are the sums of the envelope, M1, m1, M2, m2 the weights and biases of the message's network, U1 .. u2 those
// of the update's; of the readout, energy = shift + scale (silu(h O1^T + o1) O2^T + o2), in double.
#pragma once

#include <cstdint>
#include <vector>

#include "core/view.hpp"

namespace mdgnn {

// Arguments that both functions share.
template <class T>
struct SimpleGnn {
    Rows rows;                                        // by receiver; index: the sender of each edge
    Rows columns;                                     // by sender; index: the receiver of each edge, edge: its number
    const std::int64_t* types = nullptr;              // (N): rows of the embedding, which are h of the first layer
    Matrix<const T> embedding;                        // (A, F)
    Matrix<const T> features;                         // (E, B)
    const T* envelope = nullptr;                      // (E) or null: 1
    const double *shift = nullptr, *scale = nullptr;  // (A)
    // Of each layer M1 (F, 2 F + B), m1 (F), M2 (F, F), m2 (F), U1 (F, 2 F), u1 (F), U2 (F, F), u2 (F); then of the
    // readout O1 (F, F), o1 (F), O2 (1, F), o2 (1).
    std::vector<const T*> weights;
};

// One for each input; each may be null.
template <class T>
struct SimpleGnnGradients {
    T *embedding = nullptr, *features = nullptr, *envelope = nullptr;
    std::vector<T*> weights;
};

namespace cpu {

// The number of values that the forward leaves to the backward.
std::int64_t simple_gnn_saved(std::int64_t n_atoms, std::int64_t n_features, std::int64_t n_weights);

// h of the last layer (N, F), energies (N). Throws std::out_of_range for a type without a row.
template <class T>
void simple_gnn(const SimpleGnn<T>& op, T* h, double* energies, T* saved, bool needs_grad, const Context& context);

// grad_h and grad_energies are d/d of both results of the forward; one may be null. h is the first of them.
template <class T>
void simple_gnn_backward(const SimpleGnn<T>& op, const T* h, const T* grad_h, const double* grad_energies,
                         const T* saved, const SimpleGnnGradients<T>& out, const Context& context);

}  // namespace cpu

}  // namespace mdgnn
