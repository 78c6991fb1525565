// Helpers for the thin binding files. Tensors cross as integer addresses (0: absent), checked in Python: neither torch
// nor a tensor protocol is needed here.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <tuple>
#include <utility>
#include <vector>

#include "core/view.hpp"

namespace mdgnn {

using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

// Calls f with a value of the floating type whose size is `itemsize`.
template <class F>
void dispatch_float(int itemsize, F&& f) {
    if (itemsize == 4) return f(float{});
    if (itemsize == 8) return f(double{});
    throw std::invalid_argument("expected float32 or float64, got a type of " + std::to_string(itemsize) + " bytes");
}

using RowsTuple = std::tuple<Address, Address, Address, std::int64_t>;  // row_ptr, index, edge, n_rows
using MatrixTuple = std::tuple<Address, std::int64_t, std::int64_t>;    // data, rows, cols
using ContextTuple = std::tuple<int, int, Address>;                     // n_threads, device, stream

inline Rows rows(const RowsTuple& t) {
    return {pointer<const std::int64_t>(std::get<0>(t)), pointer<const std::int64_t>(std::get<1>(t)),
            pointer<const std::int64_t>(std::get<2>(t)), std::get<3>(t)};
}

template <class T>
Matrix<T> matrix(const MatrixTuple& t) {
    return {pointer<T>(std::get<0>(t)), std::get<1>(t), std::get<2>(t)};
}

inline Context context(const ContextTuple& t) {
    return {std::get<0>(t), std::get<1>(t), pointer<void>(std::get<2>(t))};
}

// Hands a vector's memory to numpy without a copy.
template <class T>
pybind11::array_t<T> to_numpy(std::vector<T>&& values, std::vector<pybind11::ssize_t> shape) {
    auto owner = std::make_unique<std::vector<T>>(std::move(values));
    T* data = owner->data();
    pybind11::capsule keep(owner.release(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return pybind11::array_t<T>(std::move(shape), data, keep);
}

}  // namespace mdgnn
