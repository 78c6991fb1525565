// painn_message: (1, 3 F), (3, F) -> (1, F), (3, F), the message of PaiNN; weight: a table of 3 F.
//
// The kernel, its parallelisation, memory traffic and floor: ops/painn_message/cpu.cpp.
#include "ops/painn_message/painn_message.hpp"

#include "engine/instruction.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
PainnMessage<T> op_of(const MessageStep<T>& step) {
    return {step.rows, step.columns, step.inputs[0], step.inputs[1], step.prepared.table, step.r,
            step.unit, {},           step.adds};
}

template <class T>
void forward(const MessageStep<T>& step) {
    cpu::painn_message<T>(op_of(step), {step.outputs[0], step.outputs[1]}, step.context);
}

template <class T>
void backward(const MessageStep<T>& step) {
    cpu::painn_message_backward<T>(op_of(step), {step.output_grads[0], step.output_grads[1]},
                                   {step.input_grads[0], step.input_grads[1], nullptr, step.grad_r, step.grad_unit},
                                   step.context);
}

bool fits(const Signature& s) {
    const std::int64_t n = s.outputs[0].channels;
    return s.inputs[0] == Shape{1, 3 * n} && s.inputs[1] == Shape{3, n} && s.outputs[0] == Shape{1, n} &&
           s.outputs[1] == Shape{3, n} && is_table(s.weights[0], 3 * n);
}

}  // namespace

extern constinit const Declaration kPainnMessage{
    .name = "painn_message",
    .inputs = 2,
    .outputs = 2,
    .weights = 1,
    .numbers = 0,
    .fits = fits,
    .reads = {.inputs = true},
    .message = true,
    .takes_directions = true,
    .joint_gradients = true,
    .float32 = {.message = forward<float>, .message_backward = backward<float>},
    .float64 = {.message = forward<double>, .message_backward = backward<double>}};

}  // namespace mdgnn::engine
