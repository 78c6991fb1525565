// Vectors of 64 bytes for loops whose sums must stay in registers. On machines with shorter ones the compiler splits
// them; every element gets the same bits. They are never returned: machines do not agree on how.
#pragma once

#include <cstdint>
#include <cstring>

namespace mdgnn {

template <class T>
struct Wide {
    static constexpr std::int64_t n = 64 / sizeof(T);
    typedef T type __attribute__((vector_size(64)));
};

// V: a vector, or a single number for what is left of a loop.
template <class V, class T>
inline __attribute__((always_inline)) void load(const T* from, V& to) {
    std::memcpy(&to, from, sizeof to);
}

template <class V, class T>
inline __attribute__((always_inline)) void store(const V& from, T* to) {
    std::memcpy(to, &from, sizeof from);
}

}  // namespace mdgnn
