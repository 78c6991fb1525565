"""Neighbour lists in numpy: ASE's functions on our kernel, and a list with a skin for molecular dynamics.

An edge is listed when its distance is below the cutoff, strictly, as computed in the precision of the positions.
"""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdgnn import _C
from mdgnn.pair_cutoffs import Cutoff, pair_cutoffs
from mdgnn.threads import get_num_threads

_ONE_STRUCTURE = np.zeros(0, dtype=np.int64)


class Edges(NamedTuple):
    """Edges of one structure in canonical order (i, j, S); ``vectors = (r_j - r_i) + shifts @ cell``.

    row_ptr (N + 1,), receivers i (E,), senders j (E,) int64; shifts S (E, 3) int32; vectors (E, 3) and distances (E,)
    in the dtype of the positions. numpy arrays, or tensors where the positions were a tensor.
    """

    row_ptr: Any
    receivers: Any
    senders: Any
    shifts: Any
    vectors: Any
    distances: Any


def _search(
    quantities: str, r: NDArray[Any], box: NDArray[Any], periodic: NDArray[np.bool_], cutoff: float, n_threads: int
) -> tuple[NDArray[Any], ...]:
    """Arrays of one structure, with shifts as int32."""
    return _C.neighbors(quantities, r, box, periodic, _ONE_STRUCTURE, cutoff=cutoff, n_threads=n_threads, shift_bytes=4)


class NeighborList:
    """All edges shorter than `cutoff`, searched again only when atoms or cell have changed too much.

    What `update` returns does not depend on when the list was last rebuilt: it is bit for bit the list of a fresh
    search. An instance serves one thread at a time.

    Parameters
    ----------
    cutoff : float
        Infinite is allowed for open systems.
    skin : float
        Extra distance that is searched, in the unit of the positions. 0 searches every time.

    Attributes
    ----------
    n_rebuilds : int
        How often the list was searched.
    """

    def __init__(self, cutoff: float, skin: float = 0.0):
        if not cutoff > 0:
            raise ValueError(f"expected a positive cutoff, got {cutoff}")
        if not (skin >= 0 and np.isfinite(skin)):
            raise ValueError(f"expected a finite skin of at least 0, got {skin}")
        self.cutoff, self.skin = float(cutoff), float(skin)
        self.n_rebuilds = 0
        self._reference: tuple[Any, ...] | None = None
        self._list: Any = None
        self._condition = 1.0  # of the periodic cell vectors: how much larger than a vector its parts S @ cell are

    def update(self, positions: Any, cell: Any = (0.0, 0.0, 0.0), pbc: Any = False, *, brief: bool = False) -> Edges:
        """The edges for these positions (N, 3), cell (3, 3; rows are vectors) and pbc (3).

        Arrays, or a torch tensor on any device with cell and pbc as tensors there or as arrays. What comes back has no
        derivative; for one, see `mdgnn.ops.edge_vectors`. `brief`, of arrays: receivers and shifts are None, which the
        engine does without.

        Raises
        ------
        ValueError
            For positions that are not finite (names the atom), wrong shapes, or a singular periodic cell.
        """
        if any(_is_tensor(x) for x in (positions, cell, pbc)):
            return self._update_torch(positions, cell, pbc)
        r, box, periodic = _inputs(positions, cell, pbc)
        n_threads = get_num_threads()
        if self.skin == 0:
            self.n_rebuilds += 1
            if brief:
                row_ptr, senders, *rest = _search("pjDd", r, box, periodic, self.cutoff, n_threads)
                return Edges(row_ptr, None, senders, None, *rest)
            return Edges(*_search("pijSDd", r, box, periodic, self.cutoff, n_threads))
        if not self._valid(r, box, periodic, "cpu"):
            reach = self.cutoff + self.skin
            self._rebuild(r, box, periodic, "cpu", lambda: _search("pjS", r, box, periodic, reach, n_threads))
        within = _C.edges_within(r, box, periodic, *self._list, cutoff=self.cutoff, n_threads=n_threads)
        edges = Edges(*within)
        return edges._replace(receivers=None, shifts=None) if brief else edges

    def _update_torch(self, positions: Any, cell: Any, pbc: Any) -> Edges:
        import torch

        from mdgnn import ops

        positions = torch.as_tensor(positions)
        device, r = positions.device, positions.detach()
        host = [x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x for x in (positions, cell, pbc)]
        if device.type == "cpu":
            return Edges(*map(torch.from_numpy, self.update(*host)))
        seen = _inputs(*host)  # on the host: whether the list is valid
        box, periodic = (torch.from_numpy(x).to(device) for x in seen[1:])
        if self.skin == 0:
            self.n_rebuilds += 1
            result = ops.neighbors(r, box, periodic, self.cutoff, want=("receivers", "vectors", "distances"))
            return Edges(result.row_ptr, result.receivers, *result[1:3], result.vectors, result.distances)
        if not self._valid(*seen, str(device)):
            reach = self.cutoff + self.skin
            self._rebuild(*seen, str(device), lambda: ops.neighbors(r, box, periodic, reach)[:3])
        return Edges(*ops.edges_within(r, box, periodic, self.cutoff, *self._list))

    def _rebuild(
        self, r: NDArray[Any], box: NDArray[Any], periodic: NDArray[np.bool_], device: str, search: Any
    ) -> None:
        self._reference = None
        self._list = search()
        self._reference = (r.copy(), box.copy(), periodic.copy(), device)
        self._condition = float(np.linalg.cond(box[periodic])) if periodic.any() else 1.0
        self.n_rebuilds += 1

    def _valid(self, r: NDArray[Any], box: NDArray[Any], periodic: NDArray[np.bool_], device: str) -> bool:
        """Whether no pair outside of the list can have come within the cutoff.

        Positions now are r0 F + u with the change F of the cell. A vector D between atoms or images becomes D F plus a
        difference of two u, whatever its shift: of at least |D| >= cutoff + skin it keeps the least singular value of
        F times that length, less twice the largest u. Only differences of u matter, so their mean is taken off.
        """
        if self._reference is None:
            return False
        r0, box0, periodic0, device0 = self._reference
        if device != device0 or r.shape != r0.shape or r.dtype != r0.dtype or not np.array_equal(periodic, periodic0):
            return False
        if r.size == 0:
            return True
        reach = self.cutoff + self.skin
        r0, r1 = r0.astype(np.float64), r.astype(np.float64)
        size = float(np.abs(r).max() + np.abs(r0).max() + np.abs(box).max()) + reach * bool(periodic.any())
        rounding = 64 * float(np.finfo(r.dtype).eps) * size * self._condition
        if periodic.any() and not np.array_equal(box[periodic], box0[periodic]):
            change = _change_of_cell(box0.astype(np.float64), box.astype(np.float64), periodic)
            if change is None:
                return False
            rounding *= 2  # the condition number is that of the cell before; a change within a skin is small
            reach *= float(np.linalg.svd(change, compute_uv=False)[-1]) * (1 - 1e-12)
            r0 = r0 @ change
        u = r1 - r0
        u -= u.mean(axis=0)
        largest = float(np.sqrt(np.square(u).sum(axis=1).max()))
        return bool(reach - 2 * largest - rounding > self.cutoff)


def _is_tensor(array: Any) -> bool:
    """A tensor cannot have come without torch."""
    return "torch" in sys.modules and isinstance(array, sys.modules["torch"].Tensor)


def _change_of_cell(
    before: NDArray[np.float64], after: NDArray[np.float64], periodic: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """F with ``after = before @ F`` for the periodic vectors; what is orthogonal to the old ones stays as it was."""
    rows0, rows1 = before[periodic], after[periodic]
    inverse = np.linalg.pinv(rows0)
    change: NDArray[np.float64] = np.eye(3) + inverse @ (rows1 - rows0)
    scale = float(np.abs(rows1).max())
    return change if np.abs(rows0 @ change - rows1).max() <= 1e-12 * scale else None


def _inputs(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> tuple[Any, Any, NDArray[np.bool_]]:
    r = np.asarray(positions)
    if r.dtype.kind not in "fiub":
        raise ValueError(f"expected positions of real numbers, got {r.dtype}")
    dtype = r.dtype if r.dtype == np.float32 else np.dtype(np.float64)
    if r.dtype != dtype or not r.flags.c_contiguous:
        r = np.ascontiguousarray(r, dtype=dtype)
    if r.shape == (0,):
        r = r.reshape(0, 3)
    box = np.ascontiguousarray(cell, dtype=dtype)
    if box.shape == (3,):
        box = np.diag(box)
    periodic = np.ascontiguousarray(pbc, dtype=bool)
    if periodic.shape not in ((1,), (3,)):
        raise ValueError(f"expected pbc as one bool or three, got shape {periodic.shape}")
    return r, box, periodic if periodic.shape == (3,) else np.broadcast_to(periodic, 3).copy()


def neighbor_list(
    quantities: str, a: Any, cutoff: Cutoff, self_interaction: bool = False, max_nbins: float = 1e6
) -> Any:
    """Drop-in for `ase.neighborlist.neighbor_list`, with the order of edges fixed: by i, then j, then S.

    Parameters
    ----------
    quantities : str
        Any of "i" (receiver), "j" (sender), "d" (distance), "D" (vector from i to j), "S" (cell shift), in the order
        wanted; ``D = positions[j] - positions[i] + S @ cell``.
    a : ase.Atoms
        Positions may lie outside the cell.
    cutoff : float, dict or (N,) array
        Edges are strictly shorter. A dict has a cutoff per pair of elements (symbols or numbers); an array has a
        radius per atom, and atoms are neighbours when their spheres overlap.
    self_interaction : bool
        Whether to list each atom as its own neighbour (without a shift).
    max_nbins : float
        Of no consequence: the bins of ours need no limit.

    Returns
    -------
    One array, or a tuple of arrays, one for each quantity.
    """
    r, numbers = a.arrays["positions"], a.arrays["numbers"]
    return primitive_neighbor_list(quantities, a.pbc, a.cell.array, r, cutoff, numbers, self_interaction)


def primitive_neighbor_list(
    quantities: str,
    pbc: ArrayLike,
    cell: ArrayLike,
    positions: ArrayLike,
    cutoff: Cutoff,
    numbers: ArrayLike | None = None,
    self_interaction: bool = False,
    use_scaled_positions: bool = False,
    max_nbins: float = 1e6,
) -> Any:
    """`neighbor_list` from arrays: drop-in for `ase.neighborlist.primitive_neighbor_list`.

    Parameters
    ----------
    quantities, cutoff, self_interaction, max_nbins
        As for `neighbor_list`.
    pbc : (3,) bool
    cell : (3, 3)
        Rows are the cell vectors; those of axes that are not periodic are not used.
    positions : (N, 3)
        float32 or float64: the list, its vectors and its distances are made in this precision.
    numbers : (N,), optional
        Atomic numbers, for a dict of cutoffs.
    use_scaled_positions : bool
        Positions are in units of the cell vectors, all three.
    """
    r, box, periodic = _inputs(positions, cell, pbc)
    if use_scaled_positions:
        r = np.ascontiguousarray(r @ box)
    different = _different(quantities)
    if isinstance(cutoff, (float, int)) or (not isinstance(cutoff, Mapping) and np.ndim(cutoff) == 0):
        out = _C.neighbors(
            different, r, box, periodic, _ONE_STRUCTURE,
            cutoff=float(cutoff), n_threads=get_num_threads(), self_interaction=self_interaction,  # type: ignore[arg-type]
        )  # fmt: skip
    else:
        largest, kinds, table = pair_cutoffs(cutoff, numbers, len(r))
        if not largest > 0:  # no pair at all
            return primitive_neighbor_list(quantities, False, box, r[:0], 1.0)
        out = _C.neighbors_by_pair(
            different, r, box, periodic, kinds, table,
            cutoff=largest, n_threads=get_num_threads(), self_interaction=self_interaction,
        )  # fmt: skip
    if len(different) < len(quantities):
        out = tuple(out[different.index(q)] for q in quantities)
    return out if len(out) > 1 else out[0]


@cache
def _different(quantities: str) -> str:
    """Each quantity once."""
    if not quantities or not set(quantities) <= set("ijdDS"):
        raise ValueError(f"expected quantities out of 'i', 'j', 'd', 'D', 'S', got {quantities!r}")
    return "".join(dict.fromkeys(quantities))


def first_neighbors(natoms: int, first_atom: ArrayLike) -> NDArray[np.int64]:
    """Row pointers (natoms + 1,) of a list: the edges of atom i are ``out[i] .. out[i + 1]``.

    Drop-in for `ase.neighborlist.first_neighbors`; `first_atom` is the list's "i", ascending.
    """
    receivers = np.asarray(first_atom)
    if receivers.ndim != 1 or (np.diff(receivers) < 0).any():
        raise ValueError("expected the first atoms of a list as a one-dimensional, ascending array")
    return np.searchsorted(receivers, np.arange(natoms + 1)).astype(np.int64)
