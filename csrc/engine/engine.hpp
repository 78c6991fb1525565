// The engine: energies and forces of a program, without torch and without Python.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/aligned.hpp"
#include "core/view.hpp"
#include "engine/instruction.hpp"
#include "engine/linear.hpp"
#include "engine/plan.hpp"
#include "engine/program.hpp"

namespace mdgnn::engine {

// Where a box is cut into parts, atoms of other parts are ghosts here: they send to edges and receive none, and have no
// share of the energy. Called for each array (N, cols) that a message takes from its senders, numbered in the order of
// the program: forwards before the message, to write the rows of ghosts from those of their owners; backwards after it,
// with the gradient, to add the rows of ghosts to those of their owners and clear them. Rows have numbers of type T.
using Exchange = std::function<void(std::int64_t number, bool backwards, void* rows, std::int64_t cols)>;

// Atoms and edges; of the latter by receiver (index: senders) and by sender (index: receivers, edge: numbers). Without
// the second they are sorted here.
struct Structure {
    const std::int64_t* atomic_numbers = nullptr;  // (N)
    Rows rows, columns;
    const double* vectors = nullptr;  // (E, 3)
    const double* share = nullptr;    // (N): of an atom's energy in the total that is differentiated; null: one
    Exchange exchange;                // may be empty
};

// energies (N), forces (N, 3), virials (N, 3, 3) and properties (P, N) of atoms. Any may be null; with virials forces
// are not, with forces energies are not.
struct Outputs {
    double *energies = nullptr, *forces = nullptr, *virials = nullptr, *properties = nullptr;
};

// Memory of a call, which grows to that of the largest structure and stays for the next one.
template <class T>
struct Workspace {
    AlignedVector<T> atoms, edges;
    std::vector<std::int64_t> elements, col_ptr, receivers, order, next;
};

// Any number of calls may run at the same time.
template <class T>
class Engine {
  public:
    // Tables are made here, on n_threads. Throws std::invalid_argument, with a sentence, where the program does not fit
    // together or tables are not finite.
    Engine(Program program, Weights<T> weights, int n_threads = 1);
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    ~Engine();

    // Throws std::invalid_argument that names an atom whose element is not known, or where energies are asked for of a
    // program that has none.
    void run(const Structure& structure, const Outputs& out, const Context& context) const;

    const Program& program() const { return program_; }  // as given, and with what instructions save
    const Weights<T>& weights() const { return weights_; }
    const Prepared<T>& prepared(std::size_t instruction) const { return prepared_[instruction]; }
    // `properties`: of a program that has some.
    const Plan& plan(Keep keep, bool properties) const { return plans_[properties][static_cast<std::size_t>(keep)]; }
    bool takes_directions() const { return takes_directions_; }

  private:
    void add_saved_arrays();
    Workspace<T>* take() const;
    void give_back(std::unique_ptr<Workspace<T>> memory) const;

    Program program_;
    Weights<T> weights_;                        // those of tables are their coefficients
    std::array<std::array<Plan, 3>, 2> plans_;  // without and with properties, by Keep
    std::deque<Packed<T>> packed_;
    std::vector<Prepared<T>> prepared_;
    bool takes_directions_ = false;           // a message does
    static constexpr std::size_t kFree = 64;  // as many calls at a time find memory that is there already
    mutable std::array<std::atomic<Workspace<T>*>, kFree> free_{};
};

}  // namespace mdgnn::engine
