"""Cutoffs that differ between pairs of atoms: by elements, or by the atoms' radii."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Cutoff = float | Mapping[tuple[int | str, int | str], float] | ArrayLike
PairCutoffs = tuple[float, NDArray[np.int32], NDArray[np.float64]]


def pair_cutoffs(cutoff: Any, numbers: ArrayLike | None, n_atoms: int) -> PairCutoffs:
    """The largest cutoff, the kinds of atoms (N,) and the cutoffs of pairs of kinds (K, K); or no kinds and radii (N,).

    Parameters
    ----------
    cutoff : dict or (N,) array
        By pairs of elements (symbols or atomic numbers), in either order; or a radius for each atom.
    numbers : (N,) int, optional
        Atomic numbers, for a dict.

    Raises
    ------
    ValueError
        For a cutoff or radius that is not a number of at least 0 (names it), an unknown element, or wrong shapes.
    """
    if isinstance(cutoff, Mapping):
        return _by_elements(cutoff, numbers, n_atoms)
    radii = np.ascontiguousarray(cutoff, dtype=np.float64)
    if radii.shape != (n_atoms,):
        raise ValueError(f"expected one radius for each of the {n_atoms} atoms, got shape {radii.shape}")
    bad = np.flatnonzero(~((radii >= 0) & np.isfinite(radii)))
    if len(bad):
        raise ValueError(f"expected finite radii of at least 0, got {radii[bad[0]]} for atom {bad[0]}")
    return 2 * float(radii.max(initial=0.0)), np.zeros(0, dtype=np.int32), radii


def _by_elements(cutoff: Mapping[Any, float], numbers: ArrayLike | None, n_atoms: int) -> PairCutoffs:
    if numbers is None:
        raise ValueError("expected the atomic numbers that go with a cutoff for each pair of elements, got None")
    z = np.asarray(numbers)
    if z.shape != (n_atoms,) or z.dtype.kind not in "iu":
        raise ValueError(f"expected an atomic number for each of the {n_atoms} atoms, got {z.dtype} of shape {z.shape}")
    elements, kind = np.unique(z, return_inverse=True)
    table = np.zeros((len(elements), len(elements)))
    for pair, value in cutoff.items():
        if not (isinstance(pair, tuple) and len(pair) == 2):
            raise ValueError(f"expected cutoffs for pairs of elements such as ('H', 'O'), got one for {pair!r}")
        if not value >= 0:
            raise ValueError(f"expected cutoffs of at least 0, got {value} for {pair}")
        a, b = (elements == _atomic_number(element) for element in pair)
        table[np.ix_(a, b)] = table[np.ix_(b, a)] = value
    return float(table.max(initial=0.0)), kind.astype(np.int32), table


def _atomic_number(element: int | str) -> int:
    if not isinstance(element, str):
        return element
    from ase.data import atomic_numbers

    if element not in atomic_numbers:
        raise ValueError(f"expected symbols of elements, got {element!r}")
    return atomic_numbers[element]
