// What a kind of instruction declares. Reader, planner, runner and the maker of tables ask nothing else: a new one is a
// file (a message: a folder) under engine/instructions, and its name in engine/instructions/all.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/view.hpp"
#include "engine/array_view.hpp"
#include "engine/linear.hpp"
#include "engine/plan.hpp"
#include "engine/program.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::engine {

// Shapes of what an instruction takes and gives.
struct Signature {
    std::vector<Shape> inputs, outputs;
    std::vector<std::vector<std::int64_t>> weights;
    std::int64_t n_elements = 0;  // that the model knows
};

// How many there are of something.
struct Count {
    std::size_t least = 0, most = 0;

    constexpr Count(std::size_t n) : least(n), most(n) {}  // NOLINT: a number is a count
    constexpr Count(std::size_t from, std::size_t to) : least(from), most(to) {}
    bool has(std::size_t n) const { return n >= least && n <= most; }
};
constexpr std::size_t kAnyNumber = 1 << 30;

// Arrays that the way back reads, beside the gradients.
struct ReadsBackwards {
    bool inputs = false, outputs = false;
};

// An instruction's weights as its kernels take them.
template <class T>
struct Prepared {
    std::vector<const T*> weights;
    std::vector<const Packed<T>*> forward, backward;  // of matrices
    RadialTable<T> table;                             // of a message
};

// An instruction, other than a message, and a block of rows that it treats.
template <class T>
struct Step {
    const Instruction& in;
    const Prepared<T>& prepared;
    const Block<T>& block;
    const std::int64_t* elements = nullptr;  // of the block's atoms
    const Back* back = nullptr;

    std::int64_t n_rows() const { return block.n_rows; }
    ArrayView<const T> input(std::size_t k) const { return block.value(in.inputs[k]); }
    ArrayView<T> output() const { return block.value(in.outputs[0]); }
    // Backwards. What an input needs is written, or added where something is there.
    ArrayView<const T> output_grad() const { return block.gradient(in.outputs[0]); }
    bool needs_grad(std::size_t k) const { return back->needs_grad[k]; }
    bool adds(std::size_t k) const { return back->add[k]; }
    ArrayView<T> input_grad(std::size_t k) const { return block.gradient(in.inputs[k]); }
    // Of tables: derivatives with respect to r.
    ArrayView<const T> input_tangent(std::size_t k) const { return block.gradient(in.inputs[k]); }
    ArrayView<T> output_tangent() const { return block.gradient(in.outputs[0]); }
};

constexpr std::size_t kMostOfMessage = 4;  // inputs, outputs or saved arrays

// A message, and all atoms and edges. Arrays are (N, components * channels); their pointers may be null.
template <class T>
struct MessageStep {
    template <class M>
    using Matrices = std::array<Matrix<M>, kMostOfMessage>;

    const Prepared<T>& prepared;
    Rows rows, columns;  // edges by receiver; by sender
    // Forwards in the order of rows; backwards, with their gradients, in that of columns, whose `edge` is null then.
    const T *r = nullptr, *unit = nullptr;
    const Context& context;
    Matrices<const T> inputs = {};
    Matrices<T> outputs = {}, saved = {};
    // Backwards. Gradients of inputs that nobody needs are null; those of r and unit are added to if `adds`.
    Matrices<const T> output_grads = {};
    Matrices<T> input_grads = {};
    T *grad_r = nullptr, *grad_unit = nullptr;
    bool adds = false;
};

template <class T>
struct Kernels {
    void (*forward)(const Step<T>&) = nullptr;
    void (*backward)(const Step<T>&) = nullptr;
    void (*tangent)(const Step<T>&) = nullptr;  // the derivative with respect to r; null: tables cannot have it
    void (*message)(const MessageStep<T>&) = nullptr;
    void (*message_backward)(const MessageStep<T>&) = nullptr;
};

struct Declaration {
    const char* name;
    Count inputs, outputs, weights, numbers;
    bool (*fits)(const Signature&);
    ReadsBackwards reads = {};
    bool has_matrices = false;  // its weights are packed for products, the last one beyond its inputs is a bias
    // A message takes edges: it is a phase of its own, and its inputs are whole arrays.
    bool message = false;
    bool takes_directions = false;
    bool joint_gradients = false;  // its kernel gives the gradients of all inputs, or of none
    std::vector<Shape> (*saved)(const Signature&) = nullptr;
    Kernels<float> float32 = {};
    Kernels<double> float64 = {};

    template <class T>
    const Kernels<T>& kernels() const {
        if constexpr (sizeof(T) == sizeof(float))
            return float32;
        else
            return float64;
    }
};

// The kernels of an instruction that tables have too, of templates of the type.
#define MDGNN_KERNELS(forward_, backward_, tangent_)                       \
    .float32 = {.forward = forward_<float>, .backward = backward_<float>}, \
    .float64 = {.forward = forward_<double>, .backward = backward_<double>, .tangent = tangent_}

Signature signature_of(const Program& program, const std::vector<Array>& arrays, const Instruction& in);

// Whether a weight has the shape of a table of `width` functions: (G - 1, 4, width).
inline bool is_table(const std::vector<std::int64_t>& shape, std::int64_t width) {
    return shape.size() == 3 && shape[1] == 4 && shape[2] == width;
}

}  // namespace mdgnn::engine
