// SiLU of a vector, or of a single number, on the host: silu = x s with the logistic s = 1 / (1 + exp(-x)).
#pragma once

#include <type_traits>

#include "core/exp.hpp"
#include "core/simd.hpp"
#include "core/vectors.hpp"

namespace mdgnn {

// x within +-limit, for exp. Comparing bits takes one instruction a side, where numbers take two: those of negative
// numbers, without a sign, ascend as the numbers descend, above those of all others. NaN does not stay.
template <class T, class V>
MDGNN_INLINE void bound_by_bits(const V& x, V& bounded) {
    using Word = typename ExpConstants<T>::Int;
    using Signed = std::make_signed_t<Word>;
    using Words = std::conditional_t<std::is_same_v<V, T>, Word, typename Wide<Word, sizeof(V)>::type>;
    using SignedWords = std::conditional_t<std::is_same_v<V, T>, Signed, typename Wide<Signed, sizeof(V)>::type>;
    constexpr T limits[] = {ExpConstants<T>::limit, -ExpConstants<T>::limit};
    Signed high;
    Word low;
    std::memcpy(&high, &limits[0], sizeof high), std::memcpy(&low, &limits[1], sizeof low);
    const SignedWords most = SignedWords{} + high;
    const Words least = Words{} + low;
    SignedWords s;
    std::memcpy(&s, &x, sizeof s);
    s = s > most ? most : s;
    Words w;
    std::memcpy(&w, &s, sizeof w);
    w = w > least ? least : w;
    std::memcpy(&bounded, &w, sizeof bounded);
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

// The argument and its logistic function, from which the derivatives follow. What the bounded exp leaves of the latter
// where nothing should be left is taken off, lest a huge number be multiplied by it; elsewhere that changes no digit.
template <class T, class V, bool kAvx512 = false>
struct SiluParts {
    V x, s;
    static constexpr T kLeast = std::is_same_v<T, float> ? T(1.6458115e-38) : T(3.307553003638408e-308);  // exp(-limit)

    MDGNN_INLINE explicit SiluParts(const V& argument) : x(argument) {
#ifdef MDGNN_AVX512
        if constexpr (kAvx512 && std::is_same_v<T, float>) {
            logistic_avx512(x, s);
            return;
        }
#endif
        using Int = typename ExpConstants<T>::Int;
        using Bits = std::conditional_t<std::is_same_v<V, T>, Int, typename Wide<Int, sizeof(V)>::type>;
        V bounded, e;
        bound_by_bits<T>(x, bounded);
        exp_within<T, Bits>(-bounded, e);
        s = T(1) / (T(1) + e) - kLeast;
    }
    MDGNN_INLINE void value(V& out) const { out = x * s; }
    MDGNN_INLINE void slope(V& out) const { out = s + (x * s) * (T(1) - s); }
    MDGNN_INLINE void curvature(V& out) const { out = s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s)); }
};

}  // namespace mdgnn
