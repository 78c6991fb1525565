"""Engine: energy and forces with the neighbour list given, float32, 3 layers, against the same weights elsewhere

torch path: `mdgnn.evaluate`, on a graph that has its edges by sender, while the engine's time includes sorting them.
The lecture's code has SimpleGNN's weights and computes derivatives for positions alone; schnetpack's networks, where
they are installed, have weights of their own. Atoms are displaced at random.
"""

import pytest
import schnetpack_code
import torch
from clusters import displaced, positions_of
from lecture_code import LectureGNN, energy_and_forces
from networks import FEATURES, make

from mdgnn import Engine, NeighborList, evaluate


def of_the_lecture(model, graph, positions):
    lecture = LectureGNN().requires_grad_(False)
    lecture.load_state_dict(model.state_dict())
    edge_index = torch.stack([graph.senders, graph.receivers])
    return lambda: energy_and_forces(lecture, graph.atomic_numbers, positions, edge_index)


@pytest.mark.parametrize("n_atoms", [13, 55, 147, 561, 1415, 6525])
@pytest.mark.parametrize("name", list(FEATURES))
def test_engine(timed, name, n_atoms):
    model = make(name, FEATURES[name]).requires_grad_(False)
    graph, positions = displaced(n_atoms), positions_of(n_atoms)
    edges = NeighborList(model.cutoff).update(positions)
    engine, numbers = Engine(model), graph.atomic_numbers.numpy()
    expected, (_, forces, _) = evaluate(model, graph), engine.run(numbers, edges)
    assert abs(forces - expected.forces.numpy()).max() <= 2e-5 * abs(forces).max()
    functions = {"ours": lambda: engine.run(numbers, edges), "torch path": lambda: evaluate(model, graph)}
    if name == "SimpleGNN":
        functions["lecture"] = of_the_lecture(model, graph, torch.from_numpy(positions).float())
    elif schnetpack_code.SPEC and n_atoms <= 1415:
        functions["schnetpack"] = schnetpack_code.energy_and_forces_of(name, FEATURES[name], graph)
    timed(functions, f"{name}, F={FEATURES[name]}", n_atoms, graph.n_edges, once=["lecture"] if n_atoms > 5000 else [])
