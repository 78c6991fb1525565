// SiLU of one number and its derivatives, for host and device.
#pragma once

#include "core/exp.hpp"
#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
MDGNN_HD inline T logistic(T x) {
    return T(1) / (T(1) + exp_bounded(-x));
}

// Below this the result is zero to all digits; the bounded exp would leave a tiny factor of a huge number. NaN need not
// stay: the logistic is NaN, too.
template <class T>
MDGNN_HD inline T not_too_negative(T x) {
#if defined(__CUDA_ARCH__)
    return x < -ExpConstants<T>::limit ? -ExpConstants<T>::limit : x;
#else
    bound_by_bits<T>(x, -ExpConstants<T>::limit, std::numeric_limits<T>::infinity(), x);
    return x;
#endif
}

// The argument, not too negative, and its logistic function: for those who want several of what follows.
template <class T>
struct SiluOfOne {
    T x, s;

    MDGNN_HD explicit SiluOfOne(T argument) : x(not_too_negative(argument)), s(logistic(argument)) {}
    MDGNN_HD T value() const { return x * s; }
    MDGNN_HD T slope() const { return s * (T(1) + x * (T(1) - s)); }
    MDGNN_HD T curvature() const { return s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s)); }
};

template <class T>
MDGNN_HD inline T silu_value(T x) {
    return SiluOfOne<T>(x).value();
}

template <class T>
MDGNN_HD inline T silu_slope(T x) {
    return SiluOfOne<T>(x).slope();
}

template <class T>
MDGNN_HD inline T silu_curvature(T x) {
    return SiluOfOne<T>(x).curvature();
}

}  // namespace mdgnn
