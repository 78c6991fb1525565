// mlp: a perceptron with one hidden layer, for the CPU.
//
//   hidden = x W1^T + b1,   out = silu(hidden) W2^T + b2
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn {

// Arguments that both functions share.
template <class T>
struct Mlp {
    Matrix<const T> x;          // (N, C)
    Matrix<const T> weight_1;   // (H, C)
    const T* bias_1 = nullptr;  // (H)
    Matrix<const T> weight_2;   // (K, H)
    const T* bias_2 = nullptr;  // (K)

    template <class V>
    void fields(V&& visit) {
        visit("x", x);
        visit("weight_1", weight_1);
        visit("bias_1", bias_1);
        visit("weight_2", weight_2);
        visit("bias_2", bias_2);
    }
};

// One for each input; each may be null.
template <class T>
struct MlpGradients {
    Matrix<T> x, weight_1;
    T* bias_1 = nullptr;
    Matrix<T> weight_2;
    T* bias_2 = nullptr;

    template <class V>
    void fields(V&& visit) {
        visit("x", x);
        visit("weight_1", weight_1);
        visit("bias_1", bias_1);
        visit("weight_2", weight_2);
        visit("bias_2", bias_2);
    }
};

namespace cpu {

// out (N, K), hidden (N, H): for the backward.
template <class T>
void mlp(const Mlp<T>& op, Matrix<T> out, Matrix<T> hidden, const Context& context);

// grad (N, K) is d/d out.
template <class T>
void mlp_backward(const Mlp<T>& op, Matrix<const T> hidden, Matrix<const T> grad, const MlpGradients<T>& out,
                  const Context& context);

}  // namespace cpu

}  // namespace mdgnn
