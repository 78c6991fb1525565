"""Many small systems: 13-atom clusters, all at once against an ASE loop with our calculator, one after the other

As many steps in all. The loop has all threads; ASE's, and the compiled loop of one system, the one that suits 13 atoms.
"""

import numpy as np
import pytest
import torch
from clusters import CUTOFF, argon, graph

from mdgnn import SchNet, SimpleGNN

pytest.importorskip("ase")
from ase.md.langevin import Langevin as AseLangevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from ase.units import kB

from mdgnn import MDGNNCalculator
from mdgnn.dynamics import NVE, Langevin, ManyMolecularDynamics, MolecularDynamics, relax_many

N_SYSTEMS, N_STEPS = 100, 10


def calculator(name):
    torch.manual_seed(0)
    models = {"SimpleGNN": SimpleGNN, "SchNet": SchNet}
    model = models[name](elements="any", units="lj", cutoff=CUTOFF) if name in models else name
    return MDGNNCalculator(model, too_close="ignore")


def clusters(n):
    systems = []
    for k in range(n):
        rng, atoms = np.random.default_rng(k), argon(13)
        atoms.positions += rng.normal(0, 0.05, (13, 3))
        atoms.set_momenta(rng.normal(0, 0.2**0.5, (13, 3)))
        systems.append(atoms)
    return systems


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
@pytest.mark.parametrize("model", ["lj", "SimpleGNN", "SchNet"])
def test_steps_of_many(timed, model, ensemble):
    calc = calculator(model)
    timestep = 0.002 if model == "lj" else 1e-5  # under weights that nobody has trained, clusters fly apart
    kind = NVE() if ensemble == "nve" else Langevin(0.2, 0.5)
    many = ManyMolecularDynamics(clusters(N_SYSTEMS), kind, calc, timestep)
    alone, theirs = clusters(2)
    alone.calc, theirs.calc = calc, calculator(model)
    one, ase = MolecularDynamics(alone, kind, timestep), VelocityVerlet(theirs, timestep)
    if ensemble == "langevin":
        rng = np.random.default_rng(0)
        ase = AseLangevin(theirs, timestep, temperature_K=0.2 / kB, friction=0.5, fixcm=False, rng=rng)
    steps = N_SYSTEMS * N_STEPS
    timed(
        {
            "ours": lambda: many.advance(N_STEPS),
            "one by one": lambda: one.advance(steps),
            "ASE": lambda: [ase.step() for _ in range(steps)],
        },
        f"{steps:,} steps of 13 atoms, {model}, {ensemble}",
        13,
        graph(13).n_edges,
    )


def test_relaxations_of_many(timed):
    calc, systems = calculator("lj"), clusters(20)

    def ase():
        for atoms in systems:
            copy = atoms.copy()
            copy.calc = calc
            FIRE(copy, logfile=None).run(fmax=0.01, steps=1000)

    ours = {"ours": lambda: relax_many(systems, calc, fmax=0.01), "ASE": ase}
    timed(ours, "20 relaxations of 13 atoms, lj, FIRE to 0.01", 13, graph(13).n_edges)
