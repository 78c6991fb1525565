// The phases in order, forwards and backwards.
//
// Parallelisation: blocks of atoms over threads. A thread takes a block through all instructions of a phase, so that
// what one of them leaves is in the cache for the next; messages are loops of their own.
#include "engine/run.hpp"

#include <algorithm>

#include "core/scratch.hpp"
#include "core/thread_pool.hpp"
#include "ops/force_virial/force_virial.hpp"

namespace mdgnn::engine {
namespace {

// What fits into the caches stays.
template <class T>
const Plan& plan_for(const Engine<T>& engine, const Structure& structure, const Outputs& out) {
    const bool properties = out.properties != nullptr && !engine.program().properties.empty();
    if (!out.forces) return engine.plan(Keep::nothing, properties);
    constexpr std::int64_t kMuch = std::int64_t{1} << 25;
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(T)) * engine.plan(Keep::all, properties).total;
    const bool much = structure.rows.n_rows > kMuch / std::max<std::int64_t>(bytes, 1);
    return engine.plan(much ? Keep::little : Keep::all, properties);
}

// Atoms in a block: as many as a core's cache has room for. A multiple of the rows of a product's tile, and of the
// numbers in a cache line.
template <class T>
std::int64_t block_of(const Plan& plan) {
    constexpr std::int64_t kBytes = 1 << 18, kUnit = 48;
    const std::int64_t bytes = static_cast<std::int64_t>(sizeof(T)) * std::max<std::int64_t>(plan.local, 1);
    return std::clamp<std::int64_t>(kBytes / bytes / kUnit, 1, 20) * kUnit;
}

template <class T>
struct LocalArrays {
    AlignedVector<T> numbers;
};

}  // namespace

template <class T>
Run<T>::Run(const Engine<T>& engine, Workspace<T>& memory, const Structure& structure, const Outputs& out,
            const Context& context)
    : engine_(engine),
      program_(engine.program()),
      plan_(plan_for(engine, structure, out)),
      memory_(memory),
      structure_(structure),
      context_(context),
      n_(structure.rows.n_rows),
      padded_(padded(n_)),
      n_edges_(n_ > 0 ? structure.rows.row_ptr[n_] : 0),
      block_(block_of<T>(plan_)) {
    find_elements();
    make_room(out.forces != nullptr);
    if (out.forces) sort_edges();
}

template <class T>
Block<T> Run<T>::block_at(std::int64_t first, std::int64_t n_atoms, T* local) const {
    return {&program_.arrays,     &plan_.value, &plan_.gradient, first, n_atoms,
            memory_.atoms.data(), local,        padded_,         block_};
}

// `passes`: how often all instructions run, about.
template <class T>
template <class Body>
void Run<T>::each_block(const Phase& phase, int passes, const Body& body) const {
    constexpr std::int64_t kWorth = 360000, kTile = 6;  // multiply-adds that pay for another thread: 8 us
    const std::int64_t least = kWorth / (passes * phase.work + 1), share = n_ / (8 * std::max(context_.n_threads, 1));
    const std::int64_t grain = std::max(least, std::min(share, block_)) / kTile * kTile + kTile;
    parallel_for(n_, grain, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        AlignedVector<T>& memory = scratch_of_this_thread<LocalArrays<T>>().numbers;
        const std::size_t size = static_cast<std::size_t>(plan_.local * block_);
        if (memory.size() < size) memory.resize(size);
        for (std::int64_t i = begin; i < end; i += block_) body(block_at(i, std::min(block_, end - i), memory.data()));
    });
}

template <class T>
Step<T> Run<T>::step(std::size_t k, const Block<T>& block) const {
    return {program_.instructions[k], engine_.prepared(k), block, memory_.elements.data() + block.first,
            &plan_.back[k]};
}

// --- forwards --------------------------------------------------------------------------------------------------------

template <class T>
void Run<T>::forward(const Outputs& out) {
    find_lengths();
    for (const Phase& phase : plan_.phases) {
        if (phase.message) {
            exchange(phase.first, false);
            forward_message(phase.first);
            continue;
        }
        each_block(phase, 1, [&](const Block<T>& block) {
            for (std::size_t k = phase.first; k < phase.last; ++k)
                if (plan_.runs[k]) forward(k, block);
        });
    }
    if (out.energies) read_out(program_.energies, program_.scale, program_.shift, out.energies);
    if (!out.properties) return;
    double* values = out.properties;
    for (const Property& p : program_.properties) read_out(p.array, p.scale, p.shift, values), values += n_;
}

template <class T>
void Run<T>::forward(std::size_t k, const Block<T>& block) const {
    program_.instructions[k].type->template kernels<T>().forward(step(k, block));
}

template <class T>
void Run<T>::read_out(int v, const std::vector<double>& scale, const std::vector<double>& shift, double* out) const {
    const ArrayView<T> x = whole_structure().value(v);
    parallel_for(n_, 32768, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::size_t row = static_cast<std::size_t>(memory_.elements[static_cast<std::size_t>(i)]);
            out[i] = shift[row] + scale[row] * static_cast<double>(*x.at(i, 0));
        }
    });
}

// --- backwards -------------------------------------------------------------------------------------------------------

template <class T>
void Run<T>::backward(const Outputs& out) {
    sort_lengths();
    seed();
    for (std::size_t p = plan_.phases.size(); p-- > 0;) {
        const Phase& phase = plan_.phases[p];
        if (!phase.message) {
            each_block(phase, phase.rematerialise.empty() ? 2 : 3,
                       [&](const Block<T>& block) { backward(phase, block); });
        } else if (plan_.back[phase.first].active) {
            clear(plan_.back[phase.first].clear, whole_structure(), context_);
            backward_message(phase.first);
            exchange(phase.first, true);
        }
    }
    find_gradients_of_vectors();
    const Rows sent{columns_.row_ptr, columns_.edge, nullptr, n_};
    cpu::force_virial<T>({structure_.rows, sent, structure_.vectors}, edges_.gradients, out.forces, out.virials,
                         context_);
}

// The gradient of the energies of the network.
template <class T>
void Run<T>::seed() const {
    if (!plan_.needs_grad[program_.energies]) return;
    clear(plan_.clear_energies, whole_structure(), context_);
    const ArrayView<T> g = whole_structure().gradient(program_.energies);
    parallel_for(n_, 32768, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::size_t row = static_cast<std::size_t>(memory_.elements[static_cast<std::size_t>(i)]);
            *g.at(i, 0) = static_cast<T>(program_.scale[row] * (structure_.share ? structure_.share[i] : 1.0));
        }
    });
}

template <class T>
void Run<T>::backward(const Phase& phase, const Block<T>& block) const {
    for (std::size_t k : phase.rematerialise) forward(k, block);
    for (std::size_t k = phase.last; k-- > phase.first;) {
        if (!plan_.back[k].active) continue;
        clear(plan_.back[k].clear, block, kHere);
        program_.instructions[k].type->template kernels<T>().backward(step(k, block));
    }
}

template <class T>
void Run<T>::clear(const std::vector<int>& arrays, const Block<T>& block, const Context& context) const {
    for (int v : arrays) {  // whole ones
        const ArrayView<T> g = block.gradient(v);
        parallel_for(block.n_rows * g.shape.size(), 65536, context.n_threads,
                     [&](std::int64_t a, std::int64_t b) { std::fill(g.data + a, g.data + b, T(0)); });
    }
}

template class Run<float>;
template class Run<double>;

}  // namespace mdgnn::engine
