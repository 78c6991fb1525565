// SiLU of a vector, or of a single number, on the host: silu = x s with the logistic s = 1 / (1 + exp(-x)).
#pragma once

#include <type_traits>

#include "core/exp.hpp"
#include "core/simd.hpp"
#include "core/vectors.hpp"

namespace mdgnn {

// 1 / (1 + exp(-x)) for any x in float32: with n the integer next to t, 2^t is 2^(t - n), a fit with relative error
// 1.6e-7, whose exponent grows by n. At t = 128 that gives infinity, and so a logistic of zero, lest a huge x be
// multiplied by what a bounded exp would leave. Fifteen instructions for the eighteen of exp_within.
template <class V>
MDGNN_INLINE void logistic_float(const V& x, V& s) {
    using Bits =
        std::conditional_t<std::is_same_v<V, float>, std::uint32_t, typename Wide<std::uint32_t, sizeof(V)>::type>;
    constexpr float coefficients[] = {1.3264727e-3f, 9.671513e-3f, 5.5507336e-2f, 0.24022242f, 0.693147f, 1.0f};
    constexpr float round = ExpConstants<float>::round;
    const V zero = {};
    V t, e;
    bound_by_bits<float>(V(x * -1.44269504f), -125.0f, 128.0f, t);
    const V shifted = t + round;  // its low bits hold n
    const V r = t - (shifted - round);
    V p = zero + coefficients[0];
    for (int k = 1; k < 6; ++k) p = p * r + coefficients[k];
    Bits n, value;
    std::memcpy(&n, &shifted, sizeof n), std::memcpy(&value, &p, sizeof value);
    value += n << ExpConstants<float>::mantissa_bits;
    std::memcpy(&e, &value, sizeof e);
    s = 1.0f / (1.0f + e);
}

#ifdef MDGNN_AVX512
// 1 / (1 + exp(-x)) for any x, in a function for AVX-512 alone: 2^t is 2^(t - floor t), a fit with relative
// error 9.4e-8, whose exponent grows by floor t, if need be to zero or infinity. Eight instructions for the sixteen of
// exp_within.
template <class V>
MDGNN_INLINE void logistic_avx512(const V& x, V& s) {
    constexpr float coefficients[] = {1.8671304e-3f, 9.01703e-3f, 5.5799913e-2f, 0.24016444f, 0.6931513f, 1.0f};
    const V zero = {}, t = x * -1.44269504f;
    V r, e, p = zero + coefficients[0];
    if constexpr (sizeof(V) == sizeof(float))
        asm("vreducess $1, %1, %1, %0" : "=v"(r) : "v"(t));
    else
        asm("vreduceps $1, %1, %0" : "=v"(r) : "v"(t));
    for (int k = 1; k < 6; ++k) p = p * r + coefficients[k];
    if constexpr (sizeof(V) == sizeof(float))
        asm("vscalefss %2, %1, %0" : "=v"(e) : "v"(p), "v"(t));
    else
        asm("vscalefps %2, %1, %0" : "=v"(e) : "v"(p), "v"(t));
    s = 1.0f / (1.0f + e);
}
#endif

// The argument and its logistic function, from which the derivatives follow. What the bounded exp of float64 leaves of
// the latter where nothing should be left is taken off; elsewhere that changes no digit.
template <class T, class V, bool kAvx512 = false>
struct SiluParts {
    V x, s;

    MDGNN_INLINE explicit SiluParts(const V& argument) : x(argument) {
        if constexpr (std::is_same_v<T, float>) {
#ifdef MDGNN_AVX512
            if constexpr (kAvx512) {
                logistic_avx512(x, s);
                return;
            }
#endif
            logistic_float(x, s);
        } else {
            using C = ExpConstants<double>;
            using Bits = std::conditional_t<std::is_same_v<V, T>, C::Int, typename Wide<C::Int, sizeof(V)>::type>;
            constexpr double least = 3.307553003638408e-308;  // exp(-limit)
            V bounded, e;
            bound_by_bits<T>(x, -C::limit, C::limit, bounded);
            exp_within<T, Bits>(-bounded, e);
            s = 1.0 / (1.0 + e) - least;
        }
    }
    MDGNN_INLINE void value(V& out) const { out = x * s; }
    MDGNN_INLINE void slope(V& out) const { out = s + (x * s) * (T(1) - s); }
    MDGNN_INLINE void curvature(V& out) const { out = s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s)); }
};

}  // namespace mdgnn
