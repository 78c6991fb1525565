"""neighbors: the neighbour list of one structure or a batch, as a torch function.

Vectors and distances can be differentiated with respect to positions and cells (`edge_vectors`).
"""

import itertools
from collections.abc import Collection
from typing import NamedTuple

import torch
from torch import Tensor

from mdgnn.ops.csr import Rows, rows_by
from mdgnn.ops.edge_vectors import distances, edge_vectors
from mdgnn.ops.neighbor_search import LETTERS, Query, check_structures, names_of, search

_LETTERS = LETTERS | {"transposed": "r"}


class Neighbors(NamedTuple):
    """Edges in canonical order (receiver i, sender j, shift S), ``D = (r_j - r_i) + S @ cell``.

    row_ptr (N + 1,) int64: the edges of receiver i are ``row_ptr[i] .. row_ptr[i + 1]``; senders (E,); shifts (E, 3)
    int32. What was not asked for is None: receivers (E,); vectors (E, 3) and distances (E,) in the dtype of the
    positions; reverse (E,), the place of (j, i, -S); transposed, the edges by sender as `Rows`: its index holds their
    receivers and its edge their places in this list.
    """

    row_ptr: Tensor
    senders: Tensor
    shifts: Tensor
    receivers: Tensor | None = None
    vectors: Tensor | None = None
    distances: Tensor | None = None
    reverse: Tensor | None = None
    transposed: Rows | None = None


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
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    cutoff: float,
    *,
    first_atom: Tensor | None = None,
    want: Collection[str] = (),
    self_interaction: bool = False,
    half: bool = False,
    index_dtype: torch.dtype = torch.int64,
) -> Neighbors:
    """All edges shorter than `cutoff` (strictly), of one structure or of a batch.

    Parameters
    ----------
    positions : (N, 3) float32 or float64
        Need not lie inside the cell.
    cell : (3, 3), or (S, 3, 3) for a batch
        Rows are the cell vectors; those of non-periodic axes are not used. The dtype of the positions.
    pbc : (3,) bool, or (S, 3)
    cutoff : float
        Infinite is allowed when no axis is periodic.
    first_atom : (S + 1,) int64, optional
        Makes it a batch: the atoms of structure s are ``first_atom[s] .. first_atom[s + 1]``.
    want : names out of "receivers", "vectors", "distances", "reverse", "transposed"
        Vectors and distances are twice differentiable with respect to positions and cell.
    self_interaction : bool
        Whether to add (i, i) without a shift.
    half : bool
        One edge for each pair: i < j, or i = j and the first component of S that is not zero is positive.
    index_dtype : torch.int64 or torch.int32
        Of senders, receivers and reverse.

    Returns
    -------
    Neighbors

    Raises
    ------
    ValueError
        For positions that are not finite (names the atom), a cutoff that is not positive, a singular periodic cell,
        shapes, dtypes or devices that do not fit, or more edges than `index_dtype` holds.
    MemoryError
        If the list would not fit in memory; nothing has been allocated then.
    """
    check_structures(positions, cell, pbc, first_atom)
    names = names_of(want, _LETTERS)
    if half and "reverse" in names:
        raise ValueError("a half list has no reverse edges: ask for 'transposed', or for a full list")
    if index_dtype not in (torch.int32, torch.int64):
        raise ValueError(f"expected index_dtype torch.int32 or torch.int64, got {index_dtype}")
    letters = {_LETTERS[name] for name in names} | {"p", "j", "S"}
    tracked = torch.is_grad_enabled() and (positions.requires_grad or cell.requires_grad)
    if half and "transposed" in names:
        letters = letters - {"r"} | {"i"}
    if tracked and "d" in letters:
        letters.add("D")
    query = Query(
        positions.detach(), cell.detach(), pbc, first_atom,
        "".join(sorted(letters)), float(cutoff), self_interaction, half, index_dtype == torch.int32,
    )  # fmt: skip
    row_ptr, senders, shifts, receivers, vectors, lengths, reverse = search(query)
    if tracked and "D" in letters:
        if first_atom is None:
            first_atom = torch.tensor([0, positions.shape[0]], device=positions.device)
        topology = (row_ptr, senders, shifts, first_atom)
        vectors = edge_vectors(positions, cell.reshape(-1, 3, 3), topology, vectors)
        if "d" in letters:
            lengths = distances(vectors, lengths)
    transposed = None
    if "transposed" in names:
        sent_by = senders.to(torch.int64)
        if half:
            transposed = rows_by(sent_by, positions.shape[0], receivers.to(torch.int64))
        else:  # a full list is its own transpose, but for the places of its edges
            transposed = Rows(row_ptr, sent_by, reverse.to(torch.int64))
    optional = {"receivers": receivers, "vectors": vectors, "distances": lengths, "reverse": reverse}
    return Neighbors(
        row_ptr, senders, shifts, **{k: v for k, v in optional.items() if k in names}, transposed=transposed
    )
