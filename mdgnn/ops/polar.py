"""polar: lengths of edge vectors, and their directions.

``r[e] = |vectors[e]|,  unit[e] = vectors[e] / r[e]``

The derivative ladder is forward, backward, double backward; a third derivative is refused. Only the vectors are kept
for it. The kernels are the CPU's; CUDA and torch.compile take the reference.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn import _C
from mdgnn.ops.csr import address
from mdgnn.ops.ladder import third_derivative
from mdgnn.threads import get_num_threads


def reference(vectors: Tensor, directions: bool = True) -> tuple[Tensor, Tensor | None]:
    """The specification, in plain torch."""
    squares = vectors.square().sum(1)
    zero = squares == 0  # without this the derivatives there are not numbers
    length = torch.where(zero, 1.0, squares).sqrt()
    unit = torch.where(zero[:, None], 0.0, vectors / length[:, None]) if directions else None
    return torch.where(zero, 0.0, length), unit


def polar(vectors: Tensor, directions: bool = True) -> tuple[Tensor, Tensor | None]:
    """Lengths (E,) and, unless nobody wants them, directions (E, 3).

    Parameters
    ----------
    vectors : (E, 3) float32 or float64
        Where the length is zero, so are the direction and all derivatives.

    Raises
    ------
    ValueError
        If the shape or dtype does not fit.
    """
    if has_torch_function_unary(vectors):
        return handle_torch_function(polar, (vectors,), vectors, directions=directions)
    if vectors.ndim != 2 or vectors.shape[1] != 3 or vectors.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"expected vectors of shape (E, 3) in float32 or float64, got {tuple(vectors.shape)} {vectors.dtype}"
        )
    if torch.compiler.is_compiling() or vectors.device.type != "cpu":
        return reference(vectors, directions)
    out: tuple[Tensor, Tensor | None] = _Forward.apply(vectors, directions)  # type: ignore[no-untyped-call]
    return out


# --- the kernels -----------------------------------------------------------------------------------------------------


def _op(vectors: Tensor) -> tuple[int, int, int]:
    return vectors.element_size(), vectors.data_ptr(), vectors.shape[0]


def forward(vectors: Tensor, directions: bool) -> tuple[Tensor, Tensor | None]:
    """No graph is recorded."""
    vectors = vectors.contiguous()
    lengths, unit = vectors.new_empty(vectors.shape[0]), torch.empty_like(vectors) if directions else None
    _C.polar(_op(vectors), (lengths.data_ptr(), address(unit)), get_num_threads())
    return lengths, unit


def backward(grad_lengths: Tensor | None, grad_unit: Tensor | None, vectors: Tensor) -> Tensor:
    """The derivative for the vectors; no graph is recorded."""
    vectors, grad = vectors.contiguous(), _contiguous(grad_lengths, grad_unit)
    out = torch.empty_like(vectors)
    _C.polar_backward(_op(vectors), _addresses(grad), out.data_ptr(), get_num_threads())
    return out


def double_backward(
    grad2: Tensor, grad_lengths: Tensor | None, grad_unit: Tensor | None, vectors: Tensor
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The derivative of ``<grad2, backward(grad_lengths, ...)>`` for grad_lengths, grad_unit and vectors."""
    grad2, vectors, grad = grad2.contiguous(), vectors.contiguous(), _contiguous(grad_lengths, grad_unit)
    out_lengths, out_unit = (None if g is None else torch.empty_like(g) for g in grad)
    out = torch.empty_like(vectors)
    outs = (_addresses((out_lengths, out_unit)), out.data_ptr())
    _C.polar_double_backward(_op(vectors), grad2.data_ptr(), _addresses(grad), *outs, get_num_threads())
    return out_lengths, out_unit, out


def _contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple(None if t is None else t.contiguous() for t in tensors)


def _addresses(pair: tuple[Tensor | None, ...]) -> tuple[int, int]:
    return address(pair[0]), address(pair[1])


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, directions: bool) -> Any:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(vectors)
        return forward(vectors, directions)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        if all(g is None for g in grads):
            return None, None
        run: Any = _Backward.apply if torch.is_grad_enabled() else backward
        return run(*grads, *ctx.saved_tensors), None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Tensor:
        ctx.save_for_backward(*tensors)
        return backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad2: Tensor) -> Any:
        return _DoubleBackward.apply(grad2, *ctx.saved_tensors)  # type: ignore[no-untyped-call]


class _DoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *tensors: Any) -> Any:
        return double_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise third_derivative("polar")
