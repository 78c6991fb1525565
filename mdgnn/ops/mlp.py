"""mlp: a perceptron with one hidden layer, ``silu(x W1^T + b1) W2^T + b2``, in one call.

On a few hundred rows the overhead of torch's operators, five here and a dozen in the backward, is several times their
arithmetic. The kernels are the CPU's, forward and backward; second derivatives are those of the reference, which CUDA
and torch.compile take, too. A third derivative is refused.
"""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, by_reference, contiguous, empty_like
from mdgnn.ops.examples import Example
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.silu import silu


class Static(NamedTuple):
    pass


STATIC = Static()


def reference(x: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor) -> Tensor:
    """The specification, in plain torch."""
    hidden = silu(F.linear(x, weight_1, bias_1))
    if len(weight_2) != 1:
        return F.linear(hidden, weight_2, bias_2)
    # BLAS gives products with a single column other bits for other numbers of threads.
    return (hidden * weight_2).sum(dim=1, keepdim=True) + bias_2


def mlp(x: Tensor, weight_1: Tensor, bias_1: Tensor, weight_2: Tensor, bias_2: Tensor) -> Tensor:
    """Linear, SiLU, Linear.

    Parameters
    ----------
    x : (N, C) float32 or float64
    weight_1, bias_1 : (H, C), (H,)
    weight_2, bias_2 : (K, H), (K,)

    Returns
    -------
    (N, K)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    out: Tensor
    (out,) = MLP_OP(STATIC, x, weight_1, bias_1, weight_2, bias_2)
    return out


# --- the kernels: inputs are x, weight_1, bias_1, weight_2, bias_2; output out; saved: hidden (N, H) ------------------


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The values (N, K), and those of the hidden layer; no graph is recorded."""
    x, weight_1, bias_1, weight_2, bias_2 = contiguous(inputs)
    out, hidden = x.new_empty(len(x), len(weight_2)), x.new_empty(len(x), len(weight_1))
    kernels, context = kernels_for(x)
    kernels.mlp(
        itemsize=x.element_size(),
        x=x,
        weight_1=weight_1,
        bias_1=bias_1,
        weight_2=weight_2,
        bias_2=bias_2,
        out=out,
        hidden=hidden,
        context=context,
    )
    return out, hidden


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradients of the inputs, as `needs_grad`; no graph is recorded."""
    x, weight_1, bias_1, weight_2, bias_2 = inputs = contiguous(inputs)
    out_x, out_weight_1, out_bias_1, out_weight_2, out_bias_2 = input_grads = empty_like(inputs, needs_grad)
    kernels, context = kernels_for(x)
    kernels.mlp_backward(
        itemsize=x.element_size(),
        x=x,
        weight_1=weight_1,
        bias_1=bias_1,
        weight_2=weight_2,
        bias_2=bias_2,
        hidden=saved[0],
        grad=grads[0].contiguous(),
        out_x=out_x,
        out_weight_1=out_weight_1,
        out_bias_1=out_bias_1,
        out_weight_2=out_weight_2,
        out_bias_2=out_bias_2,
        context=context,
    )
    return input_grads


def _example(e: Example) -> tuple[Static, tuple[Tensor, ...]]:
    n_hidden, n_out = e.width + 1, 3
    x, weight_1, bias_1 = e.normal(e.n_atoms, e.width), e.normal(n_hidden, e.width), e.normal(n_hidden)
    return STATIC, (x, weight_1, bias_1, e.normal(n_out, n_hidden), e.normal(n_out))


MLP_OP = Op(
    "mlp",
    "silu(x @ weight_1^T + bias_1) @ weight_2^T + bias_2",
    mlp,
    reference,
    lambda static, *inputs: inputs,
    Static,
    inputs=(
        Array("x", "N C"),
        Array("weight_1", "H C"),
        Array("bias_1", "H"),
        Array("weight_2", "K H"),
        Array("bias_2", "K"),
    ),
    outputs=(Array("out", "N K"),),
    saved=(Array("hidden", "N H"),),
    forward=forward,
    backward=backward,
    double_backward=by_reference(reference, lambda static, *inputs: inputs),
    example=_example,
    devices=("cpu",),
)
