// Helpers for what pybind11 binds: neighbour lists and engines. Tensors cross as integer addresses (0: absent), checked
// in Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <tuple>

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

inline Rows rows(const RowsTuple& t) {
    return {pointer<const std::int64_t>(std::get<0>(t)), pointer<const std::int64_t>(std::get<1>(t)),
            pointer<const std::int64_t>(std::get<2>(t)), std::get<3>(t)};
}

}  // namespace mdgnn
