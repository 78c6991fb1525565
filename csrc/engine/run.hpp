// One call of the engine: its structure, and where its arrays stand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/scratch.hpp"
#include "core/thread_pool.hpp"
#include "engine/engine.hpp"
#include "engine/rows.hpp"
#include "ops/radial_filter/math.hpp"

namespace mdgnn::engine {

// Of loops within a block: on the thread that has it.
constexpr Context kHere{1, 0, nullptr};

// Atoms and edges that arrays have room for, so that they begin on cache lines.
inline std::int64_t padded(std::int64_t n) { return (n + 15) / 16 * 16; }

// Atoms that a thread takes through a phase, with memory for arrays that nobody else sees.
template <class T>
struct Block {
    std::int64_t first, n_atoms;
    T* local;
};

template <class T>
class Run {
  public:
    Run(const Engine<T>& engine, Workspace<T>& memory, const Structure& structure, bool with_gradients,
        const Context& context)
        : engine_(engine),
          program_(engine.program()),
          plan_(engine.plan(how(engine, structure, with_gradients))),
          memory_(memory),
          structure_(structure),
          context_(context),
          n_(structure.rows.n_rows),
          padded_(padded(n_)),
          n_edges_(n_ > 0 ? structure.rows.row_ptr[n_] : 0),
          block_(block_of(plan_)) {
        find_elements();
        make_room(with_gradients);
        if (with_gradients) sort_edges();
    }

    void forward(double* energies);
    void backward(const Outputs& out);

  private:
    // The gradients of vectors take the place of those of directions, if there are any.
    struct Edges {
        T *r = nullptr, *unit = nullptr, *by_r = nullptr, *by_unit = nullptr, *gradients = nullptr;
    };

    static Keep how(const Engine<T>& engine, const Structure& structure, bool with_gradients);
    static std::int64_t block_of(const Plan& plan);
    void find_elements();
    void sort_edges();
    void make_room(bool with_gradients);
    void find_lengths();
    void find_gradients_of_vectors();

    Columns<T> value(int v, const Block<T>& block) const { return columns(v, plan_.value[v], block); }
    Columns<T> gradient(int v, const Block<T>& block) const { return columns(v, plan_.gradient[v], block); }
    Columns<T> columns(int v, const Place& place, const Block<T>& block) const;
    Matrix<T> value(int v) const { return matrix(v, plan_.value[v]); }
    Matrix<T> gradient(int v) const { return matrix(v, plan_.gradient[v]); }
    Matrix<T> matrix(int v, const Place& place) const;
    RadialTable<T> table(const Instruction& in) const;
    Block<T> whole() const { return {0, n_, nullptr}; }
    std::int64_t rows_of(int v, const Block<T>& block) const { return block.n_atoms * program_.values[v].blocks; }
    template <class Body>
    void each_block(const Phase& phase, int passes, const Body& body) const;

    void forward(std::size_t k, const Block<T>& block) const;
    void forward_message(const Instruction& in);
    void exchange(const Instruction& in, bool backwards);
    void backward(const Phase& phase, const Block<T>& block) const;
    void backward(std::size_t k, const Block<T>& block) const;
    void backward_message(std::size_t k);
    void clear(const std::vector<int>& arrays, const Block<T>& block, const Context& context) const;
    void read_out(double* energies) const;
    void seed() const;

    const Engine<T>& engine_;
    const Program<T>& program_;
    const Plan& plan_;
    Workspace<T>& memory_;
    const Structure& structure_;
    const Context& context_;
    const std::int64_t n_, padded_, n_edges_, block_;
    Rows columns_;
    Edges e_;
    bool written_ = false, unit_written_ = false;  // e_.by_r, e_.by_unit
};

template <class T>
struct LocalArrays {
    AlignedVector<T> numbers;
};

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
        for (std::int64_t i = begin; i < end; i += block_) body(Block<T>{i, std::min(block_, end - i), memory.data()});
    });
}

}  // namespace mdgnn::engine
