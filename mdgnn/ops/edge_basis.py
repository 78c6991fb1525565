"""edge_basis: lengths of edge vectors, and Gaussians of them.

``r[e] = |vectors[e]|,  basis[e, k] = exp(-(r[e] - centers[k])^2 / (2 width^2))``

Derivatives are with respect to the vectors; a third is refused. The kernels are the CPU's; CUDA,
torch.compile and trainable centres take the reference.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous
from mdgnn.ops.kernels import kernels_for


class Static(NamedTuple):
    width: float


def reference(vectors: Tensor, centers: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch."""
    squares = vectors.square().sum(1)
    zero = squares == 0  # without this the second derivative there is not a number
    distances = torch.where(zero, 0.0, torch.where(zero, 1.0, squares).sqrt())
    return distances, torch.exp((distances[:, None] - centers).square() * (-0.5 / width**2))


def edge_basis(vectors: Tensor, centers: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Distances (E,) and their Gaussians (E, B).

    Parameters
    ----------
    vectors : (E, 3) float32 or float64
        A vector of length zero gets no gradient.
    centers : (B,), same dtype
    width : float
        The standard deviation of the Gaussians, in the unit of the vectors.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit, or the width is not positive.
    """
    if has_torch_function_unary(vectors):
        return handle_torch_function(edge_basis, (vectors,), vectors, centers, width)
    if not width > 0:
        raise ValueError(f"expected a positive width, got {width}")
    if centers.requires_grad:
        EDGE_BASIS.check_arguments(Static(width), (vectors, centers))
        return reference(vectors, centers, width)
    distances, basis = EDGE_BASIS(Static(width), vectors, centers)
    return distances, basis


# --- the kernels: inputs are vectors, centers; outputs distances, basis -----------------------------------------------


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Tensors:
    """Distances and basis; no graph is recorded."""
    vectors, centers = contiguous(inputs)
    n_edges, n_basis = vectors.shape[0], centers.shape[0]
    distances, basis = vectors.new_empty(n_edges), vectors.new_empty(n_edges, n_basis)
    kernels, context = kernels_for(vectors)
    kernels.edge_basis(
        itemsize=vectors.element_size(),
        vectors=vectors,
        n_edges=n_edges,
        centers=centers,
        n_basis=n_basis,
        sharpness=0.5 / static.width**2,
        distances=distances,
        basis=basis,
        context=context,
    )
    return distances, basis


def backward(static: Static, grads: Optionals, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradient of the vectors; no graph is recorded."""
    (vectors, centers), (grad_distances, grad_basis) = contiguous(inputs), contiguous(grads)
    out = torch.empty_like(vectors)
    kernels, context = kernels_for(vectors)
    kernels.edge_basis_backward(
        itemsize=vectors.element_size(),
        vectors=vectors,
        n_edges=vectors.shape[0],
        centers=centers,
        n_basis=centers.shape[0],
        sharpness=0.5 / static.width**2,
        grad_distances=grad_distances,
        grad_basis=grad_basis,
        out=out,
        context=context,
    )
    return out, None


def double_backward(
    static: Static, grad2: Optionals, grads: Optionals, inputs: Tensors, needs_grad: Flags
) -> Optionals:
    """The gradient of ``<grad2, backward(grads, ...)>`` for grads and vectors."""
    (vectors, centers), (by, _), (grad_distances, grad_basis) = contiguous(inputs), contiguous(grad2), contiguous(grads)
    out_distances = None if grad_distances is None else torch.empty_like(grad_distances)
    out_basis = None if grad_basis is None else torch.empty_like(grad_basis)
    out = torch.empty_like(vectors)
    kernels, context = kernels_for(vectors)
    kernels.edge_basis_double_backward(
        itemsize=vectors.element_size(),
        vectors=vectors,
        n_edges=vectors.shape[0],
        centers=centers,
        n_basis=centers.shape[0],
        sharpness=0.5 / static.width**2,
        grad2=by,
        grad_distances=grad_distances,
        grad_basis=grad_basis,
        out_distances=out_distances,
        out_basis=out_basis,
        out=out,
        context=context,
    )
    made = (out_distances, out_basis, out, None)  # in one pass
    return [t if w else None for t, w in zip(made, needs_grad, strict=True)]


def _arguments(static: Static, vectors: Tensor, centers: Tensor) -> tuple[Any, ...]:
    return vectors, centers, static.width


EDGE_BASIS = Op(
    "edge_basis",
    "r[e] = |vectors[e]|, basis[e, k] = exp(-(r[e] - centers[k])^2 / (2 width^2))",
    edge_basis,
    reference,
    _arguments,
    Static,
    inputs=(Array("vectors", "E 3"), Array("centers", "B", differentiable=False)),
    outputs=(Array("distances", "E"), Array("basis", "E B")),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=lambda e: (Static(0.7), (e.normal(e.n_edges, 3), e.uniform(e.width) * 2)),
    devices=("cpu",),
    partial_grads=True,
)
