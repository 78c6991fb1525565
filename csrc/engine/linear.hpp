// Products of tall, narrow matrices with the weights of a layer, which are packed once.
#pragma once

#include <cstdint>
#include <vector>

#include "core/aligned.hpp"
#include "core/view.hpp"

namespace mdgnn::engine {

// A weight as (inputs, outputs), its rows filled up with zeros to whole vectors.
template <class T>
class Packed {
  public:
    Packed() = default;
    // weights (rows, cols); transposed: what multiplies is their transpose.
    Packed(Matrix<const T> weights, bool transposed);

    std::int64_t inputs() const { return inputs_; }
    std::int64_t outputs() const { return outputs_; }
    std::int64_t stride() const { return stride_; }
    const T* data() const { return data_.data(); }

  private:
    std::int64_t inputs_ = 0, outputs_ = 0, stride_ = 0;
    AlignedVector<T> data_;
};

// Some columns of an array with rows of `stride` numbers.
template <class T>
struct Columns {
    T* data = nullptr;
    std::int64_t stride = 0, cols = 0;

    T* row(std::int64_t i) const { return data + i * stride; }
    Columns<const T> view() const { return {data, stride, cols}; }
};

// out[i] = start + x[i] weights over the rows; start is what stands there if `add`, else the bias, or zero. The bits of
// a row do not depend on the others.
template <class T>
void multiply(std::int64_t n_rows, Columns<const T> x, const Packed<T>& weights, const T* bias, bool add,
              Columns<T> out, const Context& context);

}  // namespace mdgnn::engine
