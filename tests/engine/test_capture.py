"""Programs of the models mean what the models do."""

import pytest
import torch
from program_meaning import meaning
from systems import crystal, gnn, icosahedron, radial

from mdgnn import Engine, Graph, evaluate
from mdgnn.engine import trace

MODELS = {
    "SimpleGNN": lambda: gnn(),
    "SimpleGNN, mean without envelope": lambda: gnn(aggregation="mean", envelope=None),
    "SimpleGNN, exponential": lambda: gnn(basis="exponential", basis_start=0.4),
    "SimpleGNN, repulsion": lambda: gnn(repulsion=0.8),
    "SchNet": lambda: radial("SchNet"),
    "SchNet, bessel and cosine": lambda: radial("SchNet", basis="bessel", envelope="cosine"),
    "SchNet, exponential": lambda: radial("SchNet", basis="exponential", basis_start=0.4),
    "PaiNN": lambda: radial("PaiNN"),
    "PaiNN, repulsion": lambda: radial("PaiNN", repulsion=0.8),
}


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("structure", [icosahedron(2, 0.05), crystal()], ids=["cluster", "crystal"])
def test_the_program_means_the_model(name, structure):
    """To the error of interpolation: the program's tables are their functions here."""
    model = MODELS[name]()
    graph = Graph.from_atoms(structure, model.cutoff)
    expected = evaluate(model, graph)
    energies, forces = meaning(trace(model), graph.atomic_numbers, graph.senders, graph.receivers, graph.vectors)
    torch.testing.assert_close(energies, expected.energies, rtol=0, atol=1e-6 * float(expected.energies.abs().max()))
    torch.testing.assert_close(forces, expected.forces, rtol=0, atol=1e-5 * float(expected.forces.abs().max()))


@pytest.mark.parametrize("architecture", ["SimpleGNN", "SchNet", "PaiNN"])
def test_weights_that_are_not_numbers_are_captured(architecture):
    """A model gone astray is run, so that its results are what is complained of."""
    model = gnn() if architecture == "SimpleGNN" else radial(architecture)
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float("nan"))
    engine = Engine(model)
    assert torch.isnan(engine.evaluate(Graph.from_atoms(icosahedron(2), 2.5)).energies).all()
