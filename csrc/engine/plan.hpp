// What is done in which order, and where arrays stand: worked out once for a program, whatever the number of atoms.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/array_view.hpp"
#include "engine/program.hpp"

namespace mdgnn::engine {

// nothing: there is no way back. all: what instructions need backwards stays from their way forwards. little: of the
// arrays of one phase, which others do not see, nothing stays: they are computed again.
enum class Keep { nothing, all, little };

// A message, or instructions between two of them, which treat every atom by itself: a thread runs them all for a block
// of atoms before the next one.
struct Phase {
    std::size_t first, last;  // instructions first .. last, but for those that the plan leaves out
    bool message;
    std::vector<std::size_t> rematerialise;  // instructions that run again before the phase goes backwards
    std::int64_t work = 0;                   // multiply-adds per atom, about
};

// What an instruction does on the way back.
struct Back {
    bool active = false;           // the energy depends on it, and it on the edges
    std::vector<int> clear;        // arrays whose gradients begin as zeros: they come in parts, or nobody gives any
    std::vector<char> needs_grad;  // by input
    std::vector<char> add;         // by input: its gradient is added to what is there
};

struct Plan {
    std::vector<Phase> phases;
    std::vector<char> runs;  // by instruction: whether a result follows from it
    std::vector<Back> back;  // by instruction
    std::vector<int> clear_energies;
    std::vector<Place> value, gradient;
    std::vector<char> needs_grad;       // by array
    std::int64_t total = 0, local = 0;  // of all atoms, of a block
    std::int64_t spare = 0;             // of all atoms: room for gradients that are to be added to others
};

// Of the energies, if there are any, and `properties` or not.
Plan plan(const Program& program, Keep keep, bool properties);

}  // namespace mdgnn::engine
