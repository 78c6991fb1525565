"""The shipped `lj` beside ASE's LennardJones: one VelocityVerlet step, neighbour list included

ASE's has its own cutoff of 3 sigma, or that of `lj`; neither has its accuracy, as clusters' labels have no cutoff.
Units are reduced: T = 0.2, timestep 0.002.
"""

import numpy as np
import pytest
from clusters import argon

import mdgnn

pytest.importorskip("ase")
from ase.calculators.lj import LennardJones as AseLennardJones
from ase.md.verlet import VelocityVerlet

from mdgnn import MDGNNCalculator


@pytest.mark.parametrize("n_atoms", [13, 55, 147, 561])
def test_step_of_lj(timed, n_atoms):
    ours = MDGNNCalculator("lj")
    cutoff = ours.info.cutoff
    calculators = {"ours": ours, "ASE, 3 sigma": AseLennardJones()}
    calculators[f"ASE, {cutoff:g} sigma"] = AseLennardJones(rc=cutoff)
    atoms = argon(n_atoms)
    atoms.set_momenta(np.random.default_rng(0).normal(scale=0.2**0.5, size=(n_atoms, 3)))
    steps = {}
    for name, calculator in calculators.items():
        system = atoms.copy()
        system.calc = calculator
        steps[name] = VelocityVerlet(system, timestep=0.002).step
    n_edges = len(mdgnn.NeighborList(cutoff).update(atoms.positions).senders)
    timed(steps, "VelocityVerlet step", n_atoms, n_edges)
