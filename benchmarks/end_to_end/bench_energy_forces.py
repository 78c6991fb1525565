"""Energy and forces: one call of SimpleGNN on a graph that is reused, or new so that what it caches is in the time"""

from dataclasses import replace

import pytest
import torch
from clusters import SIZES, graph, icosahedron
from lecture_code import LectureGNN, energy_and_forces

from mdgnn import SimpleGNN, evaluate


@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("task", ["energy+forces", "energy+forces, new graph"])
def test_energy_forces(timed, task, n_atoms):
    torch.manual_seed(0)
    model = SimpleGNN().requires_grad_(False)
    lecture = LectureGNN().requires_grad_(False)
    lecture.load_state_dict(model.state_dict())
    g = graph(n_atoms)
    positions = torch.from_numpy(icosahedron(n_atoms)).float()
    edge_index = torch.stack([g.senders, g.receivers])
    functions = {
        "ours": (lambda: evaluate(model, g)) if task == "energy+forces" else (lambda: evaluate(model, replace(g))),
        "lecture": lambda: energy_and_forces(lecture, g.atomic_numbers, positions, edge_index),
    }
    ours, (energy, forces) = functions["ours"](), functions["lecture"]()
    assert abs(ours.energy - energy) <= 1e-5 * ours.energies.abs().sum()
    assert (ours.forces - forces).abs().max() <= 1e-4 * forces.abs().max()
    timed(functions, task, n_atoms, g.n_edges)
