// exp by argument reduction and a polynomial, in plain arithmetic: compilers vectorise it, and every element
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
    static constexpr int mantissa_bits = 23, degree = 6;
    // Of r^6 .. r: a fit with 1 and r kept as they are, for |r| <= ln(2) / 2; rounded, relative error 3.8e-9.
    static constexpr float coefficients[] = {1.3814613e-3f, 8.36871e-3f, 4.166839e-2f, 0.16666521f, 0.49999994f, 1.0f};
};

template <>
struct ExpConstants<double> {
    using Int = std::uint64_t;
    static constexpr double limit = 708.0, round = 6755399441055744.0, log2e = 1.4426950408889634;  // 1.5 * 2^52
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr int mantissa_bits = 52, degree = 13;
    static constexpr double coefficients[] = {
        // Taylor: 1 / 13! .. 1
        1.0 / 6227020800, 1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800, 1.0 / 362880, 1.0 / 40320, 1.0 / 5040,
        1.0 / 720,        1.0 / 120,       1.0 / 24,       1.0 / 6,       1.0 / 2,      1.0};
};

// For arguments within +-limit; NaN without a payload stays NaN. V is T or a vector of them, Bits the integers of the
// same shape.
template <class T, class Bits, class V>
MDGNN_INLINE void exp_within(const V& x, V& result) {
    using C = ExpConstants<T>;
    const V zero = {};
    const V shifted = x * C::log2e + C::round;  // its low bits hold the nearest integer n to x / ln 2
    const V n = shifted - C::round;
    const V r = (x - n * C::ln2_high) - n * C::ln2_low;
    V p = zero + C::coefficients[0];
    for (int k = 1; k < C::degree; ++k) p = p * r + C::coefficients[k];
    p = p * r + T(1);
    Bits bits, value;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits <<= C::mantissa_bits;  // n, moved into the exponent
    std::memcpy(&value, &p, sizeof value);
    value += bits;
    std::memcpy(&result, &value, sizeof result);
}

// Arguments beyond +-limit are treated as the limit. On a GPU it is the GPU's exp, whose bits do not depend on where a
// number stands either.
template <class T>
MDGNN_HD inline T exp_bounded(T x) {
    constexpr T limit = ExpConstants<T>::limit;
    x = x < -limit ? -limit : x;
    x = x > limit ? limit : x;
    T result;
#if defined(__CUDA_ARCH__)
    result = exp(x);
#else
    exp_within<T, typename ExpConstants<T>::Int>(x, result);
#endif
    return result;
}

}  // namespace mdgnn
