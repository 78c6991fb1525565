// Backwards: what every instruction gives to the gradients of its inputs, in reverse order.
#include <array>
#include <utility>

#include "cfconv/cfconv.hpp"
#include "concat_message/table.hpp"
#include "engine/run.hpp"
#include "force_virial/force_virial.hpp"
#include "painn_message/painn_message.hpp"
#include "polar/polar.hpp"

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
    std::fill(memory_.written.begin(), memory_.written.end(), char(0));
    seed();
    for (std::size_t k = program_.instructions.size(); k-- > 0;) backward(program_.instructions[k], engine_.layers(k));
    const T* const by_r = written_r_ ? e_.by_r : nullptr;
    cpu::polar_backward<T>(e_.vectors, n_edges_, {by_r, written_unit_ ? e_.by_unit : nullptr}, e_.gradients, context_);
    const Rows sent{columns_.row_ptr, columns_.edge, nullptr, n_};
    cpu::force_virial<T>({structure_.rows, sent, structure_.vectors}, e_.gradients, out.forces, out.virials, context_);
}

template <class T>
void Run<T>::seed() {
    const int v = program_.energies;
    if (!plan_.needs_gradient[v]) return;
    prepare(v);
    const Columns<T> g = gradient(v);
    for (std::int64_t i = 0; i < n_; ++i) {
        const std::size_t row = static_cast<std::size_t>(memory_.elements[static_cast<std::size_t>(i)]);
        *g.row(i) = static_cast<T>(program_.scale[row] * (structure_.share ? structure_.share[i] : 1.0));
    }
}

template <class T>
bool Run<T>::prepare(int v) {
    const std::int64_t base = program_.values[v].base;
    const int whole = base < 0 ? v : static_cast<int>(base);
    const bool add = memory_.written[whole];
    memory_.written[whole] = true;
    if (add || base < 0) return add;
    fill(rows_of(whole) * program_.values[whole].cols, gradient(whole).data, context_);  // slices write a part
    return true;
}

template <class T>
void Run<T>::give(int v, RowOp<T> op) {
    if (!plan_.needs_gradient[v]) return;
    op.add = prepare(v), op.out = gradient(v);
    const bool vectors = op.code == RowCode::dot || op.code == RowCode::scale_vectors;
    apply<T>(op, vectors ? n_ : rows_of(v), context_);
}

template <class T>
void Run<T>::backward(const Instruction& in, const typename Engine<T>::Layers& layers) {
    bool active = false;
    for (int v : in.outputs) active = active || (plan_.needs_gradient[v] && memory_.written[v]);
    if (!active) return;
    const int o = in.outputs[0];
    const Columns<const T> g = gradient(o).view();
    const auto input = [&](std::size_t k) { return value(in.inputs[k]).view(); };
    switch (in.code) {
        case Code::embed:
        case Code::zeros:
            break;
        case Code::linear:
            for (std::size_t k = 0; k < in.inputs.size(); ++k) {
                const int v = in.inputs[k];
                if (!plan_.needs_gradient[v]) continue;
                const bool add = prepare(v);
                multiply<T>(rows_of(v), g, layers.backward[k], nullptr, add, gradient(v), context_);
            }
            break;
        case Code::add:
            for (int v : in.inputs) give(v, {RowCode::copy, g, {}, {}});
            break;
        case Code::multiply:
            give(in.inputs[0], {RowCode::multiply, g, input(1), {}});
            give(in.inputs[1], {RowCode::multiply, g, input(0), {}});
            break;
        case Code::scale_vectors:
            give(in.inputs[0], {RowCode::dot, g, input(1), {}});
            give(in.inputs[1], {RowCode::scale_vectors, input(0), g, {}});
            break;
        case Code::dot:
            give(in.inputs[0], {RowCode::scale_vectors, g, input(1), {}});
            give(in.inputs[1], {RowCode::scale_vectors, g, input(0), {}});
            break;
        case Code::divide:
            give(in.inputs[0], {RowCode::divide, g, input(1), {}});
            give(in.inputs[1], {RowCode::divide_slope, g, input(0), {}, false, 0, input(1)});
            break;
        case Code::plus:
            give(in.inputs[0], {RowCode::copy, g, {}, {}});
            break;
        case Code::at_least:
            give(in.inputs[0], {RowCode::at_least_slope, g, input(0), {}, false, in.constant});
            break;
        case Code::root:
            give(in.inputs[0], {RowCode::root_slope, g, value(o).view(), {}});
            break;
        case Code::silu:
            give(in.inputs[0], {RowCode::silu_slope, g, input(0), {}});
            break;
        case Code::shifted_softplus:
            give(in.inputs[0], {RowCode::shifted_softplus_slope, g, input(0), {}});
            break;
        default:
            backward_message(in);
            exchange(in, true);
    }
}

template <class T>
void Run<T>::backward_message(const Instruction& in) {
    const auto constant = [](const Matrix<T>& m) { return Matrix<const T>{m.data, m.rows, m.cols}; };
    const auto given = [&](int k) { return constant(matrix(in.inputs[k], plan_.value[in.inputs[k]])); };
    const auto grad = [&](int k) {
        const int v = in.outputs[k];
        const Matrix<T> m = matrix(v, plan_.gradient[v]);
        if (!memory_.written[v]) fill(m.rows * m.cols, m.data, context_);
        return constant(m);
    };
    // A kernel writes what it gives; where something is there already, it writes to spare room, and that is added.
    std::array<std::pair<int, Matrix<T>>, 2> spare;
    std::size_t n_spare = 0;
    T* room = memory_.atoms.data() + plan_.spare * padded_;
    const auto target = [&](int k) -> Matrix<T> {
        const int v = in.inputs[k];
        if (!plan_.needs_gradient[v]) return {};
        Matrix<T> m = matrix(v, plan_.gradient[v]);
        if (prepare(v)) {
            m.data = room, room += padded_ * m.cols;
            spare[n_spare++] = {v, m};
        }
        return m;
    };
    T* const by_r = written_r_ ? e_.more_r : e_.by_r;
    if (in.code == Code::cfconv) {
        cpu::cfconv_backward<T>({structure_.rows, columns_, given(0), table(in), e_.r, {}}, grad(0), target(0), by_r,
                                nullptr, context_);
    } else if (in.code == Code::painn_message) {
        T* const by_unit = written_unit_ ? e_.more_unit : e_.by_unit;
        const PainnGradients<T> out{target(0), target(1), nullptr, by_r, by_unit};
        cpu::painn_message_backward<T>({structure_.rows, columns_, given(0), given(1), table(in), e_.r, e_.unit, {}},
                                       {grad(0), grad(1)}, out, context_);
        if (written_unit_) add_to(3 * n_edges_, e_.more_unit, e_.by_unit, context_);
        written_unit_ = true;
    } else {
        ConcatMessageTable<T> op;
        op.rows = structure_.rows, op.columns = columns_, op.ends = given(0), op.table = table(in), op.r = e_.r;
        op.slopes = matrix(in.outputs[2], plan_.value[in.outputs[2]]).data;
        cpu::concat_message_table_backward<T>(op, {grad(0), grad(1).data}, {target(0), nullptr, by_r}, context_);
    }
    if (written_r_) add_to(n_edges_, e_.more_r, e_.by_r, context_);
    written_r_ = true;
    for (std::size_t k = 0; k < n_spare; ++k) {
        const auto& [v, m] = spare[k];
        add_to(m.rows * m.cols, static_cast<const T*>(m.data), gradient(v).data, context_);
    }
}

#define MDGNN_INSTANTIATE(T) template void Run<T>::backward(const Outputs&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
