"""neighbors: the neighbour list as a torch operator (CPU; topology only, so it has no derivative)."""

import itertools

import numpy as np
import torch
from torch import Tensor

from mdgnn import _C
from mdgnn.threads import get_num_threads


def reference(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """The specification: try every pair and every image. For small systems with positions inside the cell or near it.

    Returns ``row_ptr (N + 1,)``, ``senders (E,)`` and ``shifts (E, 3)`` in canonical order, like `neighbors`.
    """
    n = len(positions)
    spread = float(torch.linalg.norm(positions.amax(0) - positions.amin(0))) if n else 0.0
    thickness = 1 / torch.linalg.norm(torch.linalg.pinv(cell), dim=0)  # an upper bound on |S| follows from it
    reach = [int((cutoff + spread) / float(thickness[k])) + 1 if pbc[k] else 0 for k in range(3)]
    edges = []
    for shift in itertools.product(*(range(-m, m + 1) for m in reach)):
        s = torch.tensor(shift, dtype=positions.dtype)
        d = (positions[None] - positions[:, None]) + ((s[0] * cell[0] + s[1] * cell[1]) + s[2] * cell[2])
        r = ((d[..., 0] ** 2 + d[..., 1] ** 2) + d[..., 2] ** 2).sqrt()
        near = r < cutoff
        if not any(shift):
            near.fill_diagonal_(False)
        edges += [(i, j, *shift) for i, j in near.nonzero().tolist()]
    table = torch.tensor(sorted(edges), dtype=torch.int64).reshape(-1, 5)
    row_ptr = torch.zeros(n + 1, dtype=torch.int64)
    row_ptr[1:] = torch.bincount(table[:, 0], minlength=n).cumsum(0)
    return row_ptr, table[:, 1], table[:, 2:].to(torch.int32)


def neighbors(
    positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, self_interaction: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """All edges of one structure shorter than `cutoff` (strictly), in canonical order (i, j, shift).

    Parameters
    ----------
    positions : (N, 3) float32 or float64
        Need not lie inside the cell.
    cell : (3, 3)
        Rows are the cell vectors; those of non-periodic axes are not used.
    pbc : (3,) bool
    cutoff : float
        Infinite is allowed when no axis is periodic.
    self_interaction : bool
        Whether to add (i, i) without a shift.

    Returns
    -------
    row_ptr : (N + 1,) int64
    senders : (E,) int64
    shifts : (E, 3) int32
        ``D = (positions[j] - positions[i]) + shift @ cell``

    Raises
    ------
    ValueError
        For non-finite positions, a cutoff that is not positive, or a singular periodic cell.
    """
    row_ptr, senders, shifts = torch.ops.mdgnn.neighbors(positions, cell, pbc, cutoff, self_interaction)
    return row_ptr, senders, shifts


def _neighbors(
    positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, self_interaction: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = np.float32 if positions.dtype == torch.float32 else np.float64
    arrays = _C.neighbors(
        "pjS",
        np.ascontiguousarray(positions.detach().numpy(), dtype=dtype),
        np.ascontiguousarray(cell.detach().numpy(), dtype=dtype),
        np.ascontiguousarray(pbc.detach().numpy(), dtype=bool),
        np.zeros(0, dtype=np.int64),
        (cutoff, self_interaction, False, get_num_threads()),
        (8, 4),
    )
    row_ptr, senders, shifts = map(torch.from_numpy, arrays)
    return row_ptr, senders, shifts


_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define(
    "neighbors(Tensor positions, Tensor cell, Tensor pbc, float cutoff, bool self_interaction)"
    " -> (Tensor, Tensor, Tensor)"
)
_library.impl("neighbors", _neighbors, "CPU")


@torch.library.register_fake("mdgnn::neighbors")
def _(positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, self_interaction: bool) -> tuple[Tensor, ...]:
    n_edges = torch.library.get_ctx().new_dynamic_size()
    integers = positions.new_empty(0, dtype=torch.int64)
    shifts = positions.new_empty(n_edges, 3, dtype=torch.int32)
    return integers.new_empty(positions.shape[0] + 1), integers.new_empty(n_edges), shifts
