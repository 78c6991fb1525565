"""Molecular dynamics: one ASE VelocityVerlet step with SimpleGNN, neighbour list included

The lecture's code takes its edges from ASE's list, or from vesin's where it is installed. Masses and units are reduced:
T = 0.2, timestep 0.002.
"""

from functools import cache
from importlib.util import find_spec

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


def lists():
    """What gives receivers and senders of the lecture's code, by name."""
    functions = {"ASE": lambda atoms: neighbor_list("ij", atoms, CUTOFF)}
    if find_spec("vesin"):
        import vesin

        peer = vesin.NeighborList(cutoff=CUTOFF, full_list=True)
        functions["vesin"] = lambda atoms: peer.compute(atoms.positions, atoms.cell.array, False, "ij")
    return functions


class LectureCalculator(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, model, edges_of):
        super().__init__()
        self.model, self.edges_of = model, edges_of

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        edge_index = torch.from_numpy(np.stack(self.edges_of(self.atoms)).astype(np.int64))
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
    ours = atoms.copy()
    ours.calc = MDGNNCalculator(model)
    scale = np.abs(ours.calc.get_property("energies", ours)).sum()
    steps = {"ours": VelocityVerlet(ours, timestep=0.002).step}
    for name, edges_of in lists().items():
        theirs = atoms.copy()
        theirs.calc = LectureCalculator(lecture, edges_of)
        assert abs(theirs.get_potential_energy() - ours.get_potential_energy()) <= 1e-5 * scale
        steps[f"lecture + {name} list"] = VelocityVerlet(theirs, timestep=0.002).step
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

    def search():
        for frame in frames:
            calculator.neighbors.update(frame, atoms.cell.array, atoms.pbc)

    def steps():
        for frame in frames:
            step.positions = frame
            calculator.calculate(step)

    functions = {"ours": search, "whole step": steps}
    timed(functions, f"list work in 60 steps of a liquid, skin {skin}", n_atoms, n_edges, once=["whole step"])
