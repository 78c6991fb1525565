// Parallelisation: atoms in fixed shares, edges as in concat_message_linear, gradients of weights by rows of a weight,
// each summed over all atoms in order. Memory traffic per atom and layer: 7 F numbers saved, written once and read
// once; the weights come from the nearest cache. Floor per atom and layer: 6 F^2 multiply-adds, twice that in the
// backward with the gradients of the weights; for 128 atoms of 32 features 10 and 20 us at 150 GFLOP/s, which the
// products have. Beside the arithmetic of edges that is all: torch's operators, eleven a layer forward and twenty
// backward, take five times as long on batches of small molecules, and a node of autograd a layer a third more than one
// for all. A single output is summed in double, as in the engine: the terms cancel.
#include <algorithm>
#include <stdexcept>
#include <string>

#include "ops/concat_message_linear/concat_message_linear.hpp"
#include "ops/silu/silu.hpp"
#include "ops/simple_gnn/blocks.hpp"
#include "ops/simple_gnn/simple_gnn.hpp"

namespace mdgnn::cpu {
namespace {

constexpr std::int64_t kOfLayer = 8, kOfReadout = 4;  // weights
constexpr std::int64_t kSaved = 7;                    // of a layer: numbers for each feature of an atom

// Weights and biases of a network with one hidden layer, or their gradients, each of which may be null.
template <class T>
struct Mlp {
    Matrix<T> first;
    T* first_bias;
    Matrix<T> second;
    T* second_bias;

    Mlp(T* const* w, std::int64_t n_inputs, std::int64_t n_hidden, std::int64_t n_outputs)
        : first{w[0], n_hidden, n_inputs}, first_bias(w[1]), second{w[2], n_outputs, n_hidden}, second_bias(w[3]) {}
};

template <class T>
struct Layer {
    Mlp<T> message, update;

    Layer(T* const* w, std::int64_t width, std::int64_t n_basis)
        : message(w, 2 * width + n_basis, width, width), update(w + 4, 2 * width, width, width) {}
};

// What a layer leaves to its backward (N, F), ends (N, 2 F).
template <class T>
struct Saved {
    Matrix<T> h, ends, sums, silu_grads, total, hidden;

    Saved(T* data, std::int64_t n, std::int64_t width, std::int64_t layer) {
        data += layer * kSaved * n * width;
        for (Matrix<T>* m : {&h, &sums, &silu_grads, &total, &hidden}) *m = {data, n, width}, data += n * width;
        ends = {data, n, 2 * width};
    }
};

template <class T>
struct Sizes {
    std::int64_t n, width, n_basis, n_layers;

    explicit Sizes(const SimpleGnn<T>& op)
        : n(op.rows.n_rows),
          width(op.embedding.cols),
          n_basis(op.features.cols),
          n_layers((static_cast<std::int64_t>(op.weights.size()) - kOfReadout) / kOfLayer) {}

    // The readout's hidden layer stands behind all that layers leave.
    template <class S>
    Matrix<S> hidden(S* saved) const {
        return {saved + n_layers * kSaved * n * width, n, width};
    }
    template <class S>
    Layer<S> layer(const std::vector<S*>& weights, std::int64_t k) const {
        return {&weights[static_cast<std::size_t>(k * kOfLayer)], width, n_basis};
    }
    template <class S>
    Mlp<S> readout(const std::vector<S*>& weights) const {
        return {&weights[static_cast<std::size_t>(n_layers * kOfLayer)], width, width, 1};
    }
};

// n (N): the sums of the envelope.
template <class T>
std::vector<T> sums_of_envelope(const SimpleGnn<T>& op) {
    std::vector<T> sums(static_cast<std::size_t>(op.rows.n_rows));
    for (std::int64_t i = 0; i < op.rows.n_rows; ++i) {
        const std::int64_t begin = op.rows.row_ptr[i], end = op.rows.row_ptr[i + 1];
        T sum = op.envelope ? T(0) : static_cast<T>(end - begin);
        for (std::int64_t k = begin; op.envelope && k < end; ++k) sum += op.envelope[k];
        sums[static_cast<std::size_t>(i)] = sum;
    }
    return sums;
}

// Columns :2F of the message's first weight are those of an edge's ends, the others those of its features.
template <class T>
Array<T> weight_of_features(const Matrix<const T>& weight, std::int64_t n_basis) {
    Array<T> part(weight.rows, n_basis);
    for (std::int64_t f = 0; f < weight.rows; ++f)
        std::copy_n(weight.row(f) + weight.cols - n_basis, n_basis, part.view.row(f));
    return part;
}

template <class T>
Array<T> transposed(const Matrix<const T>& m) {
    Array<T> out(m.cols, m.rows);
    transpose<T>(m, 0, m.cols, out.view);
    return out;
}

template <class T>
ConcatMessageLinear<T> messages_of(const SimpleGnn<T>& op, const Array<T>& weight, Matrix<const T> ends,
                                   const T* silu_grads) {
    return {op.rows, op.columns, op.features, constant(weight.view), ends, op.envelope, silu_grads};
}

// Loops that compilers vectorise; in a function of their own, where pointers are known not to change.
template <class T>
void scaled(std::int64_t n, const T* x, T factor, T* out) {
    for (std::int64_t k = 0; k < n; ++k) out[k] = factor * x[k];
}

template <class T>
void sum_of(std::int64_t n, const T* a, const T* b, T* out) {
    for (std::int64_t k = 0; k < n; ++k) out[k] = a[k] + b[k];
}

// out += x
template <class T>
void add_to(std::int64_t n, const T* x, T* out, const Context& context) {
    parallel_for(n, 1 << 16, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        sum_of<T>(end - begin, x + begin, out + begin, out + begin);
    });
}

template <class T>
void forward(const SimpleGnn<T>& op, const Layer<const T>& w, const Saved<T>& s, const T* n_neighbours, Matrix<T> out,
             bool needs_grad, const Context& context) {
    const std::int64_t n = s.h.rows, width = s.h.cols;
    Array<T> for_ends(width, 2 * width);
    transpose<T>(w.message.first, 0, width, Block<T>(for_ends.view).columns(0, width));
    transpose<T>(w.message.first, width, width, Block<T>(for_ends.view).columns(width, width));
    const Array<T> second = transposed<T>(w.message.second),
                   for_features = weight_of_features<T>(w.message.first, op.features.cols);
    const Array<T> for_update = transposed<T>(w.update.first), last = transposed<T>(w.update.second);
    const Matrix<const T> h = constant(s.h);

    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            std::fill_n(s.ends.row(i), width, T(0));
            std::copy_n(w.message.first_bias, width, s.ends.row(i) + width);
        }
        multiply<true, T>(end - begin, {h, begin}, constant(for_ends.view), {s.ends, begin});
    });
    concat_message_linear(messages_of<T>(op, for_features, constant(s.ends), nullptr), s.sums,
                          needs_grad ? s.silu_grads.data : nullptr, context);
    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin;
        for (std::int64_t i = begin; i < end; ++i) {
            std::copy_n(w.update.first_bias, width, s.hidden.row(i));
            scaled<T>(width, w.message.second_bias, n_neighbours[i], s.total.row(i));
            sum_of<T>(width, h.row(i), w.update.second_bias, out.row(i));
        }
        const Block<T> hidden(s.hidden, begin);
        multiply<true, T>(count, {constant(s.sums), begin}, constant(second.view), {s.total, begin});
        multiply<true, T>(count, {h, begin}, constant(for_update.view), hidden);
        multiply<true, T>(count, {constant(s.total), begin}, {constant(for_update.view), width}, hidden);
        Array<T> active(count, width);
        silu<T>(count * width, hidden.data, active.view.data, Context{});
        multiply<true, T>(count, constant(active.view), constant(last.view), {out, begin});
    });
}

template <class T>
void read_out(const SimpleGnn<T>& op, const Mlp<const T>& w, Matrix<const T> h, Matrix<T> hidden, double* energies,
              const Context& context) {
    const Array<T> first = transposed<T>(w.first);
    parallel_for(h.rows, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) std::copy_n(w.first_bias, h.cols, hidden.row(i));
        multiply<true, T>(end - begin, {h, begin}, constant(first.view), {hidden, begin});
        Array<T> active(end - begin, h.cols);
        silu<T>((end - begin) * h.cols, hidden.row(begin), active.view.data, Context{});
        for (std::int64_t i = begin; i < end; ++i) {
            double sum = *w.second_bias;
            for (std::int64_t f = 0; f < h.cols; ++f)
                sum += static_cast<double>(active.view.row(i - begin)[f]) * static_cast<double>(w.second.data[f]);
            energies[i] = op.shift[op.types[i]] + op.scale[op.types[i]] * static_cast<double>(static_cast<T>(sum));
        }
    });
}

// Adds the gradient of the readout's input to out_h (N, F).
template <class T>
void read_out_backward(const SimpleGnn<T>& op, const Mlp<const T>& w, Matrix<const T> h, Matrix<const T> hidden,
                       const double* grad_energies, Matrix<T> out_h, const Mlp<T>& out, const Context& context) {
    const std::int64_t n = h.rows, width = h.cols;
    Array<T> grad(n, 1), grad_hidden(n, width), active(out.second ? n : 0, width);
    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin;
        for (std::int64_t i = begin; i < end; ++i)
            grad.view.data[i] = static_cast<T>(grad_energies[i] * op.scale[op.types[i]]);
        const Block<T> of_hidden(grad_hidden.view, begin);
        multiply<false, T>(count, {constant(grad.view), begin}, w.second, of_hidden);
        silu_backward<T>(count * width, of_hidden.data, hidden.row(begin), of_hidden.data, Context{});
        if (out.second) silu<T>(count * width, hidden.row(begin), active.view.row(begin), Context{});
        multiply<true, T>(count, {constant(grad_hidden.view), begin}, w.first, {out_h, begin});
    });
    WeightGradients<T> weights(n);
    weights.add(constant(grad_hidden.view), h, out.first);
    weights.add_bias(nullptr, constant(grad_hidden.view), out.first_bias);
    weights.add(constant(grad.view), constant(active.view), out.second);
    weights.add_bias(nullptr, constant(grad.view), out.second_bias);
    weights.run(context);
}

// out_h (N, F) is the gradient of h, or absent; out_features (E, B) and out_envelope (E) are written to, or absent.
template <class T>
void backward(const SimpleGnn<T>& op, const Layer<const T>& w, const Saved<const T>& s, const T* n_neighbours,
              Matrix<const T> grad, Matrix<T> out_h, Matrix<T> out_features, T* out_envelope, const Layer<T>& out,
              const Context& context) {
    const std::int64_t n = s.h.rows, width = s.h.cols, n_basis = op.features.cols;
    Array<T> grad_hidden(n, width), active(out.update.second ? n : 0, width), grad_total(n, width), grad_sums(n, width);
    const Block<const T> update_first(w.update.first);
    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin, size = count * width;
        const Block<T> of_hidden(grad_hidden.view, begin);
        const Block<const T> of_hidden_now(constant(grad_hidden.view), begin);
        multiply<false, T>(count, {grad, begin}, w.update.second, of_hidden);
        silu_backward<T>(size, of_hidden.data, s.hidden.row(begin), of_hidden.data, Context{});
        if (out.update.second) silu<T>(size, s.hidden.row(begin), active.view.row(begin), Context{});
        multiply<false, T>(count, of_hidden_now, update_first.columns(width, width), {grad_total.view, begin});
        multiply<false, T>(count, {constant(grad_total.view), begin}, w.message.second, {grad_sums.view, begin});
        if (!out_h) return;
        std::copy(grad.row(begin), grad.row(end), out_h.row(begin));
        multiply<true, T>(count, of_hidden_now, update_first.columns(0, width), {out_h, begin});
    });

    const bool of_ends = out_h || out.message.first || out.message.first_bias;
    Array<T> grad_ends(of_ends ? n : 0, 2 * width), of_features(out.message.first ? width : 0, n_basis);
    if (of_ends || out_features || out_envelope) {
        const Array<T> for_features = weight_of_features<T>(w.message.first, n_basis);
        ConcatMessageLinearGradients<T> gradients{out_features, {}, {}, out_envelope};
        if (out.message.first) gradients.weight = of_features.view;
        if (of_ends) gradients.ends = grad_ends.view;
        concat_message_linear_backward(messages_of<T>(op, for_features, s.ends, s.silu_grads.data),
                                       constant(grad_sums.view), gradients, context);
    }
    for (std::int64_t i = 0; out_envelope && i < n; ++i) {  // by n
        T sum = 0;
        for (std::int64_t f = 0; f < width; ++f) sum += grad_total.view.row(i)[f] * w.message.second_bias[f];
        for (std::int64_t k = op.rows.row_ptr[i]; k < op.rows.row_ptr[i + 1]; ++k) out_envelope[k] += sum;
    }
    const Block<const T> first(w.message.first), all_ends(constant(grad_ends.view));
    if (out_h)
        parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
            const Block<const T> both(constant(grad_ends.view), begin);
            for (const std::int64_t c : {std::int64_t{0}, width})
                multiply<true, T>(end - begin, both.columns(c, width), first.columns(c, width), {out_h, begin});
        });

    const Block<const T> of_hidden(constant(grad_hidden.view)), of_total(constant(grad_total.view));
    const Block<T> out_first(out.message.first), out_update(out.update.first);
    WeightGradients<T> weights(n);
    if (out.message.first) {
        for (const std::int64_t c : {std::int64_t{0}, width})
            weights.add(all_ends.columns(c, width), s.h, out_first.columns(c, width));
        for (std::int64_t f = 0; f < width; ++f)
            std::copy_n(of_features.view.row(f), n_basis, out.message.first.row(f) + 2 * width);
    }
    weights.add(of_total, s.sums, out.message.second);
    if (out.update.first) {
        weights.add(of_hidden, s.h, out_update.columns(0, width));
        weights.add(of_hidden, s.total, out_update.columns(width, width));
    }
    weights.add(grad, constant(active.view), out.update.second);
    weights.add_bias(nullptr, all_ends.columns(width, width), out.message.first_bias);
    weights.add_bias(n_neighbours, of_total, out.message.second_bias);
    weights.add_bias(nullptr, of_hidden, out.update.first_bias);
    weights.add_bias(nullptr, grad, out.update.second_bias);
    weights.run(context);
}

}  // namespace

std::int64_t simple_gnn_saved(std::int64_t n_atoms, std::int64_t n_features, std::int64_t n_weights) {
    return ((n_weights - kOfReadout) / kOfLayer * kSaved + 1) * n_atoms * n_features;
}

template <class T>
void simple_gnn(const SimpleGnn<T>& op, T* h, double* energies, T* saved, bool needs_grad, const Context& context) {
    const Sizes<T> size(op);
    const std::int64_t n = size.n, width = size.width;
    const Matrix<T> last{h, n, width};
    const auto input = [&](std::int64_t k) { return k < size.n_layers ? Saved<T>(saved, n, width, k).h : last; };
    for (std::int64_t i = 0; i < n; ++i) {
        if (op.types[i] < 0 || op.types[i] >= op.embedding.rows)
            throw std::out_of_range("expected types from 0 to " + std::to_string(op.embedding.rows - 1) + ", got " +
                                    std::to_string(op.types[i]));
        std::copy_n(op.embedding.row(op.types[i]), width, input(0).row(i));
    }
    const std::vector<T> n_neighbours = sums_of_envelope(op);
    for (std::int64_t k = 0; k < size.n_layers; ++k)
        forward<T>(op, size.layer(op.weights, k), {saved, n, width, k}, n_neighbours.data(), input(k + 1), needs_grad,
                   context);
    read_out<T>(op, size.readout(op.weights), constant(last), size.hidden(saved), energies, context);
}

template <class T>
void simple_gnn_backward(const SimpleGnn<T>& op, const T* h, const T* grad_h, const double* grad_energies,
                         const T* saved, const SimpleGnnGradients<T>& out, const Context& context) {
    const Sizes<T> size(op);
    const std::int64_t n = size.n, width = size.width, n_edges = op.features.rows, n_features = n_edges * size.n_basis;
    const std::vector<T> n_neighbours = sums_of_envelope(op);
    Array<T> of_output(n, width), of_input(n, width);
    grad_h ? std::copy_n(grad_h, n * width, of_output.view.data) : std::fill_n(of_output.view.data, n * width, T(0));
    const Mlp<T> readout = size.readout(out.weights);
    if (grad_energies)
        read_out_backward<T>(op, size.readout(op.weights), {h, n, width}, size.hidden(saved), grad_energies,
                             of_output.view, readout, context);
    // Those of the last layer go to `out`, those of the others are added to them.
    const bool several = size.n_layers > 1;
    Array<T> features(out.features && several ? n_edges : 0, size.n_basis), envelope(out.envelope ? n_edges : 0, 1);
    for (std::int64_t k = size.n_layers - 1; k >= 0; --k) {
        const bool is_last = k == size.n_layers - 1;
        const Matrix<T> of_features{is_last ? out.features : features.view.data, n_edges, size.n_basis};
        backward<T>(op, size.layer(op.weights, k), {saved, n, width, k}, n_neighbours.data(), constant(of_output.view),
                    k || out.embedding ? of_input.view : Matrix<T>{}, out.features ? of_features : Matrix<T>{},
                    !out.envelope ? nullptr
                    : is_last     ? out.envelope
                                  : envelope.view.data,
                    size.layer(out.weights, k), context);
        if (out.features && !is_last) add_to(n_features, features.view.data, out.features, context);
        if (out.envelope && !is_last) add_to(n_edges, envelope.view.data, out.envelope, context);
        std::swap(of_output, of_input);
    }
    if (!out.embedding) return;
    std::fill_n(out.embedding, op.embedding.rows * width, T(0));
    for (std::int64_t i = 0; i < n; ++i)
        for (std::int64_t f = 0; f < width; ++f) out.embedding[op.types[i] * width + f] += of_output.view.row(i)[f];
}

#define MDGNN_INSTANTIATE(T)                                                                               \
    template void simple_gnn<T>(const SimpleGnn<T>&, T*, double*, T*, bool, const Context&);               \
    template void simple_gnn_backward<T>(const SimpleGnn<T>&, const T*, const T*, const double*, const T*, \
                                         const SimpleGnnGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
