// Parallelisation: rows in fixed shares, gradients of weights by rows of a weight, each summed over all rows of x in
// order. Memory traffic per row: x, hidden and out once a pass; the weights come from the nearest cache. Floor per row:
// C H + H K multiply-adds, twice that in the backward with the gradients of the weights. torch's operators are five
// forward and twelve backward, whose overhead is several times that on a few hundred rows. A single output, such as an
// energy, is summed in double, as in the engine: the terms cancel.
#include <algorithm>

#include "ops/mlp/blocks.hpp"
#include "ops/mlp/mlp.hpp"
#include "ops/silu/silu.hpp"

namespace mdgnn::cpu {
namespace {

template <class T>
void one_column(std::int64_t n_rows, const Block<const T>& x, const T* weight, T bias, T* out) {
    for (std::int64_t i = 0; i < n_rows; ++i) {
        double sum = bias;
        for (std::int64_t k = 0; k < x.cols; ++k)
            sum += static_cast<double>(x.row(i)[k]) * static_cast<double>(weight[k]);
        out[i] = static_cast<T>(sum);
    }
}

}  // namespace

template <class T>
void mlp(const Mlp<T>& op, Matrix<T> out, Matrix<T> hidden, const Context& context) {
    const std::int64_t width = op.weight_1.rows, n_outputs = op.weight_2.rows;
    Array<T> first(op.weight_1.cols, width), second(width, n_outputs);
    transpose<T>(op.weight_1, 0, op.weight_1.cols, first.view);
    transpose<T>(op.weight_2, 0, width, second.view);
    parallel_for(op.x.rows, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin;
        for (std::int64_t i = begin; i < end; ++i) {
            std::copy_n(op.bias_1, width, hidden.row(i));
            std::copy_n(op.bias_2, n_outputs, out.row(i));
        }
        multiply<true, T>(count, {op.x, begin}, constant(first.view), {hidden, begin});
        Array<T> active(count, width);
        silu<T>(count * width, hidden.row(begin), active.view.data, Context{});
        if (n_outputs == 1)
            one_column<T>(count, constant(active.view), op.weight_2.data, *op.bias_2, out.row(begin));
        else
            multiply<true, T>(count, constant(active.view), constant(second.view), {out, begin});
    });
}

template <class T>
void mlp_backward(const Mlp<T>& op, Matrix<const T> hidden, Matrix<const T> grad, const MlpGradients<T>& out,
                  const Context& context) {
    const std::int64_t n = op.x.rows, width = op.weight_1.rows;
    Array<T> grad_hidden(n, width), active(out.weight_2 ? n : 0, width);
    parallel_for(n, kRows, context.n_threads, [&](std::int64_t begin, std::int64_t end) {
        const std::int64_t count = end - begin;
        const Block<T> of_hidden(grad_hidden.view, begin);
        multiply<false, T>(count, {grad, begin}, op.weight_2, of_hidden);
        silu_backward<T>(count * width, of_hidden.data, hidden.row(begin), of_hidden.data, Context{});
        if (out.weight_2) silu<T>(count * width, hidden.row(begin), active.view.row(begin), Context{});
        if (out.x) multiply<false, T>(count, {constant(grad_hidden.view), begin}, op.weight_1, {out.x, begin});
    });
    WeightGradients<T> weights(n);
    weights.add(constant(grad_hidden.view), op.x, out.weight_1);
    weights.add_bias(nullptr, constant(grad_hidden.view), out.bias_1);
    weights.add(grad, constant(active.view), out.weight_2);
    weights.add_bias(nullptr, grad, out.bias_2);
    weights.run(context);
}

#define MDGNN_INSTANTIATE(T)                                                                               \
    template void mlp<T>(const Mlp<T>&, Matrix<T>, Matrix<T>, const Context&);                             \
    template void mlp_backward<T>(const Mlp<T>&, Matrix<const T>, Matrix<const T>, const MlpGradients<T>&, \
                                  const Context&);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::cpu
