// Programs from JSON and named weights, of files and of Python alike; what they say is not trusted.
//
// A program is an object with these keys and no others:
//   version       2, or 3 where there are properties
//   dtype         "float32" or "float64", of all weights
//   readout       "sum" or "mean" of the atoms' energies
//   cutoff        null is infinity
//   arrays        [[space, components, channels], ...], or [space, components, channels, base, first component, first
//                 channel] of a range of another array
//   instructions  [{"op", "inputs", "outputs", "weights", "numbers"}, ...]; inputs and outputs are numbers of arrays,
//                 weights are names: of tables below, or of weights
//   tables        [{"name", "knots", "cutoff", "arrays", "instructions", "input", "output"}, ...]
//   energies, scale, shift, element_of: as in engine/program.hpp; in version 3 the energies may be null: there are none
//   properties    [{"name", "kind", "array", "scale", "shift"}, ...], one or more; in version 3 alone
//
// Version 1, of the first files with programs, has other keys (engine/reader_version_1.cpp).
#pragma once

#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "engine/json.hpp"
#include "engine/program.hpp"

namespace mdgnn::engine {

// The shape and the numbers of the weight of a name. Throws std::invalid_argument where there is none, or another
// dtype; `what` names who asks.
template <class T>
using WeightSource = std::function<std::pair<std::vector<std::int64_t>, AlignedVector<T>>(const std::string& name,
                                                                                          const std::string& what)>;

struct Model {
    Program program;
    std::variant<Weights<float>, Weights<double>> weights;
};

// Both throw std::invalid_argument, with a sentence, unless there is a program that passes `check`. `version`: 1 to 3.
std::string dtype_of(const JsonValue& from);
template <class T>
Model read_program(const JsonValue& from, std::int64_t version, const WeightSource<T>& source);

// The text of version 2 or, for a program with properties, 3; equal programs have equal texts.
std::string write_program(const Program& program, const std::string& dtype);

}  // namespace mdgnn::engine
