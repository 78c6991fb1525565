// Pieces of layers on the CPU: products with blocks of arrays, gradients of weights. Rows are those of atoms.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/product.hpp"
#include "core/thread_pool.hpp"
#include "core/view.hpp"

namespace mdgnn::cpu {

constexpr std::int64_t kRows = 256;       // of a share
constexpr std::int64_t kWeightRows = 12;  // of a share: a multiple of a tile's rows
constexpr std::int64_t kWork = 1 << 21;   // multiply-adds that are worth a thread

// Some columns of an array, from some row on.
template <class T>
struct Block {
    T* data = nullptr;
    std::int64_t stride = 0, cols = 0;

    Block(T* data, std::int64_t stride, std::int64_t cols) : data(data), stride(stride), cols(cols) {}
    Block(const Matrix<T>& m, std::int64_t row = 0) : data(m.row(row)), stride(m.cols), cols(m.cols) {}
    Block columns(std::int64_t first, std::int64_t n) const { return {data + first, stride, n}; }
    T* row(std::int64_t i) const { return data + i * stride; }
};

// out = x w over rows of x, w (columns of x, columns of out); kAdd: added to it.
template <bool kAdd, class T>
void multiply(std::int64_t n_rows, const Block<const T>& x, const Block<const T>& w, const Block<T>& out) {
    mdgnn::multiply(
        Product<T>{x.data, x.stride, 1, w.data, w.stride, out.data, out.stride, n_rows, x.cols, out.cols, kAdd});
}

// Memory for an array, whose contents are not set.
template <class T>
struct Array {
    std::unique_ptr<T[]> numbers;
    Matrix<T> view;

    Array(std::int64_t rows, std::int64_t cols)
        : numbers(new T[static_cast<std::size_t>(rows * cols)]), view{numbers.get(), rows, cols} {}
};

template <class T>
Matrix<const T> constant(const Matrix<T>& m) {
    return {m.data, m.rows, m.cols};
}

// By tiles of 8 x 8, whose lines stay in the nearest cache.
template <class T>
void transpose(const Matrix<const T>& m, std::int64_t first_column, std::int64_t n_columns, const Block<T>& out) {
    constexpr std::int64_t tile = 8;
    for (std::int64_t r = 0; r < m.rows; r += tile)
        for (std::int64_t c = 0; c < n_columns; ++c) {
            const std::int64_t end = std::min(r + tile, m.rows);
            for (std::int64_t k = r; k < end; ++k) out.row(c)[k] = m.row(k)[first_column + c];
        }
}

// The gradients of weights, as products that are shared out by their rows.
template <class T>
class WeightGradients {
  public:
    explicit WeightGradients(std::int64_t n_rows) : n_rows_(n_rows) {}

    // out = grad^T x; nothing where out is absent.
    void add(const Block<const T>& grad, const Block<const T>& x, const Block<T>& out) {
        if (!out.data) return;
        const std::size_t k = products_.size();
        products_.push_back(
            {grad.data, 1, grad.stride, x.data, x.stride, out.data, out.stride, grad.cols, n_rows_, x.cols});
        for (std::int64_t r = 0; r < grad.cols; r += kWeightRows)
            shares_.push_back({k, r, std::min(r + kWeightRows, grad.cols)});
    }

    // out = factors^T x for one factor a row; 1 where there are none.
    void add_bias(const T* factors, const Block<const T>& x, T* out) {
        if (!out) return;
        if (!factors && ones_.empty()) ones_.assign(static_cast<std::size_t>(n_rows_), T(1));
        add({factors ? factors : ones_.data(), 1, 1}, x, {out, x.cols, x.cols});
    }

    void run(const Context& context) const {
        const std::int64_t grain = 1 + kWork / (kWeightRows * 64 * std::max<std::int64_t>(n_rows_, 1));
        parallel_for(static_cast<std::int64_t>(shares_.size()), grain, context.n_threads,
                     [&](std::int64_t begin, std::int64_t end) {
                         for (std::int64_t s = begin; s < end; ++s) {
                             const Share& share = shares_[static_cast<std::size_t>(s)];
                             mdgnn::multiply(products_[share.product], share.begin, share.end);
                         }
                     });
    }

  private:
    struct Share {
        std::size_t product;
        std::int64_t begin, end;
    };
    std::int64_t n_rows_;
    std::vector<T> ones_;
    std::vector<Product<T>> products_;
    std::vector<Share> shares_;
};

}  // namespace mdgnn::cpu
