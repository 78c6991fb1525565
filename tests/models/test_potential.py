"""Virials of atoms, and training on what `evaluate` returns."""

import pytest
import torch
from systems import SYSTEMS, gnn, radial

from mdgnn import Graph, LennardJones, evaluate

MODELS = {
    "gnn": gnn,
    "gnn-mean": lambda: gnn(aggregation="mean", readout="mean"),
    "lj": lambda: LennardJones(cutoff=2.5),
    "schnet": lambda: radial("SchNet"),
    "painn": lambda: radial("PaiNN"),
}


@pytest.mark.parametrize("model", list(MODELS))
def test_virials_of_atoms_sum_to_that_of_their_structure(model):
    graph = Graph.from_atoms(list(SYSTEMS.values()), 2.5)
    prediction = evaluate(MODELS[model](), graph, virial=True)
    total = torch.zeros(len(SYSTEMS), 3, 3, dtype=torch.float64).index_add(0, graph.structure, prediction.virials)
    torch.testing.assert_close(total, prediction.virial, rtol=1e-12, atol=1e-12 * float(prediction.virials.abs().max()))
    alone = evaluate(MODELS[model](), graph, forces=False, virial=True)
    assert alone.forces is None and torch.equal(alone.virials, prediction.virials)
    assert evaluate(MODELS[model](), graph).virials is None


@pytest.mark.parametrize("model", [m for m in MODELS if m != "lj"])
def test_training_on_stress(model):
    """The gradient of a loss on forces, virial and virials of atoms, for weights, by central differences."""
    made, graph = MODELS[model](), Graph.from_atoms([SYSTEMS["crystal"], SYSTEMS["triclinic"]], 2.5)
    g = torch.Generator().manual_seed(0)

    def loss(create_graph):
        out = evaluate(made, graph, virial=True, create_graph=create_graph)
        return out.virial.square().sum() + out.virials.square().sum() + out.forces.square().sum()

    weights = [p for p in made.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss(True), weights, allow_unused=True)
    ways = [torch.randn(w.shape, dtype=w.dtype, generator=g) for w in weights]
    slope = sum(float((d * w).sum()) for d, w in zip(grads, ways, strict=True) if d is not None)
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            for w, way in zip(weights, ways, strict=True):
                w += step * way
            values.append(float(loss(False)))
            for w, way in zip(weights, ways, strict=True):
                w -= step * way
    assert abs((values[0] - values[1]) / 2e-6 - slope) <= 1e-6 * abs(slope)
