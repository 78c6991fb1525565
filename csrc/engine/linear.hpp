// Products of rows with the weights of a layer, which are packed once.
#pragma once

#include <cstdint>

#include "core/product.hpp"

namespace mdgnn::engine {

// Some columns of an array with rows of `stride` numbers.
template <class T>
struct Columns {
    T* data = nullptr;
    std::int64_t stride = 0, cols = 0;

    T* row(std::int64_t i) const { return data + i * stride; }
    Columns<const T> view() const { return {data, stride, cols}; }
};

// out[i] = start + x[i] weights over the rows; start is what stands there if `add`, else the bias, or zero. The bits of
// a row do not depend on the others. A single output, such as an energy, is summed in double.
template <class T>
void multiply(std::int64_t n_rows, Columns<const T> x, const Packed<T>& weights, const T* bias, bool add,
              Columns<T> out);

}  // namespace mdgnn::engine
