// What a kernel sees of arrays and graphs: pointers and shapes. Row-major, contiguous; the caller owns the memory.
#pragma once

#include <cstdint>

#include "core/host_device.hpp"

namespace mdgnn {

template <class T>
struct Matrix {
    T* data = nullptr;  // null: the array is absent
    std::int64_t rows = 0;
    std::int64_t cols = 0;

    MDGNN_HD T* row(std::int64_t i) const { return data + i * cols; }
    MDGNN_HD explicit operator bool() const { return data != nullptr; }
};

// One side of a graph as compressed rows. Entry k of row r takes part in values[index[k]] and weight[edge[k]];
// a null index or edge means k itself.
struct Rows {
    const std::int64_t* row_ptr = nullptr;  // n_rows + 1
    const std::int64_t* index = nullptr;
    const std::int64_t* edge = nullptr;
    std::int64_t n_rows = 0;
};

// Where a kernel runs. The CPU reads n_threads; CUDA reads the device and torch's current stream.
struct Context {
    int n_threads = 1;
    int device = 0;
    void* stream = nullptr;
};

}  // namespace mdgnn
