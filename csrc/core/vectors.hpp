// Vectors of 64 bytes for loops whose sums must stay in registers. On machines with shorter ones the compiler splits
// them; every element gets the same bits. They are never returned: machines do not agree on how.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
struct Wide {
    static constexpr std::int64_t n = 64 / sizeof(T);
    typedef T type __attribute__((vector_size(64)));
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

// The sum of a vector's elements: halves are added until two or four numbers are left.
template <class T>
MDGNN_INLINE void sum_of_lanes(const typename Wide<T>::type& v, T& sum) {
    typedef T Half __attribute__((vector_size(32)));
    typedef T Quarter __attribute__((vector_size(16)));
    Half low, high;
    std::memcpy(&low, &v, 32), std::memcpy(&high, reinterpret_cast<const char*>(&v) + 32, 32);
    low += high;
    Quarter a, b;
    std::memcpy(&a, &low, 16), std::memcpy(&b, reinterpret_cast<const char*>(&low) + 16, 16);
    a += b;
    if constexpr (sizeof(T) == 4)
        sum = (a[0] + a[2]) + (a[1] + a[3]);
    else
        sum = a[0] + a[1];
}

}  // namespace mdgnn
