"""torch-sim: its batched neighbour list, on our kernel."""

from typing import cast

import torch
from torch import Tensor

from mdgnn import ops


def neighbor_list(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    cutoff: float | Tensor,
    system_idx: Tensor,
    self_interaction: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Replaces `torch_sim.neighbors.torchsim_nl`: ``LennardJonesModel(..., neighbor_list_fn=neighbor_list)``.

    Tested with 0.6. Systems of a batch are searched in one call. Edges come in the order (i, j, S), self interactions
    among them, and are strictly shorter than the cutoff in the precision of the positions (torch-sim's default list
    computes in float64). pbc may differ between axes and systems.

    Parameters
    ----------
    positions : (N, 3) float32 or float64
        Atoms of a system follow each other. Need not lie inside the cell.
    cell : (S, 3, 3), (3 S, 3) or (3, 3)
        Rows are the cell vectors (a state's `row_vector_cell`); one for every system, or for all.
    pbc : (S, 3), (3 S,) or (3,) bool
    cutoff : float
    system_idx : (N,) int64
        The system of each atom, ascending.
    self_interaction : bool
        Whether to add (i, i) without a shift.

    Returns
    -------
    mapping : (2, E) int64
        i and j; ``D = (positions[j] - positions[i]) + shifts @ cell``
    system_mapping : (E,) int64
    shifts : (E, 3)
        In the dtype of the cell.
    """
    if (system_idx[1:] < system_idx[:-1]).any():
        raise ValueError("expected the atoms of a system next to each other, got a system_idx that does not ascend")
    cells = cell.reshape(-1, 3, 3)
    n_systems = len(cells)
    if cell.shape == (3, 3):  # for every system
        n_systems = max(1, int(system_idx[-1]) + 1 if len(system_idx) else 0)
    counts = torch.bincount(system_idx, minlength=n_systems)
    if len(counts) != n_systems:
        raise ValueError(f"expected atoms of the {n_systems} systems that have a cell, got system {len(counts) - 1}")
    edges = ops.neighbors(
        positions,
        cells.to(positions.dtype).expand(n_systems, 3, 3),
        pbc.reshape(-1, 3).expand(n_systems, 3),
        float(cutoff),
        first_atom=torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        want=("receivers",),
        self_interaction=self_interaction,
    )
    receivers = cast(Tensor, edges.receivers)  # asked for
    return torch.stack((receivers, edges.senders)), system_idx[receivers], edges.shifts.to(cell.dtype)
