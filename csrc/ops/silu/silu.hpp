// SiLU, y = x s(x) with the logistic s(x) = 1 / (1 + exp(-x)), and its derivatives, element by element.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn::cpu {

// y = silu(x)
template <class T>
void silu(std::int64_t n, const T* x, T* y, const Context& context);

// out = grad silu'(x)
template <class T>
void silu_backward(std::int64_t n, const T* grad, const T* x, T* out, const Context& context);

// out = a grad silu''(x): the derivative of <a, grad silu'(x)> with respect to x
template <class T>
void silu_double_backward(std::int64_t n, const T* a, const T* grad, const T* x, T* out, const Context& context);

}  // namespace mdgnn::cpu
