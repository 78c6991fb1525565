// Products of tall, narrow matrices: rows of atoms or edges with a layer's weights, and the gradients of both.
#pragma once

#include <cstdint>

#include "core/aligned.hpp"
#include "core/view.hpp"

namespace mdgnn {

// out(r, m) = start + sum_k a(r, k) b(k, m); start is what stands there if `add`, else bias(m), else zero. Rows of
// `out` and `b` are contiguous; `a` has any strides, and may be a transpose.
template <class T>
struct Product {
    const T* a = nullptr;
    std::int64_t a_row = 0, a_inner = 1;  // strides
    const T* b = nullptr;
    std::int64_t b_stride = 0;
    T* out = nullptr;
    std::int64_t out_stride = 0;
    std::int64_t rows = 0, inner = 0, cols = 0;
    bool add = false;
    const T* bias = nullptr;
    const T* const* a_rows = nullptr;  // rows of a that stand anywhere, instead of `a` and `a_row`
    const T *const *start_1 = nullptr, *const *start_2 = nullptr;  // start(r, m) = start_1[r][m] + start_2[r][m]
    bool packed = false;  // rows of b go on to whole vectors, as those of `Packed`
};

// Rows begin .. end of a product. The bits of a row do not depend on the others.
template <class T>
void multiply(const Product<T>& p, std::int64_t begin, std::int64_t end);

template <class T>
void multiply(const Product<T>& p) {
    multiply(p, 0, p.rows);
}

// A weight as (inputs, outputs), its rows filled up with zeros to whole vectors.
template <class T>
class Packed {
  public:
    Packed() = default;
    // weights (rows, cols); transposed: what multiplies is their transpose.
    Packed(Matrix<const T> weights, bool transposed);

    // Whole vectors of the longest kind, as numbers.
    static constexpr std::int64_t padded(std::int64_t n) {
        constexpr std::int64_t lanes = 64 / sizeof(T);
        return (n + lanes - 1) / lanes * lanes;
    }

    std::int64_t inputs() const { return inputs_; }
    std::int64_t outputs() const { return outputs_; }
    std::int64_t stride() const { return padded(outputs_); }
    const T* data() const { return data_.data(); }

  private:
    std::int64_t inputs_ = 0, outputs_ = 0;
    AlignedVector<T> data_;
};

}  // namespace mdgnn
