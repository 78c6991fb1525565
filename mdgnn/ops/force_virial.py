"""force_virial: from derivatives with respect to edge vectors to forces and to the virials of atoms, in float64.

``forces[i] = sum of g over the edges that i receives - the same over the edges that i sends``
``virials[i] = -1/4 sum of (g x D + D x g) over the edges that i receives and those that it sends``

Half of an edge's virial goes to either end, as is usual for pair potentials; whole or half lists make no difference.

Both are bilinear in g and D, so the derivative ladder has two functions that are each other's derivatives: forward, and
backward, which hands gradients of atoms to edges. They serve any number of derivatives.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.checks import check_arrays
from mdgnn.ops.csr import EdgeRows, Rows, address
from mdgnn.ops.kernels import kernels_for


def reference(gradients: Tensor, edges: EdgeRows, vectors: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The specification, in plain torch; memory grows with 9 numbers an edge."""
    rows = edges.by_receiver
    assert rows.index is not None
    g, senders, n = gradients.to(torch.float64), rows.index, rows.n_rows
    receivers = torch.arange(n, device=g.device).repeat_interleave(rows.row_ptr.diff())
    forces = g.new_zeros(n, 3).index_add(0, receivers, g).index_add(0, senders, -g)
    if vectors is None:
        return forces, None
    outer = g[:, :, None] * vectors[:, None, :]
    share = -0.25 * (outer + outer.transpose(1, 2))
    return forces, g.new_zeros(n, 3, 3).index_add(0, receivers, share).index_add(0, senders, share)


def force_virial(gradients: Tensor, edges: EdgeRows, vectors: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Forces, and on request virials, of atoms from dE/dD.

    Sums run in the order of the edges: the same bits on every run and for any number of threads.

    Parameters
    ----------
    gradients : (E, 3) float32 or float64
        The derivative of the energy with respect to each edge vector D = r_j - r_i + S @ cell.
    edges : EdgeRows
    vectors : (E, 3) float64, optional
        D; with them virials are returned.

    Returns
    -------
    forces : (N, 3) float64
    virials : (N, 3, 3) float64 or None
        In the unit of the energy, symmetric. Their sum over the atoms of a structure is its virial, -dE/d(strain).
        Both are differentiable any number of times with respect to gradients and vectors.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    rows, columns = edges.by_receiver, edges.numbers_by_sender
    if torch.compiler.is_compiling():
        forces, virials = torch.ops.mdgnn.force_virial(gradients, vectors, *_flat(rows, columns))
        return forces, None if vectors is None else virials
    _, device, n_edges = edges.addresses, rows.row_ptr.device, edges.n_edges
    check_arrays(gradients.dtype, device, ("gradients", gradients, (n_edges, 3)))
    check_arrays(torch.float64, device, ("vectors", vectors, (n_edges, 3)))
    return _sums(gradients, vectors, rows, columns)


# --- the kernels -----------------------------------------------------------------------------------------------------


def forward(gradients: Tensor, vectors: Tensor | None, rows: Rows, columns: Rows) -> tuple[Tensor, Tensor | None]:
    """Forces (N, 3) and, given vectors, virials (N, 3, 3); no graph is recorded."""
    gradients = gradients.contiguous()
    vectors = None if vectors is None else vectors.contiguous()
    forces = gradients.new_empty(rows.n_rows, 3, dtype=torch.float64)
    virials = None if vectors is None else forces.new_empty(rows.n_rows, 3, 3)
    op = (gradients.element_size(), rows.addresses, columns.addresses, address(vectors))
    kernels, where = kernels_for(gradients)
    kernels.force_virial(op, gradients.data_ptr(), forces.data_ptr(), address(virials), where)
    return forces, virials


def backward(
    grad_forces: Tensor | None,
    grad_virials: Tensor | None,
    vectors: Tensor | None,
    rows: Rows,
    columns: Rows,
    dtype: torch.dtype,
) -> Tensor:
    """The derivative (E, 3) for the gradients, in their dtype; grad_virials needs vectors. No graph is recorded."""
    forces, virials, vectors = (None if t is None else t.contiguous() for t in (grad_forces, grad_virials, vectors))
    out = rows.row_ptr.new_empty(rows.index_size, 3, dtype=dtype)
    op = (out.element_size(), rows.addresses, columns.addresses, address(vectors))
    kernels, where = kernels_for(out)
    kernels.force_virial_backward(op, address(forces), address(virials), out.data_ptr(), where)
    return out


# --- derivatives: of the sums by what hands to edges, and the other way round ----------------------------------------


def _differentiate_sums(
    hand: Callable[..., Tensor], graph: Any, inputs: Sequence[Any], grads: Sequence[Any], wanted: Sequence[bool]
) -> list[Tensor | None]:
    """For gradients and vectors, which have the same part in the virial."""
    gradients, vectors, dtype = inputs
    forces, virials = grads[0], None if vectors is None else grads[1]  # without vectors an operator's is empty
    found: list[Tensor | None] = [None, None]
    if wanted[0] and (forces is not None or virials is not None):
        found[0] = hand(forces, virials, None if virials is None else vectors, *graph, dtype)
    if wanted[1] and virials is not None:
        found[1] = hand(None, virials, gradients.to(torch.float64), *graph, torch.float64)
    return found


def _differentiate_hand(
    sums: Callable[..., Any],
    hand: Callable[..., Tensor],
    graph: Any,
    inputs: Sequence[Any],
    grad: Tensor,
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """For grad_forces, grad_virials and vectors."""
    grad_virials, vectors = inputs
    found: list[Tensor | None] = [None, None, None]
    if wanted[0] or wanted[1]:
        forces, virials = sums(grad, vectors if wanted[1] else None, *graph)
        found[:2] = [forces if wanted[0] else None, virials if wanted[1] else None]
    if wanted[2] and grad_virials is not None:
        found[2] = hand(None, grad_virials, grad.to(torch.float64), *graph, torch.float64)
    return found


def _sums(gradients: Tensor, vectors: Tensor | None, rows: Rows, columns: Rows) -> tuple[Tensor, Tensor | None]:
    if torch.is_grad_enabled() and (gradients.requires_grad or (vectors is not None and vectors.requires_grad)):
        return _Sums.apply(gradients, vectors, rows, columns)  # type: ignore[no-any-return, no-untyped-call]
    return forward(gradients, vectors, rows, columns)


def _hand(*args: Any) -> Tensor:
    run: Any = _Hand.apply if torch.is_grad_enabled() else backward
    return run(*args)  # type: ignore[no-any-return]


class _Sums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradients: Tensor, vectors: Tensor | None, rows: Rows, columns: Rows) -> Any:
        ctx.graph, ctx.dtype = (rows, columns), gradients.dtype
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gradients if ctx.needs_input_grad[1] else None, vectors)
        return forward(gradients, vectors, rows, columns)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        inputs = (*ctx.saved_tensors, ctx.dtype)
        return (*_differentiate_sums(_hand, ctx.graph, inputs, grads, ctx.needs_input_grad), None, None)


class _Hand(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad_forces: Tensor | None, grad_virials: Tensor | None, *args: Any) -> Tensor:
        vectors, *ctx.graph, _ = args
        ctx.save_for_backward(grad_virials if ctx.needs_input_grad[2] else None, vectors)
        return backward(grad_forces, grad_virials, *args)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        found = _differentiate_hand(_sums, _hand, ctx.graph, ctx.saved_tensors, grad, ctx.needs_input_grad)
        return (*found, None, None, None)


# --- operators for torch.compile -------------------------------------------------------------------------------------

_GRAPH = "Tensor? vectors, Tensor row_ptr, Tensor index, Tensor col_ptr, Tensor col_index"
_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define(f"force_virial(Tensor gradients, {_GRAPH}) -> (Tensor, Tensor)")
_library.define(
    f"force_virial_backward(Tensor? grad_forces, Tensor? grad_virials, {_GRAPH}, ScalarType dtype) -> Tensor"
)


def _flat(rows: Rows, columns: Rows) -> tuple[Any, ...]:
    return rows.row_ptr, rows.index, columns.row_ptr, columns.index


def _operator(gradients: Tensor, vectors: Tensor | None, *graph: Any) -> tuple[Tensor, Tensor]:
    forces, virials = forward(gradients, vectors, Rows(*graph[:2]), Rows(*graph[2:]))
    return forces, forces.new_empty(0) if virials is None else virials


def _backward_operator(forces: Tensor | None, virials: Tensor | None, vectors: Tensor | None, *args: Any) -> Tensor:
    return backward(forces, virials, vectors, Rows(*args[:2]), Rows(*args[2:4]), args[4])


for _key in ("CPU", "CUDA"):
    _library.impl("force_virial", _operator, _key)
    _library.impl("force_virial_backward", _backward_operator, _key)


@torch.library.register_fake("mdgnn::force_virial")
def _(gradients: Tensor, vectors: Tensor | None, row_ptr: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    n = row_ptr.shape[0] - 1
    forces = gradients.new_empty(n, 3, dtype=torch.float64)
    return forces, forces.new_empty(0 if vectors is None else (n, 3, 3))


@torch.library.register_fake("mdgnn::force_virial_backward")
def _(forces: Any, virials: Any, vectors: Any, row_ptr: Tensor, index: Tensor, *rest: Any) -> Tensor:
    return row_ptr.new_empty(index.shape[0], 3, dtype=rest[-1])


def _save_sums(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.set_materialize_grads(False)
    ctx.dtype = inputs[0].dtype
    ctx.save_for_backward(*inputs)


def _sums_derivative(ctx: Any, *grads: Tensor | None) -> Any:
    gradients, vectors, *graph = ctx.saved_tensors
    hand, inputs = torch.ops.mdgnn.force_virial_backward, (gradients, vectors, ctx.dtype)
    return (*_differentiate_sums(hand, graph, inputs, grads, ctx.needs_input_grad), *[None] * 4)


def _save_hand(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[1:-1])


def _hand_derivative(ctx: Any, grad: Tensor) -> Any:
    grad_virials, vectors, *graph = ctx.saved_tensors
    operators, inputs = torch.ops.mdgnn, (grad_virials, vectors)
    sums, hand = operators.force_virial, operators.force_virial_backward
    return (*_differentiate_hand(sums, hand, graph, inputs, grad, ctx.needs_input_grad), *[None] * 5)


torch.library.register_autograd("mdgnn::force_virial", _sums_derivative, setup_context=_save_sums)
torch.library.register_autograd("mdgnn::force_virial_backward", _hand_derivative, setup_context=_save_hand)
