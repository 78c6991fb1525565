"""Systems that tests of the compiled loop move."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.constraints import FixAtoms

from mdgnn import MDGNNCalculator
from mdgnn.dynamics.lj_clusters import lj_cluster


def moving(atoms, seed=0, temperature=0.3):
    atoms.set_masses(np.ones(len(atoms)))
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
    atoms.set_momenta(rng.normal(0, temperature**0.5, atoms.positions.shape))
    return atoms


def cluster(n=13, seed=0):
    return moving(lj_cluster(str(n), np.random.default_rng(0)), seed)


def crystal(seed=0):
    return moving(bulk("Ar", "fcc", a=1.6, cubic=True) * 2, seed)


def mixed():
    """Different sizes, periodic or not, one atom, and the same system twice."""
    fixed = cluster(38, 5)
    fixed.set_constraint(FixAtoms([0, 3]))
    return [cluster(13, 1), crystal(2), moving(Atoms("Ar", [[1.0, 2.0, 3.0]]), 3), cluster(13, 1), fixed, cluster(7)]


def state(atoms):
    return np.concatenate([atoms.positions, atoms.get_momenta()])


def energy(atoms):
    """Of a calculator that has seen nothing yet."""
    fresh = atoms.copy()
    fresh.calc = MDGNNCalculator("lj")
    return fresh.get_potential_energy()
