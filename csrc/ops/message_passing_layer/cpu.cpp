// Parallelisation: atoms in fixed shares, edges as in concat_message_linear, gradients of weights by rows of a weight,
// each summed over all atoms in order. Memory traffic per atom: h, and what is saved for the backward, once a pass; the
// weights come from the nearest cache. Floor per atom: 2 F H + H K + (F + K) G + G F multiply-adds, twice that in the
// backward with the gradients of the weights; for 128 atoms of 32 features 10 and 20 us at 150 GFLOP/s, which the
// products have. Beside the arithmetic of edges that is all: of torch's operators a layer needs eleven forward and
// twenty backward, which take five times as long on batches of small molecules.
#include <algorithm>

#include "ops/concat_message_linear/concat_message_linear.hpp"
#include "ops/message_passing_layer/message_passing_layer.hpp"
#include "ops/mlp/blocks.hpp"
#include "ops/silu/silu.hpp"

namespace mdgnn::cpu {
namespace {

// Columns :2F of the message's first weight are those of an edge's ends, the others those of its features.
template <class T>
Array<T> weight_of_features(const MessagePassingLayer<T>& op) {
    const std::int64_t n = op.features.cols;
    Array<T> weight(op.message_1.rows, n);
    for (std::int64_t f = 0; f < op.message_1.rows; ++f)
        std::copy_n(op.message_1.row(f) + 2 * op.h.cols, n, weight.view.row(f));
    return weight;
}

template <class T>
ConcatMessageLinear<T> messages_of(const MessagePassingLayer<T>& op, const Matrix<T>& weight, Matrix<const T> ends,
                                   const T* silu_grads) {
    return {op.rows, op.columns, op.features, constant(weight), ends, op.envelope, silu_grads};
}

}  // namespace

template <class T>
void message_passing_layer(const MessagePassingLayer<T>& op, Matrix<T> out, const MessagePassingLayerSaved<T>& saved,
                           const Context& context) {
    const std::int64_t n = op.h.rows, n_features = op.h.cols, width = op.message_1.rows;
    const Matrix<T> ends = saved.ends(), sums = saved.sums();
    Array<T> for_ends(n_features, 2 * width), second(width, op.message_2.rows);
    Array<T> for_update(op.update_1.cols, op.update_1.rows), last(op.update_2.cols, op.update_2.rows);
    const Array<T> for_features = weight_of_features(op);
    transpose<T>(op.message_1, 0, n_features, Block<T>(for_ends.view).columns(0, width));
    transpose<T>(op.message_1, n_features, n_features, Block<T>(for_ends.view).columns(width, width));
    transpose<T>(op.message_2, 0, width, second.view);
    transpose<T>(op.update_1, 0, op.update_1.cols, for_update.view);
    transpose<T>(op.update_2, 0, op.update_2.cols, last.view);

    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
            std::fill_n(ends.row(i), width, T(0));
            std::copy_n(op.message_bias_1, width, ends.row(i) + width);
        }
        multiply<true, T>(end - begin, {op.h, begin}, constant(for_ends.view), {ends, begin});
    });
    concat_message_linear(messages_of(op, for_features.view, constant(ends), static_cast<const T*>(nullptr)), sums,
                          saved.silu_grads.data, context);
    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin;
        for (std::int64_t i = begin; i < end; ++i) {
            for (std::int64_t k = 0; k < saved.total.cols; ++k)
                saved.total.row(i)[k] = op.n_neighbours[i] * op.message_bias_2[k];
            std::copy_n(op.update_bias_1, saved.hidden.cols, saved.hidden.row(i));
            for (std::int64_t f = 0; f < n_features; ++f) out.row(i)[f] = op.h.row(i)[f] + op.update_bias_2[f];
        }
        const Block<T> hidden(saved.hidden, begin);
        multiply<true, T>(count, {constant(sums), begin}, constant(second.view), {saved.total, begin});
        multiply<true, T>(count, {op.h, begin}, constant(for_update.view), hidden);
        multiply<true, T>(count, {constant(saved.total), begin}, {constant(for_update.view), n_features}, hidden);
        Array<T> active(count, hidden.cols);
        silu<T>(count * hidden.cols, hidden.data, active.view.data, Context{});
        multiply<true, T>(count, constant(active.view), constant(last.view), {out, begin});
    });
}

template <class T>
void message_passing_layer_backward(const MessagePassingLayer<T>& op, Matrix<const T> grad,
                                    const MessagePassingLayerSaved<const T>& saved,
                                    const MessagePassingLayerGradients<T>& out, const Context& context) {
    const std::int64_t n = op.h.rows, n_features = op.h.cols, width = op.message_1.rows;
    const Matrix<const T> ends = saved.ends(), sums = saved.sums();
    Array<T> grad_hidden(n, op.update_1.rows), active(out.update_2 ? n : 0, op.update_1.rows);
    Array<T> grad_total(n, op.message_2.rows), grad_sums(n, width);
    const Block<const T> update_1(op.update_1);
    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin, size = count * op.update_1.rows;
        const Block<T> of_hidden(grad_hidden.view, begin), of_total(grad_total.view, begin);
        const Block<const T> of_hidden_now(constant(grad_hidden.view), begin);
        multiply<false, T>(count, {grad, begin}, op.update_2, of_hidden);
        silu_backward<T>(size, of_hidden.data, saved.hidden.row(begin), of_hidden.data, Context{});
        if (out.update_2) silu<T>(size, saved.hidden.row(begin), active.view.row(begin), Context{});
        multiply<false, T>(count, of_hidden_now, update_1.columns(n_features, op.message_2.rows), of_total);
        multiply<false, T>(count, {constant(grad_total.view), begin}, op.message_2, {grad_sums.view, begin});
        for (std::int64_t i = begin; out.n_neighbours && i < end; ++i) {
            T sum = 0;
            for (std::int64_t k = 0; k < op.message_2.rows; ++k)
                sum += grad_total.view.row(i)[k] * op.message_bias_2[k];
            out.n_neighbours[i] = sum;
        }
        if (!out.h) return;
        std::copy(grad.row(begin), grad.row(end), out.h.row(begin));
        multiply<true, T>(count, of_hidden_now, update_1.columns(0, n_features), {out.h, begin});
    });

    const bool of_ends = out.h || out.message_1 || out.message_bias_1;
    Array<T> grad_ends(of_ends ? n : 0, 2 * width), of_features(out.message_1 ? width : 0, op.features.cols);
    if (of_ends || out.features || out.envelope) {
        const Array<T> for_features = weight_of_features(op);
        ConcatMessageLinearGradients<T> gradients{out.features, {}, {}, out.envelope};
        if (out.message_1) gradients.weight = of_features.view;
        if (of_ends) gradients.ends = grad_ends.view;
        concat_message_linear_backward(messages_of(op, for_features.view, ends, saved.silu_grads.data),
                                       constant(grad_sums.view), gradients, context);
    }
    const Block<const T> message_1(op.message_1), all_ends(constant(grad_ends.view));
    if (out.h)
        parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
            const Block<const T> of_both(constant(grad_ends.view), begin);
            multiply<true, T>(end - begin, of_both.columns(0, width), message_1.columns(0, n_features), {out.h, begin});
            multiply<true, T>(end - begin, of_both.columns(width, width), message_1.columns(n_features, n_features),
                              {out.h, begin});
        });

    const Block<const T> of_hidden(constant(grad_hidden.view)), of_total(constant(grad_total.view));
    const Block<T> out_message_1(out.message_1), out_update_1(out.update_1);
    WeightGradients<T> weights(n);
    if (out.message_1) {
        weights.add(all_ends.columns(0, width), op.h, out_message_1.columns(0, n_features));
        weights.add(all_ends.columns(width, width), op.h, out_message_1.columns(n_features, n_features));
        for (std::int64_t f = 0; f < width; ++f)
            std::copy_n(of_features.view.row(f), op.features.cols, out.message_1.row(f) + 2 * n_features);
    }
    weights.add(of_total, sums, out.message_2);
    if (out.update_1) {
        weights.add(of_hidden, op.h, out_update_1.columns(0, n_features));
        weights.add(of_hidden, saved.total, out_update_1.columns(n_features, op.message_2.rows));
    }
    weights.add(grad, constant(active.view), out.update_2);
    weights.add_bias(nullptr, all_ends.columns(width, width), out.message_bias_1);
    weights.add_bias(op.n_neighbours, of_total, out.message_bias_2);
    weights.add_bias(nullptr, of_hidden, out.update_bias_1);
    weights.add_bias(nullptr, grad, out.update_bias_2);
    weights.run(context);
}

#define MDGNN_INSTANTIATE(T)                                                                        \
    template void message_passing_layer<T>(const MessagePassingLayer<T>&, Matrix<T>,                \
                                           const MessagePassingLayerSaved<T>&, const Context&);     \
    template void message_passing_layer_backward<T>(const MessagePassingLayer<T>&, Matrix<const T>, \
                                                    const MessagePassingLayerSaved<const T>&,       \
                                                    const MessagePassingLayerGradients<T>&, const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
