"""edge_vectors: derivatives of edge vectors and distances with respect to positions and cells.

``D = (r_j - r_i) + S @ cell`` is linear, so its gradient is made of row sums (`scatter_add`) that can be differentiated
again. The numbers themselves come from the neighbour list's kernel.
"""

from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.csr import Rows, rows_by
from mdgnn.ops.scatter_add import scatter_add


def reference(
    positions: Tensor, cells: Tensor, receivers: Tensor, senders: Tensor, shifts: Tensor, structure: Tensor
) -> tuple[Tensor, Tensor]:
    """The specification: vectors (E, 3) and distances (E,); cells are (S, 3, 3), `structure` (N,) says which atom's."""
    translations = (shifts.to(cells.dtype)[:, :, None] * cells[structure[receivers]]).sum(1)
    vectors = (positions[senders] - positions[receivers]) + translations
    return vectors, torch.linalg.vector_norm(vectors, dim=1)


def edge_vectors(positions: Tensor, cells: Tensor, topology: tuple[Tensor, ...], vectors: Tensor) -> Tensor:
    """`vectors` as a function of positions and cells, differentiable three times.

    Parameters
    ----------
    positions : (N, 3)
    cells : (S, 3, 3)
    topology : row_ptr (N + 1,), senders (E,), shifts (E, 3), first_atom (S + 1,)
        first_atom: the atoms of structure s are ``first_atom[s] .. first_atom[s + 1]``.
    vectors : (E, 3)
        Their values.
    """
    return _EdgeVectors.apply(positions, cells, vectors, *topology)  # type: ignore[no-any-return, no-untyped-call]


def distances(vectors: Tensor, lengths: Tensor) -> Tensor:
    """`lengths` (E,) as a function of `vectors` (E, 3), twice differentiable; the derivative of length zero is zero."""
    return _Distances.apply(vectors, lengths)  # type: ignore[no-any-return, no-untyped-call]


class _EdgeVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, positions: Tensor, cells: Tensor, vectors: Tensor, *topology: Tensor) -> Tensor:
        ctx.save_for_backward(*topology)
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        row_ptr, senders, shifts, first_atom = ctx.saved_tensors
        senders = senders.to(torch.int64)
        grad_positions = grad_cells = None
        if ctx.needs_input_grad[0]:
            sent = rows_by(senders, row_ptr.shape[0] - 1)
            sender_of = Rows(torch.arange(senders.shape[0] + 1, device=grad.device), senders)
            by_sender = Rows(sent.row_ptr, sent.index)
            grad_positions = scatter_add(grad, by_sender, columns=sender_of) - scatter_add(grad, Rows(row_ptr))
        if ctx.needs_input_grad[1]:
            outer = (shifts.to(grad.dtype)[:, :, None] * grad[:, None, :]).reshape(-1, 9)
            grad_cells = scatter_add(outer, Rows(row_ptr[first_atom])).reshape(-1, 3, 3)
        return grad_positions, grad_cells, None, None, None, None, None


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, lengths: Tensor) -> Tensor:
        out = lengths.view_as(lengths)
        ctx.save_for_backward(vectors, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        vectors, out = ctx.saved_tensors
        apart = out > 0
        inverse = torch.where(apart, 1 / torch.where(apart, out, 1), 0)
        return (grad * inverse)[:, None] * vectors, None
