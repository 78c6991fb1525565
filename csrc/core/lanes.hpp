// Sums of many terms: partial sums over lanes, combined in a fixed order. Wide enough to vectorise; the same bits on
// every machine where contraction is off.
#pragma once

#include <cstdint>

namespace mdgnn {

// The sum of term(0) .. term(n - 1). Inlined, so that it takes the instruction set of the function that calls it.
template <class T, class F>
inline __attribute__((always_inline)) T sum_lanes(std::int64_t n, F&& term) {
    constexpr std::int64_t n_lanes = 16;
    T lanes[n_lanes] = {};
    std::int64_t i = 0;
    for (; i + n_lanes <= n; i += n_lanes)
        for (std::int64_t l = 0; l < n_lanes; ++l) lanes[l] += term(i + l);
    for (; i < n; ++i) lanes[i % n_lanes] += term(i);
    for (std::int64_t half = n_lanes / 2; half > 0; half /= 2)
        for (std::int64_t l = 0; l < half; ++l) lanes[l] += lanes[l + half];
    return lanes[0];
}

}  // namespace mdgnn
