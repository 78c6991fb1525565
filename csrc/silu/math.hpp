// SiLU of one number and its derivatives, for host and device.
#pragma once

#include "core/exp.hpp"
#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
MDGNN_HD inline T logistic(T x) {
    return T(1) / (T(1) + exp_bounded(-x));
}

template <class T>
MDGNN_HD inline T silu_value(T x) {
    return x * logistic(x);
}

template <class T>
MDGNN_HD inline T silu_slope(T x) {
    const T s = logistic(x);
    return s * (T(1) + x * (T(1) - s));
}

template <class T>
MDGNN_HD inline T silu_curvature(T x) {
    const T s = logistic(x);
    return s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s));
}

}  // namespace mdgnn
