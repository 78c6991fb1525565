// One Gaussian of the basis and its derivatives, for host and device.
#pragma once

#include "core/exp.hpp"
#include "core/host_device.hpp"

namespace mdgnn {

// x = r - centre, s = sharpness
template <class T>
MDGNN_HD inline T gaussian(T x, T s) {
    return exp_bounded(-(x * x) * s);
}

template <class T>
MDGNN_HD inline T gaussian_slope(T x, T s) {
    return gaussian(x, s) * (T(-2) * s * x);
}

template <class T>
MDGNN_HD inline T gaussian_curvature(T x, T s) {
    return gaussian(x, s) * (T(4) * s * s * x * x - T(2) * s);
}

}  // namespace mdgnn
