// SiLU of one number and its derivatives, for host and device.
#pragma once

#include "core/exp.hpp"
#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
MDGNN_HD inline T logistic(T x) {
    return T(1) / (T(1) + exp_bounded(-x));
}

// Below this the result is zero to all digits; the bounded exp would leave a tiny factor of a huge number.
template <class T>
MDGNN_HD inline T not_too_negative(T x) {
    return x < -ExpConstants<T>::limit ? -ExpConstants<T>::limit : x;
}

template <class T>
MDGNN_HD inline T silu_value(T x) {
    return not_too_negative(x) * logistic(x);
}

template <class T>
MDGNN_HD inline T silu_slope(T x) {
    const T s = logistic(x);
    return s * (T(1) + not_too_negative(x) * (T(1) - s));
}

template <class T>
MDGNN_HD inline T silu_curvature(T x) {
    const T s = logistic(x);
    return s * (T(1) - s) * (T(2) + not_too_negative(x) * (T(1) - T(2) * s));
}

}  // namespace mdgnn
