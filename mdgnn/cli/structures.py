"""Structures by name: a file in any format ASE reads, or `lj:N`, a Lennard-Jones cluster of N atoms."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cluster import Icosahedron, Octahedron
from numpy.typing import NDArray
from scipy.spatial import KDTree  # ASE brings scipy
from scipy.spatial.distance import cdist

from mdgnn.cli.constraints import from_records
from mdgnn.cli.errors import CommandError
from mdgnn.cli.kept import CONSTRAINTS, RESULTS, of_another
from mdgnn.cli.output import note
from mdgnn.data.sources import check_file, format_of, frames_of, taken_for, why_unreadable

NEAREST = 1.09  # distance of nearest neighbours in small Lennard-Jones clusters, in sigma
CLOSEST = 0.95  # random clusters keep atoms at least this far apart
LARGEST = 10_000
SEARCHED_ALONE = 100  # atoms that are not yet in the tree of a growing cluster
ICOSAHEDRA = {(10 * k**3 - 15 * k**2 + 11 * k - 3) // 3: k for k in range(1, 15)}  # 1, 13, 55, 147 ...

# Lowest known energies in epsilon (Wales and Doye, J. Phys. Chem. A 101, 5111, 1997), of the shapes made here.
LJ_MINIMA = {13: -44.326801, 38: -173.928427, 55: -279.248470}


def read_structure(
    name: str,
    rng: np.random.Generator,
    index: int | None = None,
    format: str | None = None,
    units: str = "metal",
) -> Atoms:
    """The atoms of a file, or of `lj:N` if there is no file of that name; with constraints, arrays and information.

    Parameters
    ----------
    name : str
        A path that exists is that file, whatever is in its name.
    rng : numpy.random.Generator
        Of clusters whose shape is drawn.
    index : int, optional
        Which of several frames, from 0, or from the last as -1, which it is by default.
    format : str, optional
        ASE's name of the file's format, where ASE cannot guess it.
    units : "metal" or "lj"
        For "metal", atoms must be of elements, not of types with numbers.

    Raises
    ------
    CommandError, FileNotFoundError, DataError
    """
    path = Path(name)
    if name.startswith("lj:") and not path.exists():
        if index is not None or format is not None:
            option = "--format" if index is None else "--index"
            raise CommandError(f"{option} goes with a file, and there is no file {name!r}: it is a cluster made here")
        return lj_cluster(name[3:], rng)
    if not path.exists():
        before = name.rpartition("@")[0]
        hint = "lj:N, such as lj:13, makes a Lennard-Jones cluster"
        if before and Path(before).is_file():
            hint = f"there is {before!r}, of whose frames --index chooses one"
        raise CommandError(f"there is no structure file {name!r}; {hint}")
    check_file(path, "structure file")
    kind = format_of(path, format)
    atoms = _frame_of(path, -1 if index is None else index, kind, format is None, units)
    if len(atoms) == 0:
        raise CommandError(f"expected at least one atom in {name}, found none")
    if others := [name for name in getattr(atoms.calc, "results", {}) if name not in RESULTS]:
        note(of_another(others))
    if CONSTRAINTS in atoms.info:
        try:
            atoms.set_constraint(from_records(atoms.info.pop(CONSTRAINTS)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise CommandError(f"the {CONSTRAINTS} in {name} are none that ASE knows ({error})") from None
    if atoms.has("momenta"):
        momenta = atoms.arrays.pop("momenta")
        if np.any(momenta):
            atoms.set_momenta(momenta)  # as the constraints let them be
    return atoms


def _frame_of(path: Path, index: int, format: str, guessed: bool, units: str) -> Atoms:
    part = slice(index, index + 1 if index >= 0 else None)
    try:
        frames = list(frames_of(path, part, format, units))
    except Exception as error:  # ASE's readers raise anything at all
        reason = why_unreadable(error, format, guessed)
        raise CommandError(f"cannot read a structure from {path}: {reason}") from None
    if not frames and index == -1:
        raise CommandError(f"cannot read a structure from {path}: there is none in it{taken_for(format) * guessed}")
    if len(frames) < (1 if index >= 0 else -index):  # of fewer than two, ASE gives the first for the second last
        raise CommandError(f"there is no frame {index} in {path}")
    return frames[0]


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
