// The per-element maths of scatter_add, shared by cpu.cpp and cuda.cu. Each function computes what one (row, feature)
// or one edge needs, in edge order, so that a sum never depends on threads or on the device's scheduling.
#pragma once

#include "ops/scatter_add/scatter_add.hpp"

namespace mdgnn {

MDGNN_HD inline std::int64_t entry(const std::int64_t* array, std::int64_t k) { return array ? array[k] : k; }

template <class T>
MDGNN_HD T weight_of(const T* weight, const Rows& rows, std::int64_t k) {
    return weight ? weight[entry(rows.edge, k)] : T(1);
}

// 1 for a sum, 1 / number of entries for a mean.
template <class T>
MDGNN_HD T row_scale(const Rows& rows, std::int64_t i, Reduce reduce) {
    const std::int64_t count = rows.row_ptr[i + 1] - rows.row_ptr[i];
    return reduce == Reduce::mean && count > 1 ? T(1) / T(count) : T(1);
}

// A NaN wins and stays, so that a broken value is seen; equal values keep the first.
template <class T>
MDGNN_HD bool replaces_maximum(T candidate, T best) {
    return candidate > best || (candidate != candidate && best == best);
}

}  // namespace mdgnn
