// Products of tall, narrow matrices: a layer's weights with rows of atoms, and the gradients of both.
#pragma once

#include <cstdint>

namespace mdgnn {

// out(r, m) = sum_k a(r, k) b(k, m), added to what stands there if `add`. Rows of `out` and `b` are contiguous; `a` has
// any strides, and may be a transpose.
template <class T>
struct Product {
    const T* a = nullptr;
    std::int64_t a_row = 0, a_inner = 0;  // strides
    const T* b = nullptr;
    std::int64_t b_stride = 0;
    T* out = nullptr;
    std::int64_t out_stride = 0;
    std::int64_t rows = 0, inner = 0, cols = 0;
    bool add = false;
};

// Rows begin .. end of a product. The bits of a row do not depend on the others.
template <class T>
void multiply(const Product<T>& p, std::int64_t begin, std::int64_t end);

template <class T>
void multiply(const Product<T>& p) {
    multiply(p, 0, p.rows);
}

}  // namespace mdgnn
