// concat_message_linear: concat_message whose share of the edge is a linear layer of the edge's features.
//
//   out[i, f] = sum_k  c[k] silu(x[k, f]),   x[k, f] = (ends[j, f] + ends[i, H + f]) + sum_b W[f, b] features[k, b],
//
// over the edges k of receiver i, with sender j; c is the envelope. No array of edges x H exists.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

// Arguments shared by the three functions.
template <class T>
struct ConcatMessageLinear {
    Rows rows;                      // by receiver; index: the sender of each edge
    Rows columns;                   // by sender; index: the receiver of each edge, edge: its number. For derivatives
    Matrix<const T> features;       // (E, B)
    Matrix<const T> weight;         // (H, B)
    Matrix<const T> ends;           // (N, 2 H): an atom's share as a sender, then as a receiver
    const T* envelope = nullptr;    // (E) or null: 1
    const T* silu_grads = nullptr;  // (N, H), of the forward; for the backward, where it is to give that of `ends`

    template <class V>
    void fields(V&& visit) {
        visit("rows", rows);
        visit("columns", columns);
        visit("features", features);
        visit("weight", weight);
        visit("ends", ends);
        visit("envelope", envelope);
        visit("silu_grads", silu_grads);
    }
};

// One for each input; each may be null.
template <class T>
struct ConcatMessageLinearGradients {
    Matrix<T> features, weight, ends;
    T* envelope = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("features", features);
        visit("weight", weight);
        visit("ends", ends);
        visit("envelope", envelope);
    }
};

namespace cpu {

// out (N, H); out_silu_grads (N, H), or null: sums of c[k] silu'(x[k, f]), what the gradient of `out` is multiplied by
// for the receiver's share of `ends`.
template <class T>
void concat_message_linear(const ConcatMessageLinear<T>& op, Matrix<T> out, T* out_silu_grads, const Context& context);

// grad (N, H) is d/d out.
template <class T>
void concat_message_linear_backward(const ConcatMessageLinear<T>& op, Matrix<const T> grad,
                                    const ConcatMessageLinearGradients<T>& out, const Context& context);

// The derivative of <grad2, results of backward>, for grad and the inputs. out_grad (N, H) is always written.
template <class T>
void concat_message_linear_double_backward(const ConcatMessageLinear<T>& op, Matrix<const T> grad,
                                           const ConcatMessageLinearGradients<const T>& grad2, Matrix<T> out_grad,
                                           const ConcatMessageLinearGradients<T>& out, const Context& context);

}  // namespace cpu

}  // namespace mdgnn
