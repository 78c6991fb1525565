"""What the tests of dynamics run: a cluster and a crystal in reduced units, and the exact potential."""

import numpy as np
from ase.build import bulk

from mdgnn import LennardJones, MDGNNCalculator
from mdgnn.dynamics.lj_clusters import lj_cluster


def cluster(n=13):
    atoms = lj_cluster(str(n), np.random.default_rng(0))
    atoms.positions += np.random.default_rng(1).normal(0, 0.03, atoms.positions.shape)
    return atoms


def crystal():
    return bulk("Ar", "fcc", a=1.6, cubic=True) * 2


def exact(cutoff=None):
    model = LennardJones() if cutoff is None else LennardJones(cutoff=cutoff)
    return MDGNNCalculator(model, dtype="float64")


def cluster_with(calculator):
    atoms = cluster()
    atoms.calc = calculator
    return atoms
