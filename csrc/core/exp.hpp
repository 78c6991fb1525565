// exp by argument reduction and a polynomial, in plain arithmetic: compilers vectorise it, and every element
// gets the same bits whether it falls into a vector or into the remainder of a loop. Relative error below 2 ulp.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "core/host_device.hpp"
#include "core/vectors.hpp"

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

// x within low .. high, a negative and a positive number. Comparing bits takes one instruction a side, where numbers
// take two: those of negative numbers, without a sign, ascend as the numbers descend, above those of all others. NaN
// does not stay.
template <class T, class V>
MDGNN_INLINE void bound_by_bits(const V& x, T low, T high, V& bounded) {
    using Word = typename ExpConstants<T>::Int;
    using Signed = std::make_signed_t<Word>;
    using Words = std::conditional_t<std::is_same_v<V, T>, Word, typename Wide<Word, sizeof(V)>::type>;
    using SignedWords = std::conditional_t<std::is_same_v<V, T>, Signed, typename Wide<Signed, sizeof(V)>::type>;
    Signed high_bits;
    Word low_bits;
    std::memcpy(&high_bits, &high, sizeof high), std::memcpy(&low_bits, &low, sizeof low);
    const SignedWords most = SignedWords{} + high_bits;
    const Words least = Words{} + low_bits;
    SignedWords s;
    std::memcpy(&s, &x, sizeof s);
    s = s > most ? most : s;
    Words w;
    std::memcpy(&w, &s, sizeof w);
    w = w > least ? least : w;
    std::memcpy(&bounded, &w, sizeof bounded);
}

// Arguments beyond +-limit are treated as the limit. On a GPU it is the GPU's exp, whose bits do not depend on where a
// number stands either. Elsewhere there is no comparison of numbers: from those GCC makes ways for what lies beyond,
// and then no vectors of AVX2, in which SiLU took ten times as long. -fno-trapping-math gives vectors, of which some
// lanes compute what nobody asks for, so slowly (subnormal numbers) that AVX-512 took eight times as long.
template <class T>
MDGNN_HD inline T exp_bounded(T x) {
#if defined(__CUDA_ARCH__)
    constexpr T limit = ExpConstants<T>::limit;
    x = x < -limit ? -limit : x;
    x = x > limit ? limit : x;
    return exp(x);
#else
    using Int = typename ExpConstants<T>::Int;
    constexpr T limit = ExpConstants<T>::limit, infinity = std::numeric_limits<T>::infinity();
    T bounded, result;
    Int given, infinite, bits;
    std::memcpy(&given, &x, sizeof x), std::memcpy(&infinite, &infinity, sizeof x);
    bound_by_bits<T>(x, -limit, limit, bounded);
    exp_within<T, Int>(bounded, result);
    std::memcpy(&bits, &result, sizeof result);
    bits |= Int(0) - Int(Int(given << 1) > Int(infinite << 1));  // NaN stays
    std::memcpy(&result, &bits, sizeof result);
    return result;
#endif
}

}  // namespace mdgnn
