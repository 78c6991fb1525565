// Sums over components or channels: sum_components, sum_channels, and dot, the sum over components of x y.
//
// Loops, their parallelisation and memory traffic: engine/loops.cpp.
#include "engine/instructions/all.hpp"
#include "engine/loops.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
Operand<T> input(const Step<T>& step, std::size_t k) {
    const ArrayView<const T> x = step.input(k);
    return broadcast<T>(x, x.shape);
}

template <class T>
Operand<T> output_grad(const Step<T>& step) {
    return broadcast<T>(step.output_grad(), step.input(0).shape);
}

// --- sum_components, sum_channels ------------------------------------------------------------------------------------

template <class T>
void sum(const Step<T>& step) {
    apply<T>({Binary::copy, step.input(0).shape, input(step, 0), {}, {}, step.output()}, step.n_rows());
}

template <class T>
void sum_backward(const Step<T>& step) {
    if (!step.needs_grad(0)) return;
    apply<T>({Binary::copy, step.input(0).shape, output_grad(step), {}, {}, step.input_grad(0), step.adds(0)},
             step.n_rows());
}

void sum_tangent(const Step<double>& step) {
    const ArrayView<const double> x = step.input_tangent(0);
    apply<double>({Binary::copy, x.shape, broadcast<double>(x, x.shape), {}, {}, step.output_tangent()}, step.n_rows());
}

bool sums_components(const Signature& s) { return s.outputs[0] == Shape{1, s.inputs[0].channels}; }
bool sums_channels(const Signature& s) { return s.outputs[0] == Shape{s.inputs[0].components, 1}; }

// --- dot -------------------------------------------------------------------------------------------------------------

template <class T>
void dot(const Step<T>& step) {
    apply<T>({Binary::multiply, step.input(0).shape, input(step, 0), input(step, 1), {}, step.output()}, step.n_rows());
}

template <class T>
void dot_backward(const Step<T>& step) {
    for (std::size_t k : {0, 1})
        if (step.needs_grad(k))
            apply<T>({Binary::multiply,
                      step.input(k).shape,
                      output_grad(step),
                      input(step, 1 - k),
                      {},
                      step.input_grad(k),
                      step.adds(k)},
                     step.n_rows());
}

void dot_tangent(const Step<double>& step) {
    for (std::size_t k : {0, 1}) {
        const ArrayView<const double> dx = step.input_tangent(k);
        apply<double>({Binary::multiply,
                       dx.shape,
                       broadcast<double>(dx, dx.shape),
                       input(step, 1 - k),
                       {},
                       step.output_tangent(),
                       k > 0},
                      step.n_rows());
    }
}

bool is_dot(const Signature& s) { return s.inputs[0] == s.inputs[1] && sums_components(s); }

constexpr Declaration kDeclarations[] = {
    {.name = "sum_components",
     .inputs = 1,
     .outputs = 1,
     .weights = 0,
     .numbers = 0,
     .fits = sums_components,
     MDGNN_KERNELS(sum, sum_backward, sum_tangent)},
    {.name = "sum_channels",
     .inputs = 1,
     .outputs = 1,
     .weights = 0,
     .numbers = 0,
     .fits = sums_channels,
     MDGNN_KERNELS(sum, sum_backward, sum_tangent)},
    {.name = "dot",
     .inputs = 2,
     .outputs = 1,
     .weights = 0,
     .numbers = 0,
     .fits = is_dot,
     .reads = {.inputs = true},
     MDGNN_KERNELS(dot, dot_backward, dot_tangent)},
};

}  // namespace

std::span<const Declaration> reductions() { return kDeclarations; }

}  // namespace mdgnn::engine
