"""ASE: the class behind `ase.neighborlist.NeighborList`, on our kernel.

`mdgnn.neighbor_list`, `primitive_neighbor_list` and `first_neighbors` replace ASE's functions of these names.
"""

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdgnn.neighbors import first_neighbors, primitive_neighbor_list


class PrimitiveNeighborList:
    """Replaces `ase.neighborlist.NewPrimitiveNeighborList`, and with ``bothways=True`` also `PrimitiveNeighborList`.

    ``NeighborList(cutoffs, primitive=PrimitiveNeighborList)``, or for all of a calculator's lists:
    ``ase.calculators.emt.NeighborList = functools.partial(NeighborList, primitive=PrimitiveNeighborList)``

    Neighbours of an atom come in the order of (j, S), whatever `sorted` says. Without `bothways` a pair is listed in
    the direction in which the first component of S that is not zero is positive, for S = 0 from the lower index; ASE's
    older class takes either direction.

    Parameters
    ----------
    cutoffs : (N,)
        A radius for each atom; atoms are neighbours when their spheres overlap, strictly.
    skin : float
        Added to every radius. Until an atom has moved this far the list is kept: it then lists all neighbours, and
        others up to four times `skin` further apart. A length, also for scaled positions (ASE compares those with it).
    sorted : bool
        Of no consequence.
    self_interaction : bool
        Whether an atom is its own neighbour.
    bothways : bool
        Whether both atoms of a pair have each other as neighbours.
    use_scaled_positions : bool
        Positions are in units of the cell vectors.

    Attributes
    ----------
    nupdates : int
        How often the list was built.
    pair_first, pair_second : (E,) int64
    offset_vec : (E, 3) int64
        ``positions[pair_second] - positions[pair_first] + offset_vec @ cell`` points to the neighbour.
    first_neigh : (N + 1,) int64
        Where the neighbours of each atom begin in these arrays.
    """

    def __init__(
        self,
        cutoffs: ArrayLike,
        skin: float = 0.3,
        sorted: bool = False,
        self_interaction: bool = True,
        bothways: bool = False,
        use_scaled_positions: bool = False,
    ):
        self.cutoffs = np.asarray(cutoffs, dtype=np.float64) + skin
        self.skin = skin
        self.sorted = sorted
        self.self_interaction = self_interaction
        self.bothways = bothways
        self.use_scaled_positions = use_scaled_positions
        self.nupdates = 0

    def update(self, pbc: ArrayLike, cell: ArrayLike, positions: ArrayLike, numbers: object = None) -> bool:
        """Build the list if it may miss a neighbour; says whether it did."""
        if self.nupdates and self._valid(np.asarray(pbc), np.asarray(cell), np.asarray(positions)):
            return False
        self.build(pbc, cell, positions)
        return True

    def build(self, pbc: ArrayLike, cell: ArrayLike, positions: ArrayLike, numbers: object = None) -> None:
        """Build the list for pbc (3), cell (3, 3; rows are vectors) and positions (N, 3); `numbers` are not used."""
        pbc, cell, r = (
            np.array(pbc, dtype=bool),
            np.array(cell, dtype=np.float64),
            np.array(positions, dtype=np.float64),
        )
        n_atoms = len(r)
        if self.cutoffs.shape != (n_atoms,):
            raise ValueError(f"expected one radius for each of the {n_atoms} atoms, got shape {self.cutoffs.shape}")
        radius = float(self.cutoffs.max(initial=0.0))
        cutoff = 2 * radius if radius > 0 and (self.cutoffs == radius).all() else self.cutoffs
        options = {"self_interaction": self.self_interaction, "use_scaled_positions": self.use_scaled_positions}
        i, j, S = primitive_neighbor_list("ijS", pbc, cell, r, cutoff, **options)
        if not self.bothways:
            x, y, z = S.T
            forward = (x > 0) | (x == 0) & ((y > 0) | (y == 0) & ((z > 0) | (z == 0) & (i <= j)))
            i, j, S = i[forward], j[forward], S[forward]
        self.pbc, self.cell, self.positions = pbc, cell, r
        self.pair_first, self.pair_second, self.offset_vec = i, j, S
        self.first_neigh = first_neighbors(n_atoms, i)
        self.nupdates += 1

    def get_neighbors(self, a: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Indices (n,) and offsets (n, 3) of the neighbours of atom a."""
        if not self.nupdates:
            raise RuntimeError("expected a call of update before get_neighbors")
        a = range(len(self.positions))[a]
        edges = slice(self.first_neigh[a], self.first_neigh[a + 1])
        return self.pair_second[edges], self.offset_vec[edges]

    @property
    def neighbors(self) -> list[NDArray[np.int64]]:
        """The indices that `get_neighbors` returns, of every atom."""
        return [self.pair_second[a:b] for a, b in pairwise(self.first_neigh)]

    @property
    def displacements(self) -> list[NDArray[np.int64]]:
        """The offsets that `get_neighbors` returns, of every atom."""
        return [self.offset_vec[a:b] for a, b in pairwise(self.first_neigh)]

    def _valid(self, pbc: NDArray[np.bool_], cell: NDArray[np.floating], positions: NDArray[np.floating]) -> bool:
        """Whether no pair can have come within its cutoff: two atoms approach each other by at most two skins."""
        if positions.shape != self.positions.shape:
            return False
        if not (np.array_equal(pbc, self.pbc) and np.array_equal(cell, self.cell)):
            return False
        if np.array_equal(positions, self.positions):
            return True
        before, now = self.positions, positions
        if self.use_scaled_positions:
            before, now = before @ self.cell, now @ self.cell
        moved = float(np.sqrt(np.square(now - before).sum(axis=1).max()))
        periodic = self.cell[self.pbc]
        condition = float(np.linalg.cond(periodic)) if len(periodic) else 1.0
        size = float(np.abs(before).max() + np.abs(periodic).max(initial=0.0) + 2 * self.cutoffs.max())
        return moved + 64 * float(np.finfo(np.float64).eps) * size * condition < self.skin
