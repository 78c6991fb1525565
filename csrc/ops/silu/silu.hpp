// SiLU, y = x s(x) with the logistic s(x) = 1 / (1 + exp(-x)), and its derivatives, element by element.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace mdgnn::cpu {

// out = silu(x)
template <class T>
void silu(std::int64_t n, const T* x, T* out, const Context& context);

// out = grad silu'(x)
template <class T>
void silu_backward(std::int64_t n, const T* grad, const T* x, T* out, const Context& context);

// out = grad2 grad silu''(x): the derivative of <grad2, grad silu'(x)> with respect to x
template <class T>
void silu_double_backward(std::int64_t n, const T* grad2, const T* grad, const T* x, T* out, const Context& context);

}  // namespace mdgnn::cpu
