// The program's instructions forwards, then backwards, on memory whose places are planned once. Nothing is allocated
// while the numbers of atoms and edges do not grow.
#include "engine/engine.hpp"

#include <memory>
#include <utility>

#include "engine/run.hpp"

namespace mdgnn::engine {
template <class T>
Engine<T>::Engine(Program<T> program) : program_(std::move(program)) {
    check(program_);
    for (Keep keep : {Keep::energies_only, Keep::all, Keep::little})
        plans_[static_cast<std::size_t>(keep)] = engine::plan(program_, keep);
    // To compute an array again, what it follows from must stay, which may be as much (SimpleGNN, SchNet).
    Plan &all = plans_[static_cast<std::size_t>(Keep::all)], &little = plans_[static_cast<std::size_t>(Keep::little)];
    if (4 * (little.total + little.spare) > 3 * (all.total + all.spare)) little = all;
    layers_.resize(program_.instructions.size());
    for (std::size_t k = 0; k < layers_.size(); ++k) {
        const Instruction& in = program_.instructions[k];
        directions_ = directions_ || in.code == Code::painn_message;
        if (in.code != Code::linear) continue;
        for (std::size_t m = 0; m < in.inputs.size(); ++m) {
            const Weight<T>& w = program_.weights[in.weights[m]];
            const Matrix<const T> weights{w.data.data(), w.shape[0], w.shape[1]};
            layers_[k].forward.emplace_back(weights, true);
            layers_[k].backward.emplace_back(weights, false);
        }
        if (in.weights.size() > in.inputs.size()) layers_[k].bias = program_.weights[in.weights.back()].data.data();
    }
}

template <class T>
void Engine<T>::run(const Structure& structure, const Outputs& out, const Context& context) const {
    std::unique_ptr<Workspace<T>> memory(free_.exchange(nullptr));
    if (!memory) memory = std::make_unique<Workspace<T>>();
    Run<T> run(*this, *memory, structure, out.forces != nullptr, context);
    run.forward(out.energies);
    if (out.forces) run.backward(out);
    delete free_.exchange(memory.release());
}

template class Engine<float>;
template class Engine<double>;

}  // namespace mdgnn::engine
