// SiLU of a vector, or of a single number, on the host: the same operations as in math.hpp.
#pragma once

#include <type_traits>

#include "core/exp.hpp"
#include "core/vectors.hpp"

namespace mdgnn {

// The argument, not too negative, and its logistic function: silu = x s, and the derivatives follow.
template <class T, class V>
struct SiluParts {
    V x, s;

    MDGNN_INLINE explicit SiluParts(const V& argument) {
        using Int = typename ExpConstants<T>::Int;
        using Bits = std::conditional_t<std::is_same_v<V, T>, Int, typename Wide<Int, sizeof(V)>::type>;
        const V low = V{} - ExpConstants<T>::limit, high = V{} + ExpConstants<T>::limit;
        x = argument < low ? low : argument;
        V e;
        exp_within<T, Bits>(-(x > high ? high : x), e);
        s = T(1) / (T(1) + e);
    }
    MDGNN_INLINE void value(V& out) const { out = x * s; }
    MDGNN_INLINE void slope(V& out) const { out = s * (T(1) + x * (T(1) - s)); }
    MDGNN_INLINE void curvature(V& out) const { out = s * (T(1) - s) * (T(2) + x * (T(1) - T(2) * s)); }
};

}  // namespace mdgnn
