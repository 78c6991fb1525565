// Vectors of which the first n lanes are of interest: what is left at the end of a row.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/vectors.hpp"

namespace mdgnn::engine {

template <class V, class T>
MDGNN_INLINE void load_some(const T* from, std::int64_t n, V& to) {
    if (n == static_cast<std::int64_t>(sizeof(V) / sizeof(T))) return mdgnn::load(from, to);
    to = V{};
    if (n == 1)  // without a call
        to[0] = *from;
    else
        std::memcpy(&to, from, static_cast<std::size_t>(n) * sizeof(T));
}

template <class V, class T>
MDGNN_INLINE void store_some(const V& from, std::int64_t n, T* to) {
    if (n == static_cast<std::int64_t>(sizeof(V) / sizeof(T))) return mdgnn::store(from, to);
    if (n == 1)
        *to = from[0];
    else
        std::memcpy(to, &from, static_cast<std::size_t>(n) * sizeof(T));
}

// The others become zero.
template <class V>
MDGNN_INLINE void clear_after(std::int64_t n, V& v) {
    if (n == static_cast<std::int64_t>(sizeof v / sizeof v[0])) return;
    V first = {};
    std::memcpy(&first, &v, static_cast<std::size_t>(n) * sizeof v[0]);
    v = first;
}

}  // namespace mdgnn::engine
