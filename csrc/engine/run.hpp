// One call of the engine: its structure, and where its arrays stand.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/thread_pool.hpp"
#include "engine/engine.hpp"
#include "engine/rows.hpp"
#include "radial_filter/math.hpp"

namespace mdgnn::engine {

// Atoms and edges that arrays have room for, so that they begin on cache lines.
inline std::int64_t padded(std::int64_t n) { return (n + 15) / 16 * 16; }

template <class T>
class Run {
  public:
    Run(const Engine<T>& engine, Workspace<T>& memory, const Structure& structure, bool with_gradients,
        const Context& context)
        : engine_(engine),
          program_(engine.program()),
          plan_(engine.plan(with_gradients)),
          memory_(memory),
          structure_(structure),
          context_(context),
          n_(structure.rows.n_rows),
          padded_(padded(n_)),
          n_edges_(n_ > 0 ? structure.rows.row_ptr[n_] : 0) {
        find_elements();
        make_room(with_gradients);
        if (with_gradients) sort_edges();
    }

    void forward(double* energies);
    void backward(const Outputs& out);

  private:
    struct Edges {
        T *vectors = nullptr, *r = nullptr, *unit = nullptr;
        T *by_r = nullptr, *by_unit = nullptr, *more_r = nullptr, *more_unit = nullptr, *gradients = nullptr;
    };

    void find_elements();
    void sort_edges();
    void make_room(bool with_gradients);
    Columns<T> value(int v) const { return columns(v, plan_.value[v]); }
    Columns<T> gradient(int v) const { return columns(v, plan_.gradient[v]); }
    Columns<T> columns(int v, std::int64_t place) const;
    Matrix<T> matrix(int v, std::int64_t place) const;
    RadialTable<T> table(const Instruction& in) const;
    std::int64_t rows_of(int v) const { return n_ * program_.values[v].blocks; }

    void forward(const Instruction& in, const typename Engine<T>::Layers& layers);
    void forward_message(const Instruction& in);
    void exchange(const Instruction& in, bool backwards);
    void backward(const Instruction& in, const typename Engine<T>::Layers& layers);
    void backward_message(const Instruction& in);
    void read_out(double* energies) const;
    void seed();
    bool prepare(int v);            // whether a gradient is to be added to what is there
    void give(int v, RowOp<T> op);  // to the gradient of v, if it has one

    const Engine<T>& engine_;
    const Program<T>& program_;
    const Plan& plan_;
    Workspace<T>& memory_;
    const Structure& structure_;
    const Context& context_;
    const std::int64_t n_, padded_, n_edges_;
    Rows columns_;
    Edges e_;
    bool written_r_ = false, written_unit_ = false;
};

template <class T>
void fill(std::int64_t n, T* to, const Context& context) {
    parallel_for(n, 65536, context.n_threads, [&](std::int64_t a, std::int64_t b) { std::fill(to + a, to + b, T(0)); });
}

}  // namespace mdgnn::engine
