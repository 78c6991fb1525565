"""silu: x / (1 + exp(-x)) whose bits do not depend on the number of threads, as torch's do on a CPU.

The derivative ladder is forward, backward, double backward; a third derivative is refused. Devices other than the CPU,
torch.compile, and arrays that torch does not split over threads use torch's, which costs a tenth of the overhead.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn import _C
from mdgnn.ops.dual import SLOPES, silu_slope
from mdgnn.threads import get_num_threads

_TORCH_SPLITS = 32768  # elements: torch's at::internal::GRAIN_SIZE, below which one thread does all


def reference(x: Tensor) -> Tensor:
    """The specification, in plain torch."""
    return x / (1 + torch.exp(-x))


def silu(x: Tensor) -> Tensor:
    """SiLU (Elfwing et al., Neural Networks 107, 3, 2018) of a float32 or float64 tensor of any shape."""
    if has_torch_function_unary(x):
        return handle_torch_function(silu, (x,), x)
    if x.numel() < _TORCH_SPLITS or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.silu(x)
    if x.dtype not in (torch.float32, torch.float64):
        return F.silu(x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Silu.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return forward(x)


SLOPES[silu] = silu_slope


def forward(x: Tensor) -> Tensor:
    """The value; no graph is recorded."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _C.silu(x.element_size(), x.numel(), x.data_ptr(), y.data_ptr(), get_num_threads())
    return y


def backward(grad: Tensor, x: Tensor) -> Tensor:
    """``grad * silu'(x)``; no graph is recorded."""
    grad, x = grad.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    n = x.numel()
    _C.silu_backward(x.element_size(), n, grad.data_ptr(), x.data_ptr(), out.data_ptr(), get_num_threads())
    return out


def double_backward(grad2: Tensor, grad: Tensor, x: Tensor) -> Tensor:
    """``grad2 * grad * silu''(x)``; no graph is recorded."""
    grad2, grad, x = grad2.contiguous(), grad.contiguous(), x.contiguous()
    out = torch.empty_like(x)
    addresses = (grad2.data_ptr(), grad.data_ptr(), x.data_ptr(), out.data_ptr())
    _C.silu_double_backward(x.element_size(), x.numel(), *addresses, get_num_threads())
    return out


class _Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _SiluBackward.apply(grad, x)  # type: ignore[no-any-return, no-untyped-call]
        return backward(grad, x)


class _SiluBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return backward(grad, x)

    @staticmethod
    def backward(ctx: Any, grad2: Tensor) -> tuple[Tensor, Tensor]:
        return _SiluDoubleBackward.apply(grad2, *ctx.saved_tensors)  # type: ignore[no-any-return, no-untyped-call]


class _SiluDoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad2: Tensor, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return backward(grad2, x), double_backward(grad2, grad, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("silu: third derivatives are not implemented; the ladder ends at the second")
