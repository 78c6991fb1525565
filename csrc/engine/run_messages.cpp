// Messages: phases of their own, whose kernels have their own loops over threads.
#include <algorithm>

#include "core/thread_pool.hpp"
#include "engine/run.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
void add_to(std::int64_t n, const T* x, T* to, const Context& context) {
    parallel_for(n, 16384, context.n_threads, [&](std::int64_t a, std::int64_t b) {
        for (std::int64_t k = a; k < b; ++k) to[k] += x[k];
    });
}

template <class T>
Matrix<const T> constant(const Matrix<T>& m) {
    return {m.data, m.rows, m.cols};
}

}  // namespace

template <class T>
Matrix<T> Run<T>::matrix(int v, const Place& place) const {
    const std::int64_t cols = program_.arrays[v].shape.size();
    if (place.at < 0) return {nullptr, n_, cols};
    return {memory_.atoms.data() + place.at * padded_, n_, cols};
}

template <class T>
MessageStep<T> Run<T>::message_step(std::size_t k) const {
    const Instruction& in = program_.instructions[k];
    MessageStep<T> step{engine_.prepared(k), structure_.rows,      columns_,
                        edges_.received.r,   edges_.received.unit, context_};
    for (std::size_t m = 0; m < in.inputs.size(); ++m)
        step.inputs[m] = constant(matrix(in.inputs[m], plan_.value[in.inputs[m]]));
    for (std::size_t m = 0; m < in.outputs.size(); ++m)
        step.outputs[m] = matrix(in.outputs[m], plan_.value[in.outputs[m]]);
    for (std::size_t m = 0; m < in.saved.size(); ++m) step.saved[m] = matrix(in.saved[m], plan_.value[in.saved[m]]);
    return step;
}

template <class T>
void Run<T>::forward_message(std::size_t k) {
    program_.instructions[k].type->template kernels<T>().message(message_step(k));
}

template <class T>
void Run<T>::backward_message(std::size_t k) {
    const Instruction& in = program_.instructions[k];
    const Back& back = plan_.back[k];
    MessageStep<T> step = message_step(k);
    step.columns.edge = nullptr, step.r = edges_.sent.r, step.unit = edges_.sent.unit;
    for (std::size_t m = 0; m < in.outputs.size(); ++m)
        step.output_grads[m] = constant(matrix(in.outputs[m], plan_.gradient[in.outputs[m]]));
    // A kernel writes what it gives; where something is there already, it writes to spare room, and that is added.
    T* room = memory_.atoms.data() + plan_.total * padded_;
    for (std::size_t m = 0; m < in.inputs.size(); ++m) {
        if (!back.needs_grad[m]) continue;
        step.input_grads[m] = matrix(in.inputs[m], plan_.gradient[in.inputs[m]]);
        if (back.add[m]) step.input_grads[m].data = room, room += padded_ * step.input_grads[m].cols;
    }
    step.grad_r = edges_.sent_grads.r, step.adds = written_;
    if (in.type->takes_directions) {
        T* const grad_unit = step.grad_unit = edges_.sent_grads.unit;
        if (written_ && !unit_written_)  // by a message that takes no directions
            parallel_for(3 * n_edges_, 65536, context_.n_threads,
                         [&](std::int64_t a, std::int64_t b) { std::fill(grad_unit + a, grad_unit + b, T(0)); });
        unit_written_ = true;
    }
    in.type->template kernels<T>().message_backward(step);
    written_ = true;
    for (std::size_t m = 0; m < in.inputs.size(); ++m)
        if (back.add[m])
            add_to(step.input_grads[m].rows * step.input_grads[m].cols, static_cast<const T*>(step.input_grads[m].data),
                   matrix(in.inputs[m], plan_.gradient[in.inputs[m]]).data, context_);
}

template <class T>
void Run<T>::exchange(std::size_t k, bool backwards) {
    if (!structure_.exchange) return;
    std::int64_t number = 0;
    for (std::size_t m = 0; m < k; ++m)
        if (program_.instructions[m].type->message)
            number += static_cast<std::int64_t>(program_.instructions[m].inputs.size());
    for (const int v : program_.instructions[k].inputs) {
        const Matrix<T> m = matrix(v, backwards ? plan_.gradient[v] : plan_.value[v]);
        if (!backwards || plan_.needs_grad[v]) structure_.exchange(number, backwards, m.data, m.cols);
        ++number;
    }
}

#define MDGNN_INSTANTIATE(T)                             \
    template void Run<T>::forward_message(std::size_t);  \
    template void Run<T>::backward_message(std::size_t); \
    template void Run<T>::exchange(std::size_t, bool);
MDGNN_INSTANTIATE(float)
MDGNN_INSTANTIATE(double)

}  // namespace mdgnn::engine
