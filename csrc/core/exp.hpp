// exp by argument reduction and a Taylor polynomial, in plain arithmetic: compilers vectorise it, and every element
// gets the same bits whether it falls into a vector or into the remainder of a loop. Relative error below 2 ulp.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
    using Int = std::uint32_t;
    static constexpr float limit = 87.0f, round = 12582912.0f, log2e = 1.44269504f;  // round = 1.5 * 2^23
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr int mantissa_bits = 23, degree = 7;
};

template <>
struct ExpConstants<double> {
    using Int = std::uint64_t;
    static constexpr double limit = 708.0, round = 6755399441055744.0, log2e = 1.4426950408889634;  // 1.5 * 2^52
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr int mantissa_bits = 52, degree = 13;
};

// Arguments beyond +-limit are treated as the limit; NaN stays NaN.
template <class T>
MDGNN_HD inline T exp_bounded(T x) {
    using C = ExpConstants<T>;
    x = x < -C::limit ? -C::limit : x;
    x = x > C::limit ? C::limit : x;
    const T shifted = x * C::log2e + C::round;  // its low bits hold the nearest integer n to x / ln 2
    const T n = shifted - C::round;
    const T r = (x - n * C::ln2_high) - n * C::ln2_low;
    T p = T(1);
    for (int k = C::degree; k > 0; --k) p = T(1) + p * (r * (T(1) / T(k)));  // unrolled: 1 / k is a constant
    typename C::Int bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits <<= C::mantissa_bits;  // n, moved into the exponent
    typename C::Int value;
    std::memcpy(&value, &p, sizeof value);
    value += bits;
    std::memcpy(&p, &value, sizeof p);
    return p;
}

}  // namespace mdgnn
