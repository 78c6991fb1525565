"""silu: x / (1 + exp(-x)) whose bits do not depend on the number of threads, as torch's do on a CPU.

A third derivative is refused. Devices other than the CPU, torch.compile, half precision and arrays that torch does not
split over threads use torch's, which costs a tenth of the overhead and can be differentiated any number of times.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous
from mdgnn.ops.dual import DERIVATIVES, silu_slope
from mdgnn.ops.kernels import kernels_for

_TORCH_SPLITS = 32768  # elements: torch's at::internal::GRAIN_SIZE, below which one thread does all
_HALF = (torch.float16, torch.bfloat16)


class Static(NamedTuple):
    pass


_STATIC = Static()


def reference(x: Tensor) -> Tensor:
    """The specification, in plain torch."""
    return x / (1 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    """SiLU (Elfwing et al., Neural Networks 107, 3, 2018) of a float32 or float64 tensor of any shape."""
    if has_torch_function_unary(x):
        return handle_torch_function(silu, (x,), x)
    if x.numel() < _TORCH_SPLITS or not x.is_cpu or torch.compiler.is_compiling() or x.dtype in _HALF:
        return F.silu(x)
    out: Tensor
    (out,) = SILU(_STATIC, x)
    return out


DERIVATIVES[silu] = silu_slope


# --- the kernels: one input, one output -------------------------------------------------------------------------------


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Tensors:
    """The value; no graph is recorded."""
    x = inputs[0].contiguous()
    out = torch.empty_like(x)
    kernels, context = kernels_for(x)
    kernels.silu(itemsize=x.element_size(), n=x.numel(), x=x, out=out, context=context)
    return (out,)


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """``grad * silu'(x)``; no graph is recorded."""
    grad, x = grads[0].contiguous(), inputs[0].contiguous()
    out = torch.empty_like(x)
    kernels, context = kernels_for(x)
    kernels.silu_backward(itemsize=x.element_size(), n=x.numel(), grad=grad, x=x, out=out, context=context)
    return (out,)


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """For grad ``grad2 * silu'(x)``, for x ``grad2 * grad * silu''(x)``; no graph is recorded."""
    (by,), (grad,), (x,) = contiguous(grad2), contiguous(grads), contiguous(inputs)
    (out_grad,) = backward(static, (by,), (x,), (), needs_grad) if needs_grad[0] else (None,)
    if not needs_grad[1]:
        return out_grad, None
    out = torch.empty_like(x)
    kernels, context = kernels_for(x)
    size, n = x.element_size(), x.numel()
    kernels.silu_double_backward(itemsize=size, n=n, grad2=by, grad=grad, x=x, out=out, context=context)
    return out_grad, out


SILU = Op(
    "silu",
    "x / (1 + exp(-x))",
    silu,
    reference,
    lambda static, x: (x,),
    Static,
    inputs=(Array("x", "..."),),
    outputs=(Array("out", "..."),),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=lambda e: (Static(), (2 * e.normal(e.n_edges, e.width),)),
    devices=("cpu",),
    source="Elfwing et al., Neural Networks 107, 3 (2018)",
)
