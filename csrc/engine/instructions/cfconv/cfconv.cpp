// cfconv: (1, C) -> (1, C), the message of SchNet; weight: a table of C.
//
// The kernel, its parallelisation, memory traffic and floor: ops/cfconv/cpu.cpp.
#include "ops/cfconv/cfconv.hpp"

#include "engine/instruction.hpp"

namespace mdgnn::engine {
namespace {

template <class T>
CfConv<T> op_of(const MessageStep<T>& step) {
    return {step.rows, step.columns, step.inputs[0], step.prepared.table, step.r, {}, step.adds};
}

template <class T>
void forward(const MessageStep<T>& step) {
    cpu::cfconv<T>(op_of(step), step.outputs[0], step.context);
}

template <class T>
void backward(const MessageStep<T>& step) {
    cpu::cfconv_backward<T>(op_of(step), step.output_grads[0], step.input_grads[0], step.grad_r, nullptr, step.context);
}

bool fits(const Signature& s) {
    return s.inputs[0].components == 1 && s.outputs[0] == s.inputs[0] && is_table(s.weights[0], s.inputs[0].channels);
}

}  // namespace

extern constinit const Declaration kCfConv{
    .name = "cfconv",
    .inputs = 1,
    .outputs = 1,
    .weights = 1,
    .numbers = 0,
    .fits = fits,
    .reads = {.inputs = true},
    .message = true,
    .float32 = {.message = forward<float>, .message_backward = backward<float>},
    .float64 = {.message = forward<double>, .message_backward = backward<double>}};

}  // namespace mdgnn::engine
