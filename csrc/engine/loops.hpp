// Loops over rows of arrays: sums and products of two or three, with broadcasting; functions of one number.
#pragma once

#include <cstdint>

#include "engine/array_view.hpp"

namespace mdgnn::engine {

// A range of numbers in rows and components. A stride of zero repeats a row (a weight) or a component.
template <class T>
struct Operand {
    const T* data = nullptr;
    std::int64_t row_stride = 0, component_stride = 0;
    bool one_channel = false;  // which stands for all

    const T* at(std::int64_t row, std::int64_t component) const {
        return data + row * row_stride + component * component_stride;
    }
};

// An array, broadcast to a shape.
template <class T>
Operand<T> broadcast(const ArrayView<const T>& x, const Shape& shape) {
    return {x.data, x.row_stride, x.shape.components == shape.components ? x.component_stride : 0,
            x.shape.channels < shape.channels};
}

// A weight over channels, of all rows and components.
template <class T>
Operand<T> of_all_rows(const T* weight) {
    return {weight, 0, 0, false};
}

enum class Binary {
    copy,         // a
    negate,       // -a
    add,          // a + b
    subtract,     // a - b
    multiply,     // a b
    divide,       // a / b
    divide_grad,  // -a b / c^2
};

// out = f(a, b, c), or out += f(a, b, c), of arrays of one shape. Where out has one component, or one channel, and the
// shape has more: the sum over them.
template <class T>
struct BinaryLoop {
    Binary function;
    Shape shape;
    Operand<T> a, b = {}, c = {};
    ArrayView<T> out;
    bool add = false;
};
template <class T>
void apply(const BinaryLoop<T>& loop, std::int64_t n_rows);

enum class Unary;  // engine/elementwise.hpp

// out = f(x). Or, with a gradient g: out = g f'(x, y), or out += that, where x or y = f(x) may be absent.
template <class T>
struct UnaryLoop {
    Unary function;
    double number = 0;
    ArrayView<const T> g, x, y;
    ArrayView<T> out;
    bool derivative = false, add = false;
};
template <class T>
void apply(const UnaryLoop<T>& loop, std::int64_t n_rows);

}  // namespace mdgnn::engine
