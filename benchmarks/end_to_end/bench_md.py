"""Molecular dynamics: one ASE VelocityVerlet step with SimpleGNN, neighbour list included

The lecture's code takes its edges from ASE's list. Masses and units are reduced: T = 0.2, timestep 0.002.
"""

from functools import cache

import numpy as np
import pytest
import torch
from clusters import CUTOFF, SIZES, argon, graph
from lecture_code import LectureGNN, energy_and_forces

from mdgnn import SimpleGNN

pytest.importorskip("ase")
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.md.verlet import VelocityVerlet
from ase.neighborlist import neighbor_list

from mdgnn import LennardJones, MDGNNCalculator


class LectureCalculator(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, model):
        super().__init__()
        self.model = model

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        edge_index = torch.from_numpy(np.stack(neighbor_list("ij", self.atoms, CUTOFF)))
        positions = torch.from_numpy(self.atoms.positions).float()
        z = torch.ones(len(positions), dtype=torch.int64)
        energy, forces = energy_and_forces(self.model, z, positions, edge_index)
        self.results = {"energy": energy.item(), "forces": forces.double().numpy()}


@pytest.mark.parametrize("n_atoms", SIZES)
def test_md_step(timed, n_atoms):
    torch.manual_seed(0)
    model = SimpleGNN(elements="any", units="lj", cutoff=CUTOFF)
    lecture = LectureGNN().requires_grad_(False)
    lecture.load_state_dict(model.state_dict())
    atoms = argon(n_atoms)
    atoms.set_momenta(np.random.default_rng(0).normal(scale=0.2**0.5, size=(n_atoms, 3)))
    theirs = atoms.copy()
    atoms.calc, theirs.calc = MDGNNCalculator(model), LectureCalculator(lecture)
    scale = np.abs(atoms.calc.get_property("energies", atoms)).sum()
    assert abs(theirs.get_potential_energy() - atoms.get_potential_energy()) <= 1e-5 * scale
    steps = {
        "ours": VelocityVerlet(atoms, timestep=0.002).step,
        "lecture + ASE list": VelocityVerlet(theirs, timestep=0.002).step,
    }
    timed(steps, "VelocityVerlet step", n_atoms, graph(n_atoms).n_edges)


@cache
def liquid_trajectory(n_atoms):
    """Atoms, and positions of 60 steps of 0.005 at T = 0.85 and density 0.8442, after 100 steps from a crystal."""
    atoms = bulk("Ar", "fcc", a=(4 / 0.8442) ** (1 / 3), cubic=True) * round((n_atoms / 4) ** (1 / 3))
    atoms.set_masses(np.ones(len(atoms)))
    atoms.set_momenta(np.random.default_rng(0).normal(scale=1.7**0.5, size=(len(atoms), 3)))  # half of it melts
    atoms.calc = MDGNNCalculator(LennardJones(cutoff=2.5))
    dynamics = VelocityVerlet(atoms, timestep=0.005)
    dynamics.run(100)
    frames = []
    for _ in range(60):
        dynamics.run(1)
        frames.append(atoms.positions.copy())
    return atoms, frames


@pytest.mark.parametrize("skin", [0.0, 0.3])
@pytest.mark.parametrize("n_atoms", [500, 2048])
def test_list_work(timed, n_atoms, skin):
    atoms, frames = liquid_trajectory(n_atoms)
    torch.manual_seed(0)
    calculator = MDGNNCalculator(SimpleGNN(elements="any", units="lj", cutoff=CUTOFF), skin=skin)
    n_edges = len(calculator.neighbors.update(frames[0], atoms.cell.array, True).senders)
    step = atoms.copy()

    def lists():
        for frame in frames:
            calculator.neighbors.update(frame, atoms.cell.array, atoms.pbc)

    def steps():
        for frame in frames:
            step.positions = frame
            calculator.calculate(step)

    functions = {"ours": lists, "whole step": steps}
    timed(functions, f"list work in 60 steps of a liquid, skin {skin}", n_atoms, n_edges, once=["whole step"])
