// The program's instructions forwards, then backwards, on memory whose places are planned once. Nothing is allocated
// while the numbers of atoms and edges do not grow.
#include "engine/engine.hpp"

#include <memory>
#include <stdexcept>
#include <utility>

#include "engine/prepare.hpp"
#include "engine/run.hpp"
#include "engine/tables.hpp"

namespace mdgnn::engine {

template <class T>
Engine<T>::Engine(Program program, Weights<T> weights, int n_threads)
    : program_(std::move(program)), weights_(std::move(weights)) {
    check(program_);
    add_saved_arrays();
    make_tables(program_, weights_, n_threads);
    for (const bool properties : {false, true}) {
        if (properties && program_.properties.empty()) continue;
        std::array<Plan, 3>& plans = plans_[properties];
        for (Keep keep : {Keep::nothing, Keep::all, Keep::little})
            plans[static_cast<std::size_t>(keep)] = engine::plan(program_, keep, properties);
        // To compute an array again, what it follows from must stay, which may be as much (SimpleGNN, SchNet).
        Plan &all = plans[static_cast<std::size_t>(Keep::all)], &little = plans[static_cast<std::size_t>(Keep::little)];
        if (4 * (little.total + little.spare) > 3 * (all.total + all.spare)) little = all;
    }
    prepared_ = prepare(program_, weights_, program_.instructions, true, packed_);
    for (const Instruction& in : program_.instructions)
        takes_directions_ = takes_directions_ || in.type->takes_directions;
}

template <class T>
void Engine<T>::add_saved_arrays() {
    for (Instruction& in : program_.instructions) {
        in.saved.clear();
        if (!in.type->saved) continue;
        for (const Shape& shape : in.type->saved(signature_of(program_, program_.arrays, in))) {
            in.saved.push_back(static_cast<int>(program_.arrays.size()));
            program_.arrays.push_back({Space::atom, shape});
        }
    }
}

template <class T>
void Engine<T>::run(const Structure& structure, const Outputs& out, const Context& context) const {
    if ((out.energies || out.forces) && program_.energies < 0)
        throw std::invalid_argument("the model has learnt no energies");
    std::unique_ptr<Workspace<T>> memory(take());
    Run<T> run(*this, *memory, structure, out, context);
    run.forward(out);
    if (out.forces) run.backward(out);
    give_back(std::move(memory));
}

template <class T>
Workspace<T>* Engine<T>::take() const {
    for (auto& place : free_)
        if (Workspace<T>* memory = place.load() ? place.exchange(nullptr) : nullptr) return memory;
    return new Workspace<T>;
}

template <class T>
void Engine<T>::give_back(std::unique_ptr<Workspace<T>> memory) const {
    for (auto& place : free_) {
        Workspace<T>* none = nullptr;
        if (place.compare_exchange_strong(none, memory.get())) return static_cast<void>(memory.release());
    }
}

template <class T>
Engine<T>::~Engine() {
    for (auto& place : free_) delete place.load();
}

template class Engine<float>;
template class Engine<double>;

}  // namespace mdgnn::engine
