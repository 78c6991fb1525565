// concat_message_table: (1, 2 H) -> (1, H) and (1, 1), the message of the SimpleGNN and the sum of its envelopes;
// weight: a table of H + 1. Saved for the way back: (1, H).
//
// The kernel, its parallelisation, memory traffic and floor: ops/concat_message/table.cpp.
#include "engine/instructions/all.hpp"
#include "ops/concat_message/table.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
ConcatMessageTable<T> op_of(const MessageStep<T>& step) {
    ConcatMessageTable<T> op;
    op.rows = step.rows, op.columns = step.columns;
    op.ends = step.inputs[0], op.table = step.prepared.table, op.r = step.r;
    op.silu_grads = step.saved[0].data, op.adds = step.adds;
    return op;
}

template <class T>
void forward(const MessageStep<T>& step) {
    cpu::concat_message_table<T>(op_of(step), {step.outputs[0], step.outputs[1].data, step.saved[0].data},
                                 step.context);
}

template <class T>
void backward(const MessageStep<T>& step) {
    cpu::concat_message_table_backward<T>(op_of(step), {step.output_grads[0], step.output_grads[1].data},
                                          {step.input_grads[0], nullptr, step.grad_r}, step.context);
}

bool fits(const Signature& s) {
    const std::int64_t n = s.outputs[0].channels;
    return s.inputs[0] == Shape{1, 2 * n} && s.outputs[0] == Shape{1, n} && s.outputs[1] == Shape{1, 1} &&
           is_table(s.weights[0], n + 1);
}

std::vector<Shape> saved(const Signature& s) { return {s.outputs[0]}; }

}  // namespace

constinit const Declaration kConcatMessageTable{
    .name = "concat_message_table",
    .inputs = 1,
    .outputs = 2,
    .weights = 1,
    .numbers = 0,
    .fits = fits,
    .reads = {.inputs = true},
    .message = true,
    .saved = saved,
    .float32 = {.message = forward<float>, .message_backward = backward<float>},
    .float64 = {.message = forward<double>, .message_backward = backward<double>}};

}  // namespace mdgnn::engine
