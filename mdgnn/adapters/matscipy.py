"""matscipy: its neighbour list, which MACE, SevenNet and NequIP call, on our kernel."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mdgnn.neighbors import primitive_neighbor_list
from mdgnn.pair_cutoffs import Cutoff


def neighbour_list(
    quantities: str,
    atoms: Any = None,
    cutoff: Cutoff | None = None,
    positions: ArrayLike | None = None,
    cell: ArrayLike | None = None,
    pbc: ArrayLike | None = None,
    numbers: ArrayLike | None = None,
    cell_origin: ArrayLike | None = None,
) -> Any:
    """Replaces `matscipy.neighbours.neighbour_list`: ``mace.data.neighborhood.neighbour_list = neighbour_list``.

    Edges come in the order (i, j, S). What makes matscipy fail or crash is allowed: cells of open systems without
    volume, a quantity asked for twice. Where it is silent about an error, this is not: a cutoff that is not positive,
    positions that are not finite.

    Parameters
    ----------
    quantities : str
        Any of "i" (receiver), "j" (sender), "d" (distance), "D" (vector from i to j), "S" (cell shift).
    atoms : ase.Atoms, optional
        In place of positions, cell, pbc and numbers.
    cutoff : float, dict, (N,) or (Z, Z) array
        Edges are strictly shorter: for all pairs (also as the default of a defaultdict), for each pair of elements
        (symbols or numbers), the sum of two atoms' radii, or a symmetric table by atomic number.
    positions : (N, 3)
        May lie outside the cell. Computed with in float64.
    cell : (3, 3), optional
        Rows are the cell vectors. Default: the bounding box of the positions.
    pbc : (3,) bool, optional
        Default: not periodic.
    numbers : (N,), optional
        Atomic numbers. Default: 1.
    cell_origin : (3,), optional
        Of no consequence: edges and shifts do not depend on it.

    Returns
    -------
    One array, or a tuple of arrays, one for each quantity: i, j (E,), S (E, 3) int32; d (E,), D (E, 3) float64.
    """
    if cutoff is None:
        raise ValueError("expected a cutoff, got None")
    if atoms is not None:
        arrays = {"positions": positions, "cell": cell, "pbc": pbc, "numbers": numbers, "cell_origin": cell_origin}
        given = [name for name, value in arrays.items() if value is not None]
        if given:
            raise ValueError(f"expected atoms or arrays, got atoms and {', '.join(given)}")
        positions, cell, pbc, numbers = atoms.positions, atoms.cell.array, atoms.pbc, atoms.numbers
    if positions is None:
        raise ValueError("expected atoms or positions, got neither")
    r = np.asarray(positions, dtype=np.float64).reshape(-1, 3)
    cell = np.diag(np.ptp(r, axis=0) if len(r) else np.zeros(3)) if cell is None else cell
    pbc = False if pbc is None else pbc
    z = np.ones(len(r), dtype=np.int64) if numbers is None else np.asarray(numbers)
    if z.shape != (len(r),):
        raise ValueError(f"expected one number for each of the {len(r)} atoms, got shape {z.shape}")
    out = primitive_neighbor_list(quantities, pbc, cell, r, _cutoff(cutoff, z), z)
    if len(quantities) == 1:
        return out.astype(np.int32) if quantities in "ijS" else out
    return tuple(a.astype(np.int32) if q in "ijS" else a for q, a in zip(quantities, out, strict=True))


def _cutoff(cutoff: Any, numbers: NDArray[np.integer]) -> Any:
    """The cutoff in one of the forms that `primitive_neighbor_list` knows."""
    if isinstance(cutoff, defaultdict) and cutoff.default_factory is not None:
        default = float(cutoff.default_factory())
        others = {pair: value for pair, value in cutoff.items() if value != default}
        if others:  # matscipy does not look at them
            raise ValueError(f"expected a defaultdict with its default only, {default}, got also {others}")
        return default
    if isinstance(cutoff, Mapping) or np.ndim(cutoff) != 2:
        return cutoff
    table, elements = np.asarray(cutoff), np.unique(numbers).tolist()
    if table.shape[0] != table.shape[1] or not np.array_equal(table, table.T):
        raise ValueError(f"expected a square and symmetric table of cutoffs, got shape {table.shape}")
    if elements and not 0 <= elements[0] <= elements[-1] < len(table):
        raise ValueError(f"expected cutoffs for the atomic numbers {elements}, got a table of shape {table.shape}")
    return {(a, b): float(table[a, b]) for a in elements for b in elements}
