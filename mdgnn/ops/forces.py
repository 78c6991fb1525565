"""forces: from derivatives with respect to edge vectors to forces.

``out[i] = sum of gradients over the edges that i receives - the same over the edges that i sends``, in float64.

The kernel is the CPU's, for gradients that need no derivative of their own; all else takes the reference, which is made
of `scatter_add` and differentiable.
"""

import torch
from torch import Tensor

from mdgnn import _C
from mdgnn.ops.csr import Rows
from mdgnn.ops.scatter_add import scatter_add
from mdgnn.threads import get_num_threads


def reference(gradients: Tensor, rows: Rows, columns: Rows) -> Tensor:
    """The specification."""
    g = gradients.to(torch.float64)
    one_each = torch.arange(g.shape[0] + 1, device=g.device)
    senders = torch.empty_like(one_each[:-1])
    assert columns.index is not None
    counts = columns.row_ptr.diff()
    senders[columns.index] = torch.arange(columns.n_rows, device=g.device).repeat_interleave(
        counts, output_size=g.shape[0]
    )
    return scatter_add(g, rows) - scatter_add(g, columns, columns=Rows(one_each, senders))


def forces(gradients: Tensor, rows: Rows, columns: Rows) -> Tensor:
    """Forces (N, 3) float64 from dE/dD.

    Parameters
    ----------
    gradients : (E, 3) float32 or float64
        The derivative of the energy with respect to each edge vector D = r_j - r_i + S @ cell.
    rows : Rows
        The edges of each receiver, in order (no index).
    columns : Rows
        The edges of each sender; the index holds the numbers of the edges.

    Raises
    ------
    ValueError
        If a shape or dtype does not fit.
    """
    if gradients.ndim != 2 or gradients.shape[1] != 3 or gradients.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"expected gradients of shape (E, 3) in float32 or float64, got {tuple(gradients.shape)} {gradients.dtype}"
        )
    n_edges = gradients.shape[0]
    if rows.index is not None or columns.index_size != n_edges or columns.n_rows != rows.n_rows:
        raise ValueError("expected rows without an index, and columns with an index of as many edges as gradients")
    needs_derivative = torch.is_grad_enabled() and gradients.requires_grad
    if needs_derivative or gradients.device.type != "cpu" or torch.compiler.is_compiling():
        return reference(gradients, rows, columns)
    if rows.n_values != n_edges or columns.n_values > n_edges:
        raise ValueError(f"expected rows and columns of {n_edges} edges, got {rows.n_values} and {columns.n_values}")
    gradients = gradients.contiguous()
    out = torch.empty(rows.n_rows, 3, dtype=torch.float64)
    args = (rows.addresses, columns.addresses, gradients.data_ptr(), out.data_ptr(), get_num_threads())
    _C.forces(gradients.element_size(), *args)
    return out
