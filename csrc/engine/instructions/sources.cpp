// Where arrays begin: embed, the row of a weight that an atom's element has; and zeros.
//
// Parallelisation: none; a block of rows is one thread's. Memory traffic: what is written.
#include <algorithm>

#include "engine/instructions/all.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
void embed(const Step<T>& step) {
    const ArrayView<T> out = step.output();
    const std::int64_t n = out.shape.channels;
    for (std::int64_t i = 0; i < step.n_rows(); ++i)
        std::copy_n(step.prepared.weights[0] + step.elements[i] * n, n, out.at(i, 0));
}

template <class T>
void zeros(const Step<T>& step) {
    const ArrayView<T> out = step.output();
    std::fill_n(out.data, step.n_rows() * out.shape.size(), T(0));
}

void zeros_tangent(const Step<double>& step) {
    const ArrayView<double> out = step.output_tangent();
    std::fill_n(out.data, step.n_rows() * out.shape.size(), 0.0);
}

template <class T>
void nothing(const Step<T>&) {}

bool is_embedding(const Signature& s) {
    return s.outputs[0].components == 1 &&
           s.weights[0] == std::vector<std::int64_t>{s.n_elements, s.outputs[0].channels};
}

bool any(const Signature&) { return true; }

constexpr Declaration kDeclarations[] = {
    {.name = "embed",
     .inputs = 0,
     .outputs = 1,
     .weights = 1,
     .numbers = 0,
     .fits = is_embedding,
     .float32 = {.forward = embed<float>, .backward = nothing<float>},
     .float64 = {.forward = embed<double>, .backward = nothing<double>}},
    {.name = "zeros",
     .inputs = 0,
     .outputs = 1,
     .weights = 0,
     .numbers = 0,
     .fits = any,
     .float32 = {.forward = zeros<float>, .backward = nothing<float>},
     .float64 = {.forward = zeros<double>, .backward = nothing<double>, .tangent = zeros_tangent}},
};

}  // namespace

std::span<const Declaration> sources() { return kDeclarations; }

}  // namespace mdgnn::engine
