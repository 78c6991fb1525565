"""NequIP and Allegro: our neighbour list as one of their backends."""

import torch
from torch import Tensor

from mdgnn.adapters.torch_sim import neighbor_list


def register(name: str = "mdgnn") -> None:
    """Add our list to NequIP's backends (tested: 0.19); then ``NeighborListTransform(r_max, backend="mdgnn")`` uses it.

    Wherever NequIP takes `neighborlist_backend`, its calculator for instance, the name serves too. A backend of this
    name is replaced, so that registering twice does no harm.
    """
    from nequip.data import register_neighborlist_backend

    register_neighborlist_backend(name, add_edges, supports_cpu=True, supports_cuda=True, overwrite=True)


def add_edges(data: dict[str, Tensor], r_max: float) -> dict[str, Tensor]:
    """The backend: adds the edges shorter than `r_max`, for one frame or a batch of them searched in one call.

    Parameters
    ----------
    data : dict
        NequIP's: "pos" (N, 3), and where present "cell" (S, 3, 3) or (3, 3), "pbc" (S, 3) or (3), "batch" (N,).
    r_max : float

    Returns
    -------
    The same dict with "edge_index" (2, E) int64 and, if there is a cell, "edge_cell_shift" (E, 3) in its dtype;
    ``D = (pos[edge_index[1]] - pos[edge_index[0]]) + edge_cell_shift @ cell``.
    """
    positions = data["pos"]
    no_cell, no_pbc = positions.new_zeros(3, 3), torch.zeros(3, dtype=torch.bool, device=positions.device)
    batch = data.get("batch")
    if batch is None:
        batch = torch.zeros(len(positions), dtype=torch.int64, device=positions.device)
    edge_index, _, shifts = neighbor_list(positions, data.get("cell", no_cell), data.get("pbc", no_pbc), r_max, batch)
    data["edge_index"] = edge_index
    if "cell" in data:
        data["edge_cell_shift"] = shifts
    return data
