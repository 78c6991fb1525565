// Sums, differences, products and quotients of arrays, in which one component or one channel stands for all; and the
// same with a weight over channels.
//
// Loops, their parallelisation and memory traffic: engine/loops.cpp. The gradient of what was broadcast is a sum, in
// the same pass.
#include <algorithm>

#include "engine/instructions/all.hpp"
#include "engine/loops.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
Operand<T> input(const Step<T>& step, std::size_t k) {
    return broadcast<T>(step.input(k), step.output().shape);
}

template <class T>
Operand<T> input_tangent(const Step<T>& step, std::size_t k) {
    return broadcast<T>(step.input_tangent(k), step.output().shape);
}

// To the gradient of input k, if it needs one: f(a, b, c) of the shape of the output.
template <class T>
void give(const Step<T>& step, std::size_t k, Binary f, const Operand<T>& a, const Operand<T>& b = {},
          const Operand<T>& c = {}) {
    if (step.needs_grad(k))
        apply<T>({f, step.output().shape, a, b, c, step.input_grad(k), step.adds(k)}, step.n_rows());
}

template <class T>
Operand<T> output_grad(const Step<T>& step) {
    return broadcast<T>(step.output_grad(), step.output().shape);
}

// out = f(a, b, c), or out += f(a, b, c), of one shape.
template <class T>
void write(const Step<T>& step, const ArrayView<T>& out, bool add, Binary f, const Operand<T>& a,
           const Operand<T>& b = {}, const Operand<T>& c = {}) {
    apply<T>({f, out.shape, a, b, c, out, add}, step.n_rows());
}

// --- add: x + y + ... ------------------------------------------------------------------------------------------------

template <class T, class Input>
void sum(const Step<T>& step, const ArrayView<T>& out, const Input& x) {
    const std::size_t n = step.in.inputs.size();
    if (n == 1) return write(step, out, false, Binary::copy, x(0));
    write(step, out, false, Binary::add, x(0), x(1));
    for (std::size_t k = 2; k < n; ++k) write(step, out, true, Binary::copy, x(k));
}

template <class T>
void add(const Step<T>& step) {
    sum(step, step.output(), [&](std::size_t k) { return input(step, k); });
}

template <class T>
void add_backward(const Step<T>& step) {
    for (std::size_t k = 0; k < step.in.inputs.size(); ++k) give(step, k, Binary::copy, output_grad(step));
}

void add_tangent(const Step<double>& step) {
    sum(step, step.output_tangent(), [&](std::size_t k) { return input_tangent(step, k); });
}

// --- subtract: x - y -------------------------------------------------------------------------------------------------

template <class T>
void subtract(const Step<T>& step) {
    write(step, step.output(), false, Binary::subtract, input(step, 0), input(step, 1));
}

template <class T>
void subtract_backward(const Step<T>& step) {
    give(step, 0, Binary::copy, output_grad(step));
    give(step, 1, Binary::negate, output_grad(step));
}

void subtract_tangent(const Step<double>& step) {
    write(step, step.output_tangent(), false, Binary::subtract, input_tangent(step, 0), input_tangent(step, 1));
}

// --- multiply: x y ---------------------------------------------------------------------------------------------------

template <class T>
void multiply(const Step<T>& step) {
    write(step, step.output(), false, Binary::multiply, input(step, 0), input(step, 1));
}

template <class T>
void multiply_backward(const Step<T>& step) {
    give(step, 0, Binary::multiply, output_grad(step), input(step, 1));
    give(step, 1, Binary::multiply, output_grad(step), input(step, 0));
}

void multiply_tangent(const Step<double>& step) {
    write(step, step.output_tangent(), false, Binary::multiply, input_tangent(step, 0), input(step, 1));
    write(step, step.output_tangent(), true, Binary::multiply, input(step, 0), input_tangent(step, 1));
}

// --- divide: x / y ---------------------------------------------------------------------------------------------------

template <class T>
void divide(const Step<T>& step) {
    write(step, step.output(), false, Binary::divide, input(step, 0), input(step, 1));
}

template <class T>
void divide_backward(const Step<T>& step) {
    give(step, 0, Binary::divide, output_grad(step), input(step, 1));
    give(step, 1, Binary::divide_grad, output_grad(step), input(step, 0), input(step, 1));
}

void divide_tangent(const Step<double>& step) {
    write(step, step.output_tangent(), false, Binary::divide, input_tangent(step, 0), input(step, 1));
    write(step, step.output_tangent(), true, Binary::divide_grad, input(step, 0), input_tangent(step, 1),
          input(step, 1));
}

// --- add_weight: x + w, multiply_weight: x w -------------------------------------------------------------------------

template <Binary f, class T>
void with_weight(const Step<T>& step) {
    write(step, step.output(), false, f, input(step, 0), of_all_rows(step.prepared.weights[0]));
}

template <class T>
void multiply_weight_backward(const Step<T>& step) {
    give(step, 0, Binary::multiply, output_grad(step), of_all_rows(step.prepared.weights[0]));
}

void multiply_weight_tangent(const Step<double>& step) {
    write(step, step.output_tangent(), false, Binary::multiply, input_tangent(step, 0),
          of_all_rows(step.prepared.weights[0]));
}

// --- copy: x, from a range of an array, or broadcast -----------------------------------------------------------------

template <class T>
void copy(const Step<T>& step) {
    write(step, step.output(), false, Binary::copy, input(step, 0));
}

// --- shapes ----------------------------------------------------------------------------------------------------------

// Every input is of the output's shape, or has one component or one channel that stands for all; `whole`: in each
// direction one of them has as many as the output.
bool fit(const Signature& s, bool whole) {
    const Shape out = s.outputs[0];
    Shape most{0, 0};
    for (const Shape& x : s.inputs) {
        if ((x.components != 1 && x.components != out.components) || (x.channels != 1 && x.channels != out.channels))
            return false;
        most = {std::max(most.components, x.components), std::max(most.channels, x.channels)};
    }
    return !whole || most == out;
}

bool broadcasts(const Signature& s) { return fit(s, true); }

bool copies(const Signature& s) { return fit(s, false); }

bool weighted(const Signature& s) {
    return s.weights[0] == std::vector<std::int64_t>{s.outputs[0].channels} && fit(s, false) &&
           s.inputs[0].components == s.outputs[0].components;
}

template <class T>
constexpr auto add_weight = with_weight<Binary::add, T>;
template <class T>
constexpr auto multiply_weight = with_weight<Binary::multiply, T>;

constexpr Count kOneOrMore{1, kAnyNumber};

// The name is that of the forward; `reads_inputs`: backwards.
#define MDGNN_ROW(op, inputs_, weights_, fits_, reads_inputs, backward_, tangent_) \
    {.name = #op,                                                                  \
     .inputs = inputs_,                                                            \
     .outputs = 1,                                                                 \
     .weights = weights_,                                                          \
     .numbers = 0,                                                                 \
     .fits = fits_,                                                                \
     .reads = {.inputs = reads_inputs},                                            \
     MDGNN_KERNELS(op, backward_, tangent_)}

constexpr Declaration kDeclarations[] = {
    MDGNN_ROW(add, kOneOrMore, 0, broadcasts, false, add_backward, add_tangent),
    MDGNN_ROW(subtract, 2, 0, broadcasts, false, subtract_backward, subtract_tangent),
    MDGNN_ROW(multiply, 2, 0, broadcasts, true, multiply_backward, multiply_tangent),
    MDGNN_ROW(divide, 2, 0, broadcasts, true, divide_backward, divide_tangent),
    MDGNN_ROW(add_weight, 1, 1, weighted, false, add_backward, add_tangent),
    MDGNN_ROW(multiply_weight, 1, 1, weighted, false, multiply_weight_backward, multiply_weight_tangent),
    MDGNN_ROW(copy, 1, 0, copies, false, add_backward, add_tangent),
};
#undef MDGNN_ROW

}  // namespace

std::span<const Declaration> arithmetic() { return kDeclarations; }

}  // namespace mdgnn::engine
