"""Structures that are none: cells that nobody means, such as the 1 x 1 x 1 of programs that must write one, and
positions in another unit.

The bounds are far beyond what is known, so that they never meet matter under pressure, starts of searches for
structures or atoms that are to be pushed apart. Lengths are in Angstrom; reduced units are not for these checks.
"""

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from mdgnn.data.labels import LabelError
from mdgnn.neighbors import primitive_neighbor_list

# An atom of number Z has the volume 0.55 Z^0.55 at about 5 TPa: 1.5 for carbon (diamond, measured: 1.7), 0.55 for
# metallic hydrogen, 3.3 for iron, 6 for gold. No matter that a potential describes is twice as dense.
DENSE = 0.55
IMPOSSIBLE, DOUBTFUL = 0.5, 1.5  # of that volume
# Atoms whose distance is below half the width of such volumes touch: 0.41 for H-H, 0.57 for C-C, 0.91 for Au-Au.
TOUCHING = 0.5
CELL = (
    "if the file has a cell that nobody meant, take it out (CRYST1 of PDB, Lattice of extended XYZ) or set pbc to F F F"
)
NOBLE_GASES = (2, 10, 18, 36, 54)  # as which particles of reduced units go
LEAST_REDUCED = (
    0.2  # sigma^3 an atom: neighbours of a close packing are 0.66 sigma apart, where each bond has 500 epsilon
)
LEAST_VECTOR = 1.5  # Angstrom: below, it is no period of anything whose images touch
MOST = 3  # atoms from which on half of them tell of a wrong unit


def _dense_volumes(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    volumes: NDArray[np.float64] = DENSE * np.maximum(numbers, 1) ** 0.55
    return volumes


def check_density(atoms: Atoms) -> str:
    """Doubts about a structure in Angstrom that may be right, in a sentence, or "".

    Raises
    ------
    LabelError
        If it cannot be right: denser than any matter, dense with atoms that overlap only through the boundary, or with
        most of its atoms on top of each other.
    """
    dense = _dense_volumes(atoms.numbers)
    volume = _volume(atoms)
    mass = float(atoms.get_masses().sum()) / (units.kg * 1e-3) * 1e24
    what = f"{_count(atoms)} in a periodic cell of {volume:.3g} Angstrom^3, {mass / volume:.3g} g/cm^3"
    if volume < IMPOSSIBLE * dense.sum():
        raise LabelError(f"{what}: no matter is so dense; is it in nm? {CELL}")
    widths = dense ** (1 / 3)
    i, j, d, shifts = primitive_neighbor_list(
        "ijdS", atoms.pbc, atoms.cell.array, atoms.positions, TOUCHING * float(widths.max())
    )
    touching = d < TOUCHING * (widths[i] + widths[j]) / 2
    i, j, d, shifts = i[touching], j[touching], d[touching], shifts[touching]
    beyond = bool(len(d)) and bool(shifts.any(axis=1).all())
    seen = ""
    if beyond:
        e = int(d.argmin())
        seen = f"atom {i[e]} and an image of atom {j[e]} are {d[e]:.2g} Angstrom apart"
    doubtful = volume < DOUBTFUL * dense.sum()
    lengths = np.linalg.norm(atoms.cell.array[atoms.pbc], axis=1)
    if beyond and not doubtful and lengths.min() < LEAST_VECTOR:
        raise LabelError(f"a period of {lengths.min():.3g} Angstrom, with which {seen}: no structure is so; {CELL}")
    if doubtful and beyond:
        raise LabelError(f"{what}, and {seen}: no crystal is so; {CELL}")
    near = np.unique(i[d < TOUCHING / 2 * (widths[i] + widths[j]) / 2])
    if len(atoms) >= MOST and 2 * len(near) > len(atoms):
        raise LabelError(
            f"{len(near)} of {len(atoms)} atoms are on top of another one, the closest {d.min():.2g} Angstrom apart: "
            "positions in nm or in fractions of the cell look so, and Angstrom are expected"
        )
    if doubtful:
        return f"{what}: matter is so dense under pressures of TPa; {CELL}"
    return f"{seen}, and no two atoms of the cell itself are: are the cell and pbc right?" if beyond else ""


def check_reduced_density(atoms: Atoms) -> None:
    """Raise a LabelError for a structure in reduced units that is denser than any matter."""
    volume = _volume(atoms)
    if volume < LEAST_REDUCED * len(atoms):
        raise LabelError(
            f"{_count(atoms)} in a periodic cell of {volume:.3g} sigma^3: no matter is so dense; is the file in "
            f"reduced units? {CELL}"
        )


def _count(atoms: Atoms) -> str:
    return f"{len(atoms)} atoms" if len(atoms) > 1 else "one atom"


def _volume(atoms: Atoms) -> float:
    """Of the cell, if it is periodic all round; infinite otherwise, as where nothing bounds it."""
    volume = float(abs(np.linalg.det(atoms.cell.array)))
    return volume if atoms.pbc.all() and volume > 0 else np.inf
