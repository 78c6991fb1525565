// One call of the engine: its structure, and where its arrays stand.
#pragma once

#include <cstdint>
#include <vector>

#include "core/view.hpp"
#include "engine/engine.hpp"

namespace mdgnn::engine {

// Of loops within a block: on the thread that has it.
constexpr Context kHere{1, 0, nullptr};

// Atoms or edges that arrays have room for, so that they begin on cache lines.
constexpr std::int64_t padded(std::int64_t n) { return (n + 15) / 16 * 16; }

template <class T>
class Run {
  public:
    // `out`: what is asked for.
    Run(const Engine<T>& engine, Workspace<T>& memory, const Structure& structure, const Outputs& out,
        const Context& context);

    void forward(const Outputs& out);
    void backward(const Outputs& out);

  private:
    // Lengths and directions.
    struct Polar {
        T *r = nullptr, *unit = nullptr;
    };
    // By receiver, for the way forwards; by sender, for the way back, with gradients: so that messages stream through
    // them in either direction. Gradients take the place of what is no longer needed.
    struct Edges {
        Polar received, sent;
        Polar sent_grads;        // in the place of `received`
        Polar received_grads;    // in that of `sent`
        T* gradients = nullptr;  // of vectors, by receiver; in that of sent_grads.unit, if there is one
    };

    // In run.cpp.
    Block<T> block_at(std::int64_t first, std::int64_t n_atoms, T* local) const;
    Block<T> whole_structure() const { return block_at(0, n_, nullptr); }
    template <class Body>
    void each_block(const Phase& phase, int passes, const Body& body) const;
    Step<T> step(std::size_t k, const Block<T>& block) const;
    void forward(std::size_t k, const Block<T>& block) const;
    void backward(const Phase& phase, const Block<T>& block) const;
    void clear(const std::vector<int>& arrays, const Block<T>& block, const Context& context) const;
    void read_out(int v, const std::vector<double>& scale, const std::vector<double>& shift, double* out) const;
    void seed() const;

    // In run_messages.cpp.
    Matrix<T> matrix(int v, const Place& place) const;
    MessageStep<T> message_step(std::size_t k) const;
    void forward_message(std::size_t k);
    void backward_message(std::size_t k);
    void exchange(std::size_t k, bool backwards);

    // In run_edges.cpp.
    void find_elements();
    void sort_edges();
    void make_room(bool with_gradients);
    void find_lengths();
    void sort_lengths();
    void find_gradients_of_vectors();

    const Engine<T>& engine_;
    const Program& program_;
    const Plan& plan_;
    Workspace<T>& memory_;
    const Structure& structure_;
    const Context& context_;
    const std::int64_t n_, padded_, n_edges_, block_;
    Rows columns_;
    Edges edges_;
    bool written_ = false, unit_written_ = false;  // edges_.sent_grads
};

}  // namespace mdgnn::engine
