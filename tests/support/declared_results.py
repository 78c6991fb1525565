"""What the functions of an op return, beside what it declares."""

import torch

from mdgnn.ops.declaration import fits, shape_of
from mdgnn.ops.examples import Example
from mdgnn.ops.static import sizes_of


def check_results(op, options):
    """Fail unless forward, backward and double backward return arrays of the declared number, shapes and dtypes.

    Kernels read and write as much as is declared, so that smaller arrays end in a crash, sooner or later.
    """
    static, inputs = op.example(Example(options=options))
    sizes = sizes_of(static)
    for array, x in zip(op.inputs, inputs, strict=True):
        assert x is None or fits(array, x.shape, sizes), f"{op.name}: {array.name} of its example does not fit"

    def declared(array):
        if array.present is not None and not array.present(static, inputs):
            return None
        shape = inputs[0].shape if array.shape == "..." else shape_of(array, sizes)
        return tuple(shape), array.dtype or inputs[0].dtype

    n, needs_grad = (
        len(op.outputs),
        [x is not None and a.differentiable for x, a in zip(inputs, op.inputs, strict=True)],
    )
    of_results = [declared(array) for array in (*op.outputs, *op.saved)]
    of_inputs = [described(x) if needed else None for x, needed in zip(inputs, needs_grad, strict=True)]
    results = op.forward(static, inputs, needs_grad)
    compare(f"{op.name}, forward", results, of_results)
    grads = [None if t is None else torch.ones_like(t) for t in results[:n]]
    compare(f"{op.name}, backward", op.backward(static, grads, inputs, results[n:], needs_grad), of_inputs)
    if op.max_derivatives(static) >= 2:
        grad2 = [torch.ones_like(x) if needed else None for x, needed in zip(inputs, needs_grad, strict=True)]
        computed = op.double_backward(static, grad2, grads, inputs, [g is not None for g in grads] + needs_grad)
        compare(f"{op.name}, double_backward", computed, of_results[:n] + of_inputs)


def described(tensor):
    return None if tensor is None else (tuple(tensor.shape), tensor.dtype)


def compare(function, results, expected):
    assert isinstance(results, (tuple, list)), f"{function}: expected a list of arrays, got a {type(results).__name__}"
    assert len(results) == len(expected), f"{function}: expected {len(expected)} arrays, got {len(results)}"
    for k, (t, shape_and_dtype) in enumerate(zip(results, expected, strict=True)):
        assert described(t) == shape_and_dtype, f"{function}, array {k}: expected {shape_and_dtype}, got {described(t)}"
