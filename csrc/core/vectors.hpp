// Vectors for loops whose sums must stay in registers (see simd.hpp for their width), and shorter ones for what is left
// at the end. They are never returned: machines do not agree on how. a * b + c is one instruction where the machine has
// it and the file may contract (CMakeLists.txt): in functions for several levels there is no other way to say so.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.hpp"

namespace mdgnn {

template <class T, int kBytes>
struct Wide {
    static constexpr std::int64_t n = kBytes / sizeof(T);
    typedef T type __attribute__((vector_size(kBytes)));
};

// V: a vector, or a single number for what is left of a loop.
template <class V, class T>
MDGNN_INLINE void load(const T* from, V& to) {
    std::memcpy(&to, from, sizeof to);
}

template <class V, class T>
MDGNN_INLINE void store(const V& from, T* to) {
    std::memcpy(to, &from, sizeof from);
}

// Of which the first n lanes are of interest: what is left at the end of a row.
template <class V, class T>
MDGNN_INLINE void load_some(const T* from, std::int64_t n, V& to) {
    if (n == static_cast<std::int64_t>(sizeof(V) / sizeof(T))) return load(from, to);
    to = V{};
    if (n == 1)  // without a call
        to[0] = *from;
    else
        std::memcpy(&to, from, static_cast<std::size_t>(n) * sizeof(T));
}

template <class V, class T>
MDGNN_INLINE void store_some(const V& from, std::int64_t n, T* to) {
    if (n == static_cast<std::int64_t>(sizeof(V) / sizeof(T))) return store(from, to);
    if (n == 1)
        *to = from[0];
    else
        std::memcpy(to, &from, static_cast<std::size_t>(n) * sizeof(T));
}

// The sum of a vector's elements: halves are added until one is left.
template <class T, class V>
MDGNN_INLINE void sum_of_lanes(const V& v, T& sum) {
    if constexpr (sizeof(V) == 2 * sizeof(T)) {
        sum = v[0] + v[1];
    } else if constexpr (sizeof(V) == sizeof(T)) {
        sum = v;
    } else {
        typename Wide<T, sizeof(V) / 2>::type low, high;
        std::memcpy(&low, &v, sizeof low);
        std::memcpy(&high, reinterpret_cast<const char*>(&v) + sizeof low, sizeof high);
        low += high;
        sum_of_lanes(low, sum);
    }
}

}  // namespace mdgnn
