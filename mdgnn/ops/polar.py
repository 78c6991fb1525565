"""polar: lengths of edge vectors, and their directions.

``r[e] = |vectors[e]|,  unit[e] = vectors[e] / r[e]``

Only the vectors are saved for the derivatives; a third is refused. The kernels are the CPU's; CUDA and
torch.compile take the reference.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous, empty_like
from mdgnn.ops.kernels import kernels_for


class Static(NamedTuple):
    directions: bool


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
    lengths: Tensor
    lengths, unit = POLAR(Static(directions), vectors)
    return lengths, unit


# --- the kernels: input vectors; outputs lengths, unit ----------------------------------------------------------------


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """No graph is recorded."""
    vectors = inputs[0].contiguous()
    n_edges = vectors.shape[0]
    lengths, unit = vectors.new_empty(n_edges), torch.empty_like(vectors) if static.directions else None
    kernels, context = kernels_for(vectors)
    kernels.polar(
        itemsize=vectors.element_size(), vectors=vectors, n_edges=n_edges, lengths=lengths, unit=unit, context=context
    )
    return lengths, unit


def backward(static: Static, grads: Optionals, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradient of the vectors; no graph is recorded."""
    vectors, (lengths, unit) = inputs[0].contiguous(), contiguous(grads)
    out = torch.empty_like(vectors)
    kernels, context = kernels_for(vectors)
    kernels.polar_backward(
        itemsize=vectors.element_size(),
        vectors=vectors,
        n_edges=vectors.shape[0],
        grad_lengths=lengths,
        grad_unit=unit,
        out=out,
        context=context,
    )
    return (out,)


def double_backward(
    static: Static, grad2: Optionals, grads: Optionals, inputs: Tensors, needs_grad: Flags
) -> Optionals:
    """The gradient of ``<grad2, backward(grads, ...)>`` for grads and vectors."""
    (by,), (vectors,), (lengths, unit) = contiguous(grad2), contiguous(inputs), contiguous(grads)
    out_lengths, out_unit = empty_like((lengths, unit), needs_grad[:2])
    out = torch.empty_like(vectors)
    kernels, context = kernels_for(vectors)
    kernels.polar_double_backward(
        itemsize=vectors.element_size(),
        vectors=vectors,
        n_edges=vectors.shape[0],
        grad2=by,
        grad_lengths=lengths,
        grad_unit=unit,
        out_lengths=out_lengths,
        out_unit=out_unit,
        out=out,
        context=context,
    )
    return out_lengths, out_unit, out if needs_grad[2] else None


def _arguments(static: Static, vectors: Tensor) -> tuple[Any, ...]:
    return vectors, static.directions


POLAR = Op(
    "polar",
    "r[e] = |vectors[e]|, unit[e] = vectors[e] / r[e]",
    polar,
    reference,
    _arguments,
    Static,
    inputs=(Array("vectors", "E 3"),),
    outputs=(Array("lengths", "E"), Array("unit", "E 3", present=lambda static, inputs: static.directions)),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=lambda e: (Static(e.option("directions", True)), (e.normal(e.n_edges, 3),)),
    options=({}, {"directions": False}),
    devices=("cpu",),
    partial_grads=True,
)
