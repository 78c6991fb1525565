"""Labelled frames that the tests of data share."""

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator


def labelled(atoms, energy=-1.5, seed=0, stress=False, **info):
    """A copy with an energy, random forces and, on request, a random stress, as ASE's readers would give it."""
    rng = np.random.default_rng(seed)
    atoms = atoms.copy()
    results = {"energy": energy, "forces": rng.normal(0, 1, (len(atoms), 3)).round(6)}
    if stress:
        results["stress"] = rng.normal(0, 0.01, 6).round(6)
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(info)
    return atoms


def molecules(n, seed=0, **info):
    """Frames of three to nine atoms of hydrogen, carbon and oxygen; positions have eight decimals, as in files."""
    rng = np.random.default_rng(seed)
    frames = []
    for k in range(n):
        size = int(rng.integers(3, 10))
        grid = np.array([[x, y, z] for x in range(3) for y in range(3) for z in range(3)], dtype=float)
        positions = 1.4 * rng.permutation(grid)[:size] + rng.normal(0, 0.1, (size, 3))
        frames.append(labelled(Atoms(rng.choice([1, 6, 8], size), positions.round(8)), float(-k - 1), seed=k, **info))
    return frames
