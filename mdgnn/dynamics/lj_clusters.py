"""Lennard-Jones clusters in reduced units: their shapes, and what is known of their energies."""

import numpy as np
from ase import Atoms
from ase.cluster import Icosahedron, Octahedron
from numpy.typing import NDArray
from scipy.spatial import KDTree  # ASE brings scipy
from scipy.spatial.distance import cdist

NEAREST = 1.09  # distance of nearest neighbours in small Lennard-Jones clusters, in sigma
CLOSEST = 0.95  # random clusters keep atoms at least this far apart
LARGEST = 10_000
SEARCHED_ALONE = 100  # atoms that are not yet in the tree of a growing cluster
ICOSAHEDRA = {(10 * k**3 - 15 * k**2 + 11 * k - 3) // 3: k for k in range(1, 15)}  # 1, 13, 55, 147 ...

# Lowest known energies in epsilon (Wales and Doye, J. Phys. Chem. A 101, 5111, 1997), of the shapes made here.
LJ_MINIMA = {13: -44.326801, 38: -173.928427, 55: -279.248470}


def lj_cluster(size: str, rng: np.random.Generator) -> Atoms:
    """An icosahedron, the truncated octahedron of 38, or else a random compact cluster; in units of sigma."""
    if not (size.isascii() and size.isdigit() and 1 <= int(size) <= LARGEST):
        raise ValueError(f"expected lj:N with a whole number of atoms from 1 to {LARGEST}, got 'lj:{size}'")
    n = int(size)
    if n == 38:
        positions = Octahedron("Ar", 4, 1, latticeconstant=NEAREST * 2**0.5).positions
    elif n in ICOSAHEDRA:
        positions = Icosahedron("Ar", ICOSAHEDRA[n], NEAREST * 2**0.5).positions
    else:
        positions = _grow(n, rng)
    return Atoms(numbers=np.full(n, 18), positions=positions - positions.mean(axis=0))


def _grow(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n, 3): every atom touches an earlier one, and sits as near to the middle as a few hundred trials allow."""
    positions = np.zeros((n, 3))
    count, tree, in_tree = 1, KDTree(positions[:1]), 1
    while count < n:
        if count - in_tree == SEARCHED_ALONE:  # a new tree for each atom takes most of the time
            tree, in_tree = KDTree(positions[:count]), count
        there = positions[:count]
        direction = rng.standard_normal((300, 3))
        direction *= NEAREST / np.linalg.norm(direction, axis=1, keepdims=True)
        trials = there[rng.integers(count, size=300)] + direction
        trials = trials[np.isinf(tree.query(trials, distance_upper_bound=CLOSEST)[0])]
        trials = trials[(cdist(trials, there[in_tree:]) >= CLOSEST).all(axis=1)]
        if len(trials):
            best = np.linalg.norm(trials - there.mean(axis=0), axis=1).argmin()
            positions[count] = trials[best]
            count += 1
    return positions


def true_lj_energy(atoms: Atoms) -> float:
    """Untruncated Lennard-Jones energy of a cluster in reduced units, whatever model it came from.

    Of some rows of pairs at a time: all pairs of 10,000 atoms as the edges of a graph take 16 GB.
    """
    positions, total, rows = atoms.positions, 0.0, 256
    for first in range(0, len(atoms), rows):
        squares = cdist(positions[first : first + rows], positions, "sqeuclidean")
        squares[np.arange(len(squares)), first + np.arange(len(squares))] = np.inf
        attraction = squares**-3
        total += float((attraction**2 - attraction).sum())
    return 2 * total
