"""Systems of the Lennard-Jones ladder: clusters at their minima, liquids, and the dynamics that moves them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.io import read, write
from ase.md.langevin import Langevin
from lj_minima import SIZES, Array, find, read_table

from mdgnn import LennardJones, MDGNNCalculator

Figures = dict[str, Any]  # what a rung says
SHORT_CUTOFF = 3.0  # sigma, of the dynamics that makes boxes


def exact(cutoff: float | None = None) -> MDGNNCalculator:
    """The true potential: untruncated, or cut."""
    model = LennardJones() if cutoff is None else LennardJones(cutoff=cutoff, mode="cut")
    return MDGNNCalculator(model, dtype="float64", too_close="ignore")


def cluster(positions: Array) -> Atoms:
    """Atoms of mass 1."""
    return Atoms(f"Ar{len(positions)}", positions, masses=np.ones(len(positions)))


def langevin(
    atoms: Atoms,
    temperature: float,
    rng: np.random.Generator,
    timestep: float = 0.005,
    friction: float = 0.5,
    start: float = 2.0,
) -> Langevin:
    """Dynamics at a temperature in epsilon/kB, from velocities of `start` times it: 2 at a minimum, as half goes into
    the potential, 1 of a liquid, which has that already."""
    atoms.set_velocities(rng.normal(0, math.sqrt(start * temperature), atoms.positions.shape))
    return Langevin(atoms, timestep, temperature_K=temperature / units.kB, friction=friction, rng=rng, fixcm=False)


def minima(data: Path, work: Path) -> dict[int, Atoms]:
    """The minima of the Cambridge Cluster Database by number of atoms, found once."""
    path = work / "minima.xyz"
    if not path.exists():
        table, smaller, known = read_table(data / "lj_ccd.tsv"), None, []
        for n in SIZES:
            smaller = find(n, table[n], smaller if n < 38 else None, np.random.default_rng([0, n]))
            known.append(cluster(smaller))
        write(path, known, format="extxyz")
    return {len(atoms): cluster(atoms.positions) for atoms in read(path, ":")}


def liquid(density: float, repeat: int, calculator: MDGNNCalculator, rng: np.random.Generator) -> Atoms:
    """A box of 4 repeat^3 atoms, melted from a crystal by 1,000 steps at a temperature of 3."""
    atoms = bulk("Ar", "fcc", a=(4 / density) ** (1 / 3), cubic=True) * repeat
    atoms.set_masses(np.ones(len(atoms)))
    atoms.calc = calculator
    langevin(atoms, 3.0, rng).run(1000)
    return atoms
