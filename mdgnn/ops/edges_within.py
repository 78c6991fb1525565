"""edges_within: the edges of a list that are shorter than a cutoff, for positions that have moved since.

For tensors on a GPU; on the CPU `mdgnn.NeighborList` calls a kernel that does the same.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def edges_within(
    positions: Tensor, cell: Tensor, pbc: Tensor, cutoff: float, row_ptr: Tensor, senders: Tensor, shifts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What a search with `cutoff` would find, if the list holds at least those edges.

    The same edges and vectors, bit for bit, and on a GPU the same distances: torch takes roots that are not exact on
    the CPU.

    Parameters
    ----------
    positions : (N, 3) float32 or float64
    cell : (3, 3)
    pbc : (3,) bool
    cutoff : float
    row_ptr : (N + 1,) int64
    senders : (E,) int64
    shifts : (E, 3) int32

    Returns
    -------
    row_ptr (N + 1,), receivers (F,), senders (F,), shifts (F, 3), vectors (F, 3), distances (F,)
    """
    receivers = torch.arange(positions.shape[0], device=positions.device).repeat_interleave(row_ptr.diff())
    a, b, c = torch.where(pbc[:, None], cell, 0)
    s = shifts.to(positions.dtype)
    # The order of operations is the kernel's: one rounding elsewhere would let other pairs in at the cutoff.
    translations = (s[:, :1] * a + s[:, 1:2] * b) + s[:, 2:] * c
    vectors = (positions[senders] - positions[receivers]) + translations
    x, y, z = vectors.square().unbind(1)
    squares = (x + y) + z
    near = squares <= _largest_square_below(cutoff, positions.dtype)
    arrays = (receivers, senders, shifts, vectors, squares.sqrt())
    receivers, senders, shifts, vectors, distances = (array[near] for array in arrays)
    return F.pad(near.cumsum(0), (1, 0))[row_ptr], receivers, senders, shifts, vectors, distances


def _largest_square_below(cutoff: float, dtype: torch.dtype) -> float:
    """Comparing squares with it decides as exact distances would; torch takes roots on the CPU that are not exact."""
    real = np.float32 if dtype == torch.float32 else np.float64
    limit = real(cutoff)
    if not limit > 0:
        raise ValueError(f"expected a positive cutoff, got {cutoff}")
    if np.isinf(limit):
        return float(np.finfo(real).max)
    x = limit * limit
    while np.sqrt(x) < limit:
        x = np.nextafter(x, real(np.inf))
    while x > 0 and not np.sqrt(x) < limit:
        x = np.nextafter(x, real(0))
    return float(x)
