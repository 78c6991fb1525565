// What a kernel sees of an array: a pointer and its shape. Row-major, contiguous; the caller owns the memory.
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

// Where a kernel runs. The CPU reads n_threads; CUDA reads the device and torch's current stream.
struct Context {
    int n_threads = 1;
    int device = 0;
    void* stream = nullptr;
};

}  // namespace mdgnn
