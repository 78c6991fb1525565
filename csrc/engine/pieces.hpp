// What is left at the end of a row: beside load_some and store_some of core/vectors.hpp.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/vectors.hpp"

namespace mdgnn::engine {

// Those beyond the first n become zero.
template <class V>
MDGNN_INLINE void clear_after(std::int64_t n, V& v) {
    if (n == static_cast<std::int64_t>(sizeof v / sizeof v[0])) return;
    V first = {};
    std::memcpy(&first, &v, static_cast<std::size_t>(n) * sizeof v[0]);
    v = first;
}

}  // namespace mdgnn::engine
