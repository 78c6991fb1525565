// linear: the sum over inputs x_k W_k^T, plus b. It acts on every component alike.
//
// Products, their parallelisation and floor: core/product.cpp.
#include "engine/instruction.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
bool rows_follow(const ArrayView<T>& x) {
    return x.row_stride == x.shape.components * x.component_stride;
}

// Rows and components are rows of one product where they follow upon each other; else there is one a component.
template <class T>
void product(std::int64_t n, const ArrayView<const T>& x, const Packed<T>& weights, const T* bias, bool add,
             const ArrayView<T>& out) {
    if (rows_follow(x) && rows_follow(out)) {
        multiply<T>(n * x.shape.components, {x.data, x.component_stride, x.shape.channels}, weights, bias, add,
                    {out.data, out.component_stride, out.shape.channels});
        return;
    }
    for (std::int64_t k = 0; k < x.shape.components; ++k)
        multiply<T>(n, {x.at(0, k), x.row_stride, x.shape.channels}, weights, bias, add,
                    {out.at(0, k), out.row_stride, out.shape.channels});
}

template <class T>
const T* bias_of(const Step<T>& step) {
    return step.in.weights.size() > step.in.inputs.size() ? step.prepared.weights.back() : nullptr;
}

template <class T>
void forward(const Step<T>& step) {
    for (std::size_t k = 0; k < step.in.inputs.size(); ++k)
        product<T>(step.n_rows(), step.input(k), *step.prepared.forward[k], bias_of(step), k > 0, step.output());
}

template <class T>
void backward(const Step<T>& step) {
    for (std::size_t k = 0; k < step.in.inputs.size(); ++k)
        if (step.needs_grad(k))
            product<T>(step.n_rows(), step.output_grad(), *step.prepared.backward[k], nullptr, step.adds(k),
                       step.input_grad(k));
}

void tangent(const Step<double>& step) {
    for (std::size_t k = 0; k < step.in.inputs.size(); ++k)
        product<double>(step.n_rows(), step.input_tangent(k), *step.prepared.forward[k], nullptr, k > 0,
                        step.output_tangent());
}

bool fits(const Signature& s) {
    const std::size_t n = s.inputs.size();
    const Shape out = s.outputs[0];
    if (s.weights.size() != n && s.weights.size() != n + 1) return false;
    for (std::size_t k = 0; k < n; ++k)
        if (s.inputs[k].components != out.components ||
            s.weights[k] != std::vector<std::int64_t>{out.channels, s.inputs[k].channels})
            return false;
    return s.weights.size() == n || (s.weights[n] == std::vector<std::int64_t>{out.channels});
}

}  // namespace

extern constinit const Declaration kLinear{
    .name = "linear",
    .inputs = {1, kAnyNumber},
    .outputs = 1,
    .weights = {1, kAnyNumber},
    .numbers = 0,
    .fits = fits,
    .has_matrices = true,
    .float32 = {.forward = forward<float>, .backward = backward<float>},
    .float64 = {.forward = forward<double>, .backward = backward<double>, .tangent = tangent}};

}  // namespace mdgnn::engine
