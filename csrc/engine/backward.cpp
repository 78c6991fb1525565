// Backwards: what every instruction gives to the gradients of its inputs, in reverse order.
#include <array>

#include "ops/cfconv/cfconv.hpp"
#include "ops/concat_message/table.hpp"
#include "engine/run.hpp"
#include "ops/force_virial/force_virial.hpp"
#include "ops/painn_message/painn_message.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
void add_to(std::int64_t n, const T* x, T* to, const Context& context) {
    parallel_for(n, 16384, context.n_threads, [&](std::int64_t a, std::int64_t b) {
        for (std::int64_t k = a; k < b; ++k) to[k] += x[k];
    });
}

}  // namespace

template <class T>
void Run<T>::backward(const Outputs& out) {
    seed();
    for (std::size_t p = plan_.phases.size(); p-- > 0;) {
        const Phase& phase = plan_.phases[p];
        if (!phase.message) {
            each_block(phase, phase.again.empty() ? 2 : 3, [&](const Block<T>& block) { backward(phase, block); });
        } else if (plan_.back[phase.first].active) {
            clear(plan_.back[phase.first].clear, whole(), context_);
            backward_message(phase.first);
            exchange(program_.instructions[phase.first], true);
        }
    }
    find_gradients_of_vectors();
    const Rows sent{columns_.row_ptr, columns_.edge, nullptr, n_};
    cpu::force_virial<T>({structure_.rows, sent, structure_.vectors}, e_.gradients, out.forces, out.virials, context_);
}

template <class T>
void Run<T>::seed() const {
    if (!plan_.needs_gradient[program_.energies]) return;
    clear(plan_.clear_seed, whole(), context_);
    const Columns<T> g = gradient(program_.energies, whole());
    parallel_for(n_, 32768, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            const std::size_t row = static_cast<std::size_t>(memory_.elements[static_cast<std::size_t>(i)]);
            *g.row(i) = static_cast<T>(program_.scale[row] * (structure_.share ? structure_.share[i] : 1.0));
        }
    });
}

template <class T>
void Run<T>::backward(const Phase& phase, const Block<T>& block) const {
    for (std::size_t k : phase.again) forward(k, block);
    for (std::size_t k = phase.last; k-- > phase.first;)
        if (plan_.back[k].active) backward(k, block);
}

template <class T>
void Run<T>::backward(std::size_t number, const Block<T>& block) const {
    const Instruction& in = program_.instructions[number];
    const Back& back = plan_.back[number];
    const typename Engine<T>::Layers& layers = engine_.layers(number);
    clear(back.clear, block, kHere);
    const int o = in.outputs[0];
    const Columns<const T> g = gradient(o, block).view();
    const auto input = [&](std::size_t k) { return value(in.inputs[k], block).view(); };
    const auto give = [&](std::size_t k, RowOp<T> op) {  // to the gradient of an input, if it has one
        const int v = in.inputs[k];
        if (!plan_.needs_gradient[v]) return;
        op.add = back.add[k], op.out = gradient(v, block);
        const bool vectors = op.code == RowCode::dot || op.code == RowCode::scale_vectors;
        apply<T>(op, vectors ? block.n_atoms : rows_of(v, block), kHere);
    };
    switch (in.code) {
        case Code::embed:
        case Code::zeros:
            break;
        case Code::linear:
            for (std::size_t k = 0; k < in.inputs.size(); ++k) {
                const int v = in.inputs[k];
                if (plan_.needs_gradient[v])
                    multiply<T>(rows_of(v, block), g, layers.backward[k], nullptr, back.add[k], gradient(v, block),
                                kHere);
            }
            break;
        case Code::add:
            for (std::size_t k = 0; k < in.inputs.size(); ++k) give(k, {RowCode::copy, g, {}, {}});
            break;
        case Code::multiply:
            give(0, {RowCode::multiply, g, input(1), {}});
            give(1, {RowCode::multiply, g, input(0), {}});
            break;
        case Code::scale_vectors:
            give(0, {RowCode::dot, g, input(1), {}});
            give(1, {RowCode::scale_vectors, input(0), g, {}});
            break;
        case Code::dot:
            give(0, {RowCode::scale_vectors, g, input(1), {}});
            give(1, {RowCode::scale_vectors, g, input(0), {}});
            break;
        case Code::divide:
            give(0, {RowCode::divide, g, input(1), {}});
            give(1, {RowCode::divide_slope, g, input(0), {}, false, 0, input(1)});
            break;
        case Code::plus:
            give(0, {RowCode::copy, g, {}, {}});
            break;
        case Code::at_least:
            give(0, {RowCode::at_least_slope, g, input(0), {}, false, in.constant});
            break;
        case Code::root:
            give(0, {RowCode::root_slope, g, value(o, block).view(), {}});
            break;
        case Code::silu:
            give(0, {RowCode::silu_slope, g, input(0), {}});
            break;
        case Code::shifted_softplus:
            give(0, {RowCode::shifted_softplus_slope, g, input(0), {}});
            break;
        default:  // a message
            break;
    }
}

template <class T>
void Run<T>::backward_message(std::size_t number) {
    const Instruction& in = program_.instructions[number];
    const Back& back = plan_.back[number];
    const auto constant = [](const Matrix<T>& m) { return Matrix<const T>{m.data, m.rows, m.cols}; };
    const auto given = [&](int k) { return constant(value(in.inputs[k])); };
    const auto grad = [&](int k) { return constant(gradient(in.outputs[k])); };
    // A kernel writes what it gives; where something is there already, it writes to spare room, and that is added.
    T* room = memory_.atoms.data() + plan_.total * padded_;
    std::array<Matrix<T>, 2> targets;
    for (std::size_t k = 0; k < in.inputs.size(); ++k) {
        if (!plan_.needs_gradient[in.inputs[k]]) continue;
        targets[k] = gradient(in.inputs[k]);
        if (back.add[k]) targets[k].data = room, room += padded_ * targets[k].cols;
    }
    if (in.code == Code::cfconv) {
        const CfConv<T> op{structure_.rows, columns_, given(0), table(in), e_.r, {}, written_};
        cpu::cfconv_backward<T>(op, grad(0), targets[0], e_.by_r, nullptr, context_);
    } else if (in.code == Code::painn_message) {
        const PainnMessage<T> op{structure_.rows, columns_, given(0), given(1), table(in), e_.r, e_.unit, {}, written_};
        const PainnGradients<T> out{targets[0], targets[1], nullptr, e_.by_r, e_.by_unit};
        if (written_ && !unit_written_)  // by a message that knows no directions
            parallel_for(3 * n_edges_, 65536, context_.n_threads,
                         [&](std::int64_t a, std::int64_t b) { std::fill(e_.by_unit + a, e_.by_unit + b, T(0)); });
        unit_written_ = true;
        cpu::painn_message_backward<T>(op, {grad(0), grad(1)}, out, context_);
    } else {
        ConcatMessageTable<T> op;
        op.rows = structure_.rows, op.columns = columns_, op.ends = given(0), op.table = table(in), op.r = e_.r;
        op.slopes = value(in.outputs[2]).data, op.adds = written_;
        cpu::concat_message_table_backward<T>(op, {grad(0), grad(1).data}, {targets[0], nullptr, e_.by_r}, context_);
    }
    written_ = true;
    for (std::size_t k = 0; k < in.inputs.size(); ++k)
        if (back.add[k] && plan_.needs_gradient[in.inputs[k]])
            add_to(targets[k].rows * targets[k].cols, static_cast<const T*>(targets[k].data),
                   gradient(in.inputs[k]).data, context_);
}

#define MDGNN_INSTANTIATE(T) template void Run<T>::backward(const Outputs&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
