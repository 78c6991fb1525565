"""The calculator of the exact Lennard-Jones potential, cut at 2.5 sigma."""

from mdgnn import LennardJones, MDGNNCalculator


def lj(**options):
    return MDGNNCalculator(LennardJones(cutoff=2.5), **{"dtype": "float64", **options})
