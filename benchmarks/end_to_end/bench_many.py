"""Many small systems: 13-atom clusters, all at once, against ASE, one after the other, and torch-sim

As many steps in all. "ours" has all threads. ASE's integrators and optimisers have our calculator; torch-sim, where it
is installed, has the same weights and as many threads as ours. SchNet is a narrow one, of 16 features and one
interaction, whose weights nobody has trained.
"""

import numpy as np
import pytest
import torch
import torch_sim_code
from clusters import CUTOFF, argon, graph

import mdgnn
from mdgnn import SchNet

pytest.importorskip("ase")
from ase.md.langevin import Langevin as AseLangevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from ase.units import kB

from mdgnn import MDGNNCalculator
from mdgnn.dynamics import NVE, Langevin, ManyMolecularDynamics, MolecularDynamics, relax_many
from mdgnn.threads import get_num_threads, set_num_threads

N_SYSTEMS, N_STEPS, N_RELAXED = 1000, 20, 200
TORCH_SIM = {"torch-sim": False, "torch-sim, our list": True}


def model_of(name):
    torch.manual_seed(0)
    if name == "SchNet":
        return SchNet(elements="any", units="lj", cutoff=CUTOFF, n_features=16, n_interactions=1).requires_grad_(False)
    return mdgnn.load(name)


def calculator(model):
    return MDGNNCalculator(model, too_close="ignore")


def clusters(n):
    systems = []
    for k in range(n):
        rng, atoms = np.random.default_rng(k), argon(13)
        atoms.positions += rng.normal(0, 0.05, (13, 3))
        atoms.set_momenta(rng.normal(0, 0.2**0.5, (13, 3)))
        systems.append(atoms)
    return systems


def on_one_thread(run):
    def alone():
        set_num_threads(1)
        try:
            run()
        finally:
            set_num_threads(None)

    return {"1 thread": alone} if get_num_threads() > 1 else {}


def integrator(atoms, timestep, friction):
    if friction is None:
        return VelocityVerlet(atoms, timestep)
    rng = np.random.default_rng(0)
    return AseLangevin(atoms, timestep, temperature_K=0.2 / kB, friction=friction, fixcm=False, rng=rng)


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
@pytest.mark.parametrize("name", ["lj", "SchNet"])
def test_steps_of_many(timed, name, ensemble):
    model = model_of(name)
    timestep = 0.002 if name == "lj" else 1e-5  # under weights that nobody has trained, clusters fly apart
    friction = None if ensemble == "nve" else 0.5
    kind = NVE() if friction is None else Langevin(0.2, friction)
    many = ManyMolecularDynamics(clusters(N_SYSTEMS), kind, calculator(model), timestep)
    (theirs,) = clusters(1)
    theirs.calc = calculator(model)
    ase, steps = integrator(theirs, timestep, friction), N_SYSTEMS * N_STEPS
    functions = {"ours": lambda: many.advance(N_STEPS)}
    functions |= on_one_thread(functions["ours"])
    functions["ASE"] = lambda: [ase.step() for _ in range(steps)]
    if torch_sim_code.SPEC:
        for label, our_list in TORCH_SIM.items():
            advance = torch_sim_code.steps_of(model, clusters(N_SYSTEMS), timestep, friction, our_list)
            functions[label] = lambda advance=advance: advance(N_STEPS)
    timed(functions, f"{steps:,} steps of 13 atoms, {name}, {ensemble}", 13, graph(13).n_edges)


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
@pytest.mark.parametrize("name", ["lj", "SchNet"])
def test_steps_of_one(timed, name, ensemble):
    model = model_of(name)
    timestep, friction = 0.002 if name == "lj" else 1e-5, None if ensemble == "nve" else 0.5
    kind = NVE() if friction is None else Langevin(0.2, friction)
    ours, theirs = clusters(2)
    ours.calc, theirs.calc = calculator(model), calculator(model)
    one, ase = MolecularDynamics(ours, kind, timestep), integrator(theirs, timestep, friction)
    functions = {"ours": lambda: one.advance(1000), "ASE": lambda: [ase.step() for _ in range(1000)]}
    timed(functions, f"1,000 steps of one, {name}, {ensemble}", 13, graph(13).n_edges)


def test_relaxations_of_many(timed):
    model, systems = model_of("lj"), clusters(N_RELAXED)
    calc = calculator(model)

    def by(optimizer):
        def run():
            for atoms in systems:
                copy = atoms.copy()
                copy.calc = calc
                optimizer(copy, logfile=None).run(fmax=0.01, steps=1000)

        return run

    functions = {"ours": lambda: relax_many(systems, calc, fmax=0.01)}
    functions |= on_one_thread(functions["ours"])
    functions |= {"ASE FIRE": by(FIRE), "ASE BFGS": by(BFGS)}
    if torch_sim_code.SPEC:
        for label, our_list in TORCH_SIM.items():
            functions[label] = torch_sim_code.relaxations_of(model, systems, 0.01, 1000, our_list)
    timed(functions, f"{N_RELAXED} relaxations of 13 atoms, lj, to 0.01", 13, graph(13).n_edges)
