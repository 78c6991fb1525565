// A model as a list of instructions on arrays with a row, or three, for each atom. The Python model exports it; the
// engine runs it forwards and, for forces, backwards. A new model made of these instructions needs no C++.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/aligned.hpp"

namespace mdgnn::engine {

enum class Code {
    embed,                 // (F) of the atom's element; weight: (elements, F)
    zeros,                 // nothing yet
    linear,                // sum over inputs k of x_k W_k^T, plus b; weights: W_k (outputs, inputs), then b if there
    add,                   // x + y + ...
    multiply,              // x * y
    scale_vectors,         // x * v: (F) and (3, F) -> (3, F)
    dot,                   // sum over components of v * w -> (F)
    divide,                // x / s, s of one column
    plus,                  // x + constant
    at_least,              // max(x, constant)
    root,                  // sqrt(x + constant)
    silu,                  // x / (1 + exp(-x))
    shifted_softplus,      // log((1 + exp(x)) / 2)
    concat_message_table,  // (2 H) -> (H), (1), and (H) which the backward needs; weight: the table
    cfconv,                // (C) -> (C); weight: the table
    painn_message,         // (3 F), (3, F) -> (F), (3, F); weight: the table
};

// An array: `blocks` rows of `cols` numbers for each atom. Or some columns of another one, `base`.
struct Value {
    std::int64_t blocks = 1, cols = 0, base = -1, first = 0;
};

struct Instruction {
    Code code;
    std::vector<int> inputs, outputs, weights;
    double constant = 0;
};

template <class T>
struct Weight {
    std::vector<std::int64_t> shape;
    AlignedVector<T> data;
};

template <class T>
struct Program {
    std::vector<Value> values;
    std::vector<Instruction> instructions;
    std::vector<Weight<T>> weights;
    int energies = -1;                     // (1) for each atom, before scale and shift
    std::vector<double> scale, shift;      // of each row of the embedding
    std::vector<std::int64_t> element_of;  // row of the embedding by atomic number; -1 where the model knows none
    double cutoff = 0;                     // where the tables end
};

Code code_of(const std::string& name);
const char* name_of(Code code);
bool is_message(Code code);

// Throws std::invalid_argument, with a sentence, unless every instruction fits its arrays and weights.
template <class T>
void check(const Program<T>& program);

}  // namespace mdgnn::engine
