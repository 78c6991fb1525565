// A model as a list of instructions on arrays of atoms, and tables of functions of the distance. Python captures it
// from a model; the engine runs it forwards and, for forces, backwards. A new model made of these instructions needs no
// C++.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/aligned.hpp"

namespace mdgnn::engine {

struct Declaration;  // of a kind of instruction: engine/instruction.hpp

// What an array has a row for.
enum class Space { atom, edge };

// Of a row: components (3 of a vector, (l + 1)^2 of a spherical tensor, 1 of scalars), each of as many channels.
struct Shape {
    std::int64_t components = 1, channels = 0;

    std::int64_t size() const { return components * channels; }
    bool operator==(const Shape&) const = default;
};

// An array; or, with a `base`, a range of that array's components and channels.
struct Array {
    Space space = Space::atom;
    Shape shape;
    int base = -1;
    std::int64_t first_component = 0, first_channel = 0;
};

struct Instruction {
    const Declaration* type = nullptr;
    std::vector<int> inputs, outputs, weights;
    std::vector<double> numbers;
    std::vector<int> saved;  // arrays that only its way back reads; the engine adds them
};

struct Weight {
    std::string name;
    std::vector<std::int64_t> shape;
    int table = -1;  // the coefficients of this one, which the engine makes
};

// A function of the distance as a program of its own, in the space of edges: `input` is r, `output` is the function.
struct Table {
    std::string name;
    std::int64_t knots = 0;
    double cutoff = 0;
    std::vector<Array> arrays;
    std::vector<Instruction> instructions;
    int input = -1, output = -1;
};

// Of each atom one number beside the energy: shift + scale * array, with scale and shift of its element. For those who
// call, a property of a structure is the sum ("extensive") or the mean ("intensive") of its atoms' numbers; "atomic":
// these are the property.
struct Property {
    std::string name, kind;
    int array = -1;  // (1, 1) for each atom
    std::vector<double> scale, shift;
};

struct Program {
    std::vector<Array> arrays;
    std::vector<Instruction> instructions;
    std::vector<Weight> weights;
    std::vector<Table> tables;
    int energies = -1;                     // (1, 1) for each atom, before scale and shift; -1: it has no energies
    std::vector<double> scale, shift;      // of each row of the embedding
    std::vector<std::int64_t> element_of;  // row of the embedding by atomic number; -1 where the model knows none
    double cutoff = 0;                     // of edges, and where coefficients that are plain weights end
    std::string readout;                   // "sum" or "mean" of the atoms' energies, for those who call
    std::vector<Property> properties;
};

// The numbers of each weight; none of one that is a table's.
template <class T>
using Weights = std::vector<AlignedVector<T>>;

// "atom", "edge"
const char* name_of(Space space);

// The version of the text that a program needs: 2, or 3 for one that has properties.
inline int version_of(const Program& program) { return program.properties.empty() ? 2 : 3; }

// The array that v is, or is a range of.
inline int whole(const std::vector<Array>& arrays, int v) { return arrays[v].base < 0 ? v : arrays[v].base; }

// Throws std::invalid_argument, with a sentence, unless every instruction fits its arrays and weights. Whether a weight
// has as many numbers as its shape says is up to those who read it.
void check(const Program& program);

}  // namespace mdgnn::engine
