"""Neighbour lists in numpy: ASE's signature on our kernel, and a list with a skin for molecular dynamics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdgnn import _C
from mdgnn.threads import get_num_threads

Cutoff = float | Mapping[tuple[int | str, int | str], float] | ArrayLike


class Edges(NamedTuple):
    """Edges of one structure in canonical order (i, j, S); ``vectors = (r_j - r_i) + shifts @ cell``.

    row_ptr (N + 1,), receivers i (E,), senders j (E,) int64; shifts S (E, 3) int32; vectors (E, 3) and distances (E,)
    in the dtype of the positions.
    """

    row_ptr: NDArray[np.int64]
    receivers: NDArray[np.int64]
    senders: NDArray[np.int64]
    shifts: NDArray[np.int32]
    vectors: NDArray[np.floating]
    distances: NDArray[np.floating]


class NeighborList:
    """All edges shorter than `cutoff`, found again only when atoms have moved by more than half the skin.

    What `update` returns does not depend on when the list was last rebuilt: it is bit for bit the list of a fresh
    search.

    Parameters
    ----------
    cutoff : float
        Infinite is allowed for open systems.
    skin : float
        Extra distance that is searched, in the unit of the positions. 0 searches every time.
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

    def update(self, positions: ArrayLike, cell: ArrayLike = (0.0, 0.0, 0.0), pbc: ArrayLike = False) -> Edges:
        """The edges for these positions (N, 3), cell (3, 3; rows are vectors) and pbc (3).

        Raises
        ------
        ValueError
            For positions that are not finite (names the atom), wrong shapes, or a singular periodic cell.
        """
        r, box, periodic = _inputs(positions, cell, pbc)
        if not self._valid(r, box, periodic):
            self._reference = None
            reach = self.cutoff + self.skin
            self._list = _C.neighbors(r, box, periodic, reach, False, get_num_threads())
            self._reference = (r.copy(), box.copy(), periodic)
            self.n_rebuilds += 1
        return Edges(*_C.edges_within(r, box, periodic, self.cutoff, *self._list))

    def _valid(self, r: NDArray[Any], box: NDArray[Any], periodic: tuple[bool, ...]) -> bool:
        if self._reference is None or self.skin == 0:
            return False
        r0, box0, periodic0 = self._reference
        if r.shape != r0.shape or r.dtype != r0.dtype or periodic != periodic0 or not np.array_equal(box, box0):
            return False
        if r.size == 0:
            return True
        # A pair comes closer by at most the sum of its two displacements; the rest leaves room for rounding.
        rounding = 16 * float(np.finfo(r.dtype).eps) * float(np.abs(r).max() + np.abs(box).max())
        largest = float(np.square(r - r0).sum(axis=1).max())
        return bool(largest < max(0.0, 0.4999 * self.skin - rounding) ** 2)


def _inputs(positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike) -> tuple[Any, Any, tuple[bool, bool, bool]]:
    r = np.asarray(positions)
    dtype = np.float32 if r.dtype == np.float32 else np.float64
    r = np.ascontiguousarray(r, dtype=dtype)
    if r.size == 0:
        r = r.reshape(0, 3)
    periodic = np.broadcast_to(np.asarray(pbc, dtype=bool), 3)
    box = np.ascontiguousarray(cell, dtype=dtype)
    if box.shape == (3,):
        box = np.diag(box)
    return r, box, (bool(periodic[0]), bool(periodic[1]), bool(periodic[2]))


def neighbor_list(quantities: str, atoms: Any, cutoff: Cutoff, self_interaction: bool = False) -> Any:
    """Drop-in for `ase.neighborlist.neighbor_list`, with the order of edges fixed: by i, then j, then S.

    Parameters
    ----------
    quantities : str
        Any of "i" (receiver), "j" (sender), "d" (distance), "D" (vector from i to j), "S" (cell shift), in the order
        wanted; ``D = positions[j] - positions[i] + S @ cell``.
    atoms : ase.Atoms
        Positions may lie outside the cell.
    cutoff : float, dict or (N,) array
        Edges are strictly shorter. A dict has a cutoff per pair of elements (symbols or numbers); an array has a
        radius per atom, and atoms are neighbours when their spheres overlap.
    self_interaction : bool
        Whether to list each atom as its own neighbour (without a shift).

    Returns
    -------
    One array, or a tuple of arrays, one for each quantity.
    """
    unknown = sorted(set(quantities) - set("ijdDS"))
    if unknown or not quantities:
        raise ValueError(f"expected quantities out of 'i', 'j', 'd', 'D', 'S', got {quantities!r}")
    largest, radius = _largest_cutoff(cutoff, len(atoms))
    r, box, periodic = _inputs(atoms.positions, atoms.cell.array, atoms.pbc)
    if largest > 0:
        found = _C.neighbors(r, box, periodic, largest, self_interaction, get_num_threads())
        edges = Edges(*_C.edges_within(r, box, periodic, largest, *found))
    else:
        edges = NeighborList(1.0).update(np.zeros((0, 3)))
    out = {
        "i": edges.receivers,
        "j": edges.senders,
        "d": edges.distances,
        "D": edges.vectors,
        "S": edges.shifts.astype(np.int64) if "S" in quantities else edges.shifts,
    }
    if radius is not None or isinstance(cutoff, Mapping):
        limit = (
            radius[edges.receivers] + radius[edges.senders]
            if radius is not None
            else _pair_cutoffs(cutoff, np.asarray(atoms.numbers), edges)  # type: ignore[arg-type]
        )
        out = {q: array[edges.distances < limit] for q, array in out.items()}
    return out[quantities] if len(quantities) == 1 else tuple(out[q] for q in quantities)


def _largest_cutoff(cutoff: Cutoff, n_atoms: int) -> tuple[float, NDArray[np.float64] | None]:
    if isinstance(cutoff, Mapping):
        return float(max(cutoff.values(), default=0.0)), None
    if np.ndim(cutoff) == 0:
        value = float(cutoff)  # type: ignore[arg-type]
        if not value > 0:
            raise ValueError(f"expected a positive cutoff, got {value}")
        return value, None
    radius = np.asarray(cutoff, dtype=np.float64)
    if radius.shape != (n_atoms,):
        raise ValueError(f"expected one radius for each of the {n_atoms} atoms, got shape {radius.shape}")
    return 2 * float(radius.max(initial=0.0)), radius


def _pair_cutoffs(
    cutoff: Mapping[tuple[int | str, int | str], float], numbers: NDArray[Any], edges: Edges
) -> NDArray[np.float64]:
    from ase.data import atomic_numbers

    limit = np.zeros(len(edges.senders))
    zi, zj = numbers[edges.receivers], numbers[edges.senders]
    for (a, b), value in cutoff.items():
        za, zb = (atomic_numbers[z] if isinstance(z, str) else z for z in (a, b))
        limit[((zi == za) & (zj == zb)) | ((zi == zb) & (zj == za))] = value
    return limit
