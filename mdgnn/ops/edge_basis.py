"""edge_basis: lengths of edge vectors, and Gaussians of them.

``r[e] = |vectors[e]|,  basis[e, k] = exp(-(r[e] - centers[k])^2 / (2 width^2))``

The derivative ladder is forward, backward, double backward, with respect to the vectors; a third derivative is refused.
The kernels are the CPU's; CUDA, torch.compile and trainable centres take the reference.
"""

from typing import Any

import torch
from torch import Tensor

from mdgnn import _C
from mdgnn.ops.csr import address
from mdgnn.threads import get_num_threads


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
    if vectors.ndim != 2 or vectors.shape[1] != 3 or vectors.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected vectors of shape (E, 3) in float32 or float64, got {_describe(vectors)}")
    if centers.ndim != 1 or centers.dtype != vectors.dtype or centers.device != vectors.device:
        raise ValueError(f"expected centers as (B,) {vectors.dtype} on {vectors.device}, got {_describe(centers)}")
    if not width > 0:
        raise ValueError(f"expected a positive width, got {width}")
    if torch.compiler.is_compiling() or vectors.device.type != "cpu" or centers.requires_grad:
        return reference(vectors, centers, width)
    return _Forward.apply(vectors, centers, 0.5 / width**2)  # type: ignore[no-any-return, no-untyped-call]


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


# --- the kernels -----------------------------------------------------------------------------------------------------


def _op(vectors: Tensor, centers: Tensor, sharpness: float) -> Any:
    """What all three kernels take, of contiguous arrays."""
    n_edges, n_basis = vectors.shape[0], centers.shape[0]
    return vectors.element_size(), vectors.data_ptr(), n_edges, centers.data_ptr(), n_basis, sharpness


def forward(vectors: Tensor, centers: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
    """Distances and basis; no graph is recorded."""
    vectors, centers = vectors.contiguous(), centers.contiguous()
    distances = vectors.new_empty(vectors.shape[0])
    basis = vectors.new_empty(vectors.shape[0], centers.shape[0])
    op = _op(vectors, centers, sharpness)
    _C.edge_basis(op, distances.data_ptr(), basis.data_ptr(), get_num_threads())
    return distances, basis


def backward(
    grad_distances: Tensor | None, grad_basis: Tensor | None, vectors: Tensor, centers: Tensor, sharpness: float
) -> Tensor:
    """The derivative for the vectors; no graph is recorded."""
    grad_distances, grad_basis = _contiguous(grad_distances), _contiguous(grad_basis)
    vectors, centers = vectors.contiguous(), centers.contiguous()
    out = torch.empty_like(vectors)
    op, given = _op(vectors, centers, sharpness), (address(grad_distances), address(grad_basis))
    _C.edge_basis_backward(op, *given, out.data_ptr(), get_num_threads())
    return out


def double_backward(
    grad2: Tensor,
    grad_distances: Tensor | None,
    grad_basis: Tensor | None,
    vectors: Tensor,
    centers: Tensor,
    sharpness: float,
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """The derivative of ``<grad2, backward(grad_distances, ...)>`` for grad_distances, grad_basis and vectors."""
    grad2, grad_distances, grad_basis = grad2.contiguous(), _contiguous(grad_distances), _contiguous(grad_basis)
    vectors, centers = vectors.contiguous(), centers.contiguous()
    out_distances = None if grad_distances is None else torch.empty_like(grad_distances)
    out_basis = None if grad_basis is None else torch.empty_like(grad_basis)
    out = torch.empty_like(vectors)
    op, given = _op(vectors, centers, sharpness), (address(grad_distances), address(grad_basis))
    outs = (address(out_distances), address(out_basis), out.data_ptr())
    _C.edge_basis_double_backward(op, grad2.data_ptr(), *given, *outs, get_num_threads())
    return out_distances, out_basis, out


def _contiguous(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.contiguous()


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, centers: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
        ctx.sharpness = sharpness
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(vectors, centers)
        return forward(vectors, centers, sharpness)

    @staticmethod
    def backward(ctx: Any, grad_distances: Tensor | None, grad_basis: Tensor | None) -> tuple[Any, ...]:
        if grad_distances is None and grad_basis is None:
            return None, None, None
        run: Any = _Backward.apply if torch.is_grad_enabled() else backward
        return run(grad_distances, grad_basis, *ctx.saved_tensors, ctx.sharpness), None, None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        *tensors, ctx.sharpness = args
        ctx.save_for_backward(*tensors)
        return backward(*args)

    @staticmethod
    def backward(ctx: Any, grad2: Tensor) -> tuple[Any, ...]:
        return (*_DoubleBackward.apply(grad2, *ctx.saved_tensors, ctx.sharpness), None, None)  # type: ignore[no-untyped-call]


class _DoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor | None, Tensor | None, Tensor]:
        return double_backward(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("edge_basis: third derivatives are not implemented; the ladder ends at the second")
