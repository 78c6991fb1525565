"""Structures by name: a file in any format ASE reads, or `lj:N`, a Lennard-Jones cluster of N atoms."""

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.cluster import Icosahedron, Octahedron
from numpy.typing import NDArray
from scipy.spatial import KDTree  # ASE brings scipy

from mdgnn.cli.errors import CommandError
from mdgnn.reasons import reason_of

NEAREST = 1.09  # distance of nearest neighbours in small Lennard-Jones clusters, in sigma
CLOSEST = 0.95  # random clusters keep atoms at least this far apart
LARGEST = 10_000
ICOSAHEDRA = {(10 * k**3 - 15 * k**2 + 11 * k - 3) // 3: k for k in range(1, 15)}  # 1, 13, 55, 147 ...

# Lowest known energies in epsilon (Wales and Doye, J. Phys. Chem. A 101, 5111, 1997), of the shapes made here.
LJ_MINIMA = {13: -44.326801, 38: -173.928427, 55: -279.248470}


def read_structure(name: str, rng: np.random.Generator) -> Atoms:
    """The atoms of `lj:N` or of a file; of a file with several frames the last.

    Only what dynamics needs is kept: elements, positions, cell, masses, momenta and constraints.
    """
    if name.startswith("lj:"):
        return lj_cluster(name[3:], rng)
    if not Path(name).is_file():
        raise CommandError(f"there is no structure file {name!r}; lj:N, such as lj:13, makes a Lennard-Jones cluster")
    try:
        atoms: Any = ase.io.read(name)
    except Exception as error:  # ASE's readers raise anything at all
        reason = reason_of(error)
        raise CommandError(f"cannot read a structure from {name}: {reason}") from None
    if len(atoms) == 0:
        raise CommandError(f"expected at least one atom in {name}, found none")
    clean = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if atoms.has("masses"):
        clean.set_masses(atoms.get_masses())
    clean.set_constraint(atoms.constraints)
    if np.any(atoms.get_momenta()):
        clean.set_momenta(atoms.get_momenta())
    return clean


def lj_cluster(size: str, rng: np.random.Generator) -> Atoms:
    """An icosahedron, the truncated octahedron of 38, or else a random compact cluster; in units of sigma."""
    if not (size.isascii() and size.isdigit() and 1 <= int(size) <= LARGEST):
        raise CommandError(f"expected lj:N with a whole number of atoms from 1 to {LARGEST}, got 'lj:{size}'")
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
    positions = np.zeros((1, 3))
    while len(positions) < n:
        direction = rng.standard_normal((300, 3))
        direction *= NEAREST / np.linalg.norm(direction, axis=1, keepdims=True)
        trials = positions[rng.integers(len(positions), size=300)] + direction
        trials = trials[KDTree(positions).query(trials)[0] >= CLOSEST]
        if len(trials):
            best = np.linalg.norm(trials - positions.mean(axis=0), axis=1).argmin()
            positions = np.vstack([positions, trials[best]])
    return positions
