// Forwards: the phases in order.
//
// Parallelisation: blocks of atoms over threads. A thread takes a block through all instructions of a phase, so that
// what one of them leaves is in the cache for the next; messages are loops of their own.
#include <utility>

#include "ops/cfconv/cfconv.hpp"
#include "ops/concat_message/table.hpp"
#include "engine/run.hpp"
#include "ops/painn_message/painn_message.hpp"

namespace mdgnn::engine {
template <class T>
void Run<T>::forward(double* energies) {
    find_lengths();
    for (const Phase& phase : plan_.phases) {
        if (phase.message) {
            exchange(program_.instructions[phase.first], false);
            forward_message(program_.instructions[phase.first]);
            continue;
        }
        each_block(phase, 1, [&](const Block<T>& block) {
            for (std::size_t k = phase.first; k < phase.last; ++k) forward(k, block);
        });
    }
    read_out(energies);
}

template <class T>
void Run<T>::forward(std::size_t number, const Block<T>& block) const {
    const Instruction& in = program_.instructions[number];
    const typename Engine<T>::Layers& layers = engine_.layers(number);
    const Columns<T> out = value(in.outputs[0], block);
    const std::int64_t n = rows_of(in.outputs[0], block);
    const auto input = [&](std::size_t k) { return value(in.inputs[k], block).view(); };
    switch (in.code) {
        case Code::embed: {
            const T* const weights = program_.weights[in.weights[0]].data.data();
            const std::int64_t* const element = memory_.elements.data() + block.first;
            for (std::int64_t i = 0; i < n; ++i) std::copy_n(weights + element[i] * out.cols, out.cols, out.row(i));
            break;
        }
        case Code::zeros:
            std::fill_n(out.data, n * out.cols, T(0));
            break;
        case Code::linear:
            for (std::size_t k = 0; k < in.inputs.size(); ++k)
                multiply<T>(n, input(k), layers.forward[k], layers.bias, k > 0, out, kHere);
            break;
        case Code::add:
            for (std::size_t k = 1; k < in.inputs.size(); ++k)
                apply<T>({RowCode::add, k == 1 ? input(0) : out.view(), input(k), out}, n, kHere);
            if (in.inputs.size() == 1) apply<T>({RowCode::copy, input(0), {}, out}, n, kHere);
            break;
        case Code::multiply:
            apply<T>({RowCode::multiply, input(0), input(1), out}, n, kHere);
            break;
        case Code::scale_vectors:
            apply<T>({RowCode::scale_vectors, input(0), input(1), out}, block.n_atoms, kHere);
            break;
        case Code::dot:
            apply<T>({RowCode::dot, input(0), input(1), out}, block.n_atoms, kHere);
            break;
        case Code::divide:
            apply<T>({RowCode::divide, input(0), input(1), out}, n, kHere);
            break;
        case Code::plus:
            apply<T>({RowCode::plus, input(0), {}, out, false, in.constant}, n, kHere);
            break;
        case Code::at_least:
            apply<T>({RowCode::at_least, input(0), {}, out, false, in.constant}, n, kHere);
            break;
        case Code::root:
            apply<T>({RowCode::root, input(0), {}, out, false, in.constant}, n, kHere);
            break;
        case Code::silu:
            apply<T>({RowCode::silu, input(0), {}, out}, n, kHere);
            break;
        case Code::shifted_softplus:
            apply<T>({RowCode::shifted_softplus, input(0), {}, out}, n, kHere);
            break;
        default:  // a message
            break;
    }
}

template <class T>
void Run<T>::forward_message(const Instruction& in) {
    const auto given = [&](int k) { return value(in.inputs[k]); };
    const auto out = [&](int k) { return value(in.outputs[k]); };
    const auto constant = [](const Matrix<T>& m) { return Matrix<const T>{m.data, m.rows, m.cols}; };
    if (in.code == Code::cfconv) {
        cpu::cfconv<T>({structure_.rows, columns_, constant(given(0)), table(in), e_.r, {}}, out(0), context_);
    } else if (in.code == Code::painn_message) {
        cpu::painn_message<T>(
            {structure_.rows, columns_, constant(given(0)), constant(given(1)), table(in), e_.r, e_.unit, {}},
            {out(0), out(1)}, context_);
    } else {
        ConcatMessageTable<T> op;
        op.rows = structure_.rows, op.columns = columns_;
        op.ends = constant(given(0)), op.table = table(in), op.r = e_.r;
        T* const slopes = plan_.needs_gradient[in.inputs[0]] ? out(2).data : nullptr;
        cpu::concat_message_table<T>(op, {out(0), out(1).data, slopes}, context_);
    }
}

template <class T>
void Run<T>::read_out(double* energies) const {
    const Columns<T> e = value(program_.energies, whole());
    parallel_for(n_, 32768, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::size_t row = static_cast<std::size_t>(memory_.elements[static_cast<std::size_t>(i)]);
            energies[i] = program_.shift[row] + program_.scale[row] * static_cast<double>(*e.row(i));
        }
    });
}

#define MDGNN_INSTANTIATE(T) template void Run<T>::forward(double*);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
