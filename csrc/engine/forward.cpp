// Forwards: elements, memory, edges, and the instructions in order.
#include <array>
#include <stdexcept>
#include <string>
#include <utility>

#include "cfconv/cfconv.hpp"
#include "concat_message/table.hpp"
#include "engine/run.hpp"
#include "painn_message/painn_message.hpp"
#include "polar/polar.hpp"

namespace mdgnn::engine {

template <class T>
void Run<T>::forward(double* energies) {
    parallel_for(3 * n_edges_, 32768, context_.n_threads, [&](std::int64_t a, std::int64_t b) {
        for (std::int64_t k = a; k < b; ++k) e_.vectors[k] = static_cast<T>(structure_.vectors[k]);
    });
    cpu::polar<T>(e_.vectors, n_edges_, e_.r, e_.unit, context_);
    for (std::size_t k = 0; k < program_.instructions.size(); ++k) forward(program_.instructions[k], engine_.layers(k));
    read_out(energies);
}

// By sender, in order. Blocks of rows are counted and placed by a thread each.
template <class T>
void Run<T>::sort_edges() {
    columns_ = structure_.columns;
    if (columns_.row_ptr) return;
    const Rows& rows = structure_.rows;
    const std::int64_t worth = n_edges_ > 32768 ? n_edges_ / (4 * n_) : 1;  // a block goes through all senders
    const std::int64_t n_blocks = std::clamp<std::int64_t>(worth, 1, std::max(context_.n_threads, 1));
    const auto first_row = [&](std::int64_t block) {
        if (block == n_blocks) return n_;
        return std::lower_bound(rows.row_ptr, rows.row_ptr + n_, block * n_edges_ / n_blocks) - rows.row_ptr;
    };
    memory_.next.assign(static_cast<std::size_t>(n_blocks * n_), 0);
    memory_.col_ptr.resize(static_cast<std::size_t>(n_ + 1));
    memory_.receivers.resize(static_cast<std::size_t>(n_edges_)), memory_.order.resize(memory_.receivers.size());
    std::int64_t *const next = memory_.next.data(), *const col_ptr = memory_.col_ptr.data();
    const auto each_block = [&](const auto& body) {
        parallel_for(n_blocks, 1, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
            for (std::int64_t block = begin; block < end; ++block) body(block, next + block * n_);
        });
    };
    each_block([&](std::int64_t block, std::int64_t* count) {
        const std::int64_t last = rows.row_ptr[first_row(block + 1)];
        for (std::int64_t k = rows.row_ptr[first_row(block)]; k < last; ++k) ++count[rows.index[k]];
    });
    std::int64_t sum = 0;
    for (std::int64_t j = 0; j < n_; ++j) {
        col_ptr[j] = sum;
        for (std::int64_t block = 0; block < n_blocks; ++block) sum += std::exchange(next[block * n_ + j], sum);
    }
    col_ptr[n_] = sum;
    each_block([&](std::int64_t block, std::int64_t* place) {
        const std::int64_t last = first_row(block + 1);
        for (std::int64_t i = first_row(block); i < last; ++i)
            for (std::int64_t k = rows.row_ptr[i]; k < rows.row_ptr[i + 1]; ++k) {
                const std::int64_t to = place[rows.index[k]]++;
                memory_.receivers[static_cast<std::size_t>(to)] = i, memory_.order[static_cast<std::size_t>(to)] = k;
            }
    });
    columns_ = {col_ptr, memory_.receivers.data(), memory_.order.data(), n_};
}

template <class T>
void Run<T>::find_elements() {
    memory_.elements.resize(static_cast<std::size_t>(n_));
    const std::int64_t known = static_cast<std::int64_t>(program_.element_of.size());
    for (std::int64_t i = 0; i < n_; ++i) {
        const std::int64_t z = structure_.atomic_numbers[i];
        const std::int64_t row = z >= 0 && z < known ? program_.element_of[static_cast<std::size_t>(z)] : -1;
        if (row < 0)
            throw std::invalid_argument("the model does not know the atomic number " + std::to_string(z) + " of atom " +
                                        std::to_string(i));
        memory_.elements[static_cast<std::size_t>(i)] = row;
    }
}

template <class T>
void Run<T>::make_room(bool with_gradients) {
    const std::size_t atoms = static_cast<std::size_t>(padded_ * plan_.total);
    if (memory_.atoms.size() < atoms) std::vector<T>().swap(memory_.atoms), memory_.atoms.resize(atoms);
    const std::int64_t n = padded(n_edges_), back = with_gradients, turn = engine_.directions() ? 3 : 0;
    Edges places;
    const std::array<std::pair<T**, std::int64_t>, 8> wanted = {{{&places.vectors, 3},
                                                                 {&places.r, 1},
                                                                 {&places.unit, turn},
                                                                 {&places.by_r, back},
                                                                 {&places.more_r, back},
                                                                 {&places.by_unit, back * turn},
                                                                 {&places.more_unit, back * turn},
                                                                 {&places.gradients, 3 * back}}};
    std::int64_t width = 0;
    for (const auto& w : wanted) width += w.second;
    const std::size_t edges = static_cast<std::size_t>(n * width);
    if (memory_.edges.size() < edges) std::vector<T>().swap(memory_.edges), memory_.edges.resize(edges);
    T* at = memory_.edges.data();
    for (const auto& [place, w] : wanted)
        if (w > 0) *place = at, at += n * w;
    e_ = places;
}

template <class T>
Columns<T> Run<T>::columns(int v, std::int64_t place) const {
    const Value& value = program_.values[v];
    const std::int64_t stride = value.base < 0 ? value.cols : program_.values[value.base].cols;
    T* const data = const_cast<T*>(memory_.atoms.data()) + place * padded_ + value.first;
    return {data, stride, value.cols};
}

template <class T>
Matrix<T> Run<T>::matrix(int v, std::int64_t place) const {
    const Value& value = program_.values[v];
    return {columns(v, place).data, n_, value.blocks * value.cols};
}

template <class T>
RadialTable<T> Run<T>::table(const Instruction& in) const {
    const Weight<T>& w = program_.weights[in.weights[0]];
    const double per_unit = static_cast<double>(w.shape[0]) / program_.cutoff;
    return {w.data.data(), w.shape[0], w.shape[2], static_cast<T>(program_.cutoff), static_cast<T>(per_unit)};
}

template <class T>
void Run<T>::forward(const Instruction& in, const typename Engine<T>::Layers& layers) {
    const Columns<T> out = value(in.outputs[0]);
    const std::int64_t n = rows_of(in.outputs[0]);
    const auto input = [&](std::size_t k) { return value(in.inputs[k]).view(); };
    switch (in.code) {
        case Code::embed: {
            const T* const weights = program_.weights[in.weights[0]].data.data();
            parallel_for(n, 1 + 32768 / out.cols, context_.n_threads, [&](std::int64_t begin, std::int64_t end) {
                for (std::int64_t i = begin; i < end; ++i) {
                    const T* const from = weights + memory_.elements[static_cast<std::size_t>(i)] * out.cols;
                    std::copy(from, from + out.cols, out.row(i));
                }
            });
            break;
        }
        case Code::zeros:
            fill(n * out.cols, out.data, context_);
            break;
        case Code::linear:
            for (std::size_t k = 0; k < in.inputs.size(); ++k)
                multiply<T>(n, input(k), layers.forward[k], layers.bias, k > 0, out, context_);
            break;
        case Code::add:
            for (std::size_t k = 1; k < in.inputs.size(); ++k)
                apply<T>({RowCode::add, k == 1 ? input(0) : out.view(), input(k), out}, n, context_);
            if (in.inputs.size() == 1) apply<T>({RowCode::copy, input(0), {}, out}, n, context_);
            break;
        case Code::multiply:
            apply<T>({RowCode::multiply, input(0), input(1), out}, n, context_);
            break;
        case Code::scale_vectors:
            apply<T>({RowCode::scale_vectors, input(0), input(1), out}, n_, context_);
            break;
        case Code::dot:
            apply<T>({RowCode::dot, input(0), input(1), out}, n_, context_);
            break;
        case Code::divide:
            apply<T>({RowCode::divide, input(0), input(1), out}, n, context_);
            break;
        case Code::plus:
            apply<T>({RowCode::plus, input(0), {}, out, false, in.constant}, n, context_);
            break;
        case Code::at_least:
            apply<T>({RowCode::at_least, input(0), {}, out, false, in.constant}, n, context_);
            break;
        case Code::root:
            apply<T>({RowCode::root, input(0), {}, out, false, in.constant}, n, context_);
            break;
        case Code::silu:
            apply<T>({RowCode::silu, input(0), {}, out}, n, context_);
            break;
        case Code::shifted_softplus:
            apply<T>({RowCode::shifted_softplus, input(0), {}, out}, n, context_);
            break;
        default:
            exchange(in, false);
            forward_message(in);
    }
}

template <class T>
void Run<T>::exchange(const Instruction& in, bool backwards) {
    if (!structure_.exchange) return;
    std::int64_t number = 0;
    for (const Instruction* other = program_.instructions.data(); other != &in; ++other)
        if (is_message(other->code)) number += static_cast<std::int64_t>(other->inputs.size());
    for (int v : in.inputs) {
        const Matrix<T> m = matrix(v, backwards ? plan_.gradient[v] : plan_.value[v]);
        if (!backwards || plan_.needs_gradient[v]) structure_.exchange(number, backwards, m.data, m.cols);
        ++number;
    }
}

template <class T>
void Run<T>::forward_message(const Instruction& in) {
    const auto given = [&](int k) { return matrix(in.inputs[k], plan_.value[in.inputs[k]]); };
    const auto out = [&](int k) { return matrix(in.outputs[k], plan_.value[in.outputs[k]]); };
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
    const Columns<T> e = value(program_.energies);
    for (std::int64_t i = 0; i < n_; ++i) {
        const std::size_t row = static_cast<std::size_t>(memory_.elements[static_cast<std::size_t>(i)]);
        energies[i] = program_.shift[row] + program_.scale[row] * static_cast<double>(*e.row(i));
    }
}

template class Run<float>;
template class Run<double>;

}  // namespace mdgnn::engine
