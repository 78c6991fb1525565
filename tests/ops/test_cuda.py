"""Models on a GPU: the same energies and forces as on the CPU, the same bits on every run. Needs no ASE."""

import numpy as np
import pytest
import torch

from mdgnn import Graph, LennardJones, SimpleGNN, evaluate
from mdgnn.neighbors import NeighborList

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def ball(n=147, seed=0):
    """A graph of about n atoms of a displaced fcc crystal, by our own list."""
    grid = np.stack(np.meshgrid(*[np.arange(-6, 7)] * 3), -1).reshape(-1, 3)
    fcc = grid[grid.sum(1) % 2 == 0] * (1.55 / 2)
    near = fcc[np.argsort(np.linalg.norm(fcc, axis=1), kind="stable")[:n]]
    positions = near + np.random.default_rng(seed).normal(0, 0.03, near.shape)
    return Graph.from_edges(np.ones(n, dtype=np.int64), NeighborList(2.5).update(positions), np.zeros((3, 3)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("model", ["gnn", "gnn-mean", "lecture", "lj"])
def test_energies_and_forces_equal_the_cpus(model, dtype):
    torch.manual_seed(0)
    options = {"gnn": {"envelope": "polynomial"}, "gnn-mean": {"envelope": "cosine", "aggregation": "mean"}}
    made = LennardJones(cutoff=2.5) if model == "lj" else SimpleGNN(cutoff=2.5, **options.get(model, {})).to(dtype)
    graph = Graph.batch([ball(13), ball(147, 1), ball(55, 2)])
    expected = evaluate(made, graph, virial=True)
    runs = [evaluate(made.cuda(), graph.to("cuda"), virial=True) for _ in range(2)]
    tolerance = 1e-11 if expected.energy.dtype == made.dtype else 1e-4
    for name in ("energy", "energies", "forces", "virial", "virials"):
        a, b, c = (getattr(prediction, name) for prediction in (expected, *runs))
        assert torch.equal(b, c), "two runs differ"
        torch.testing.assert_close(b.cpu(), a, rtol=tolerance, atol=tolerance * float(a.abs().max()))


def test_training_on_forces_and_virials_runs():
    torch.manual_seed(0)
    model, graph = SimpleGNN(cutoff=2.5, envelope="cosine").double(), ball(55)
    grads = []
    for device in ("cpu", "cuda"):
        model, g = model.to(device), graph.to(device)
        found = evaluate(model, g, virial=True, create_graph=True)
        loss = found.energy.sum() + found.forces.square().sum() + found.virial.square().sum()
        trained = [p for p in model.parameters() if p.requires_grad]
        grads.append([t.cpu() for t in torch.autograd.grad(loss, trained)])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-8 * float(a.abs().max() + 1e-12))


def test_another_stream():
    graph, model = ball(55).to("cuda"), SimpleGNN(cutoff=2.5).cuda()
    expected = evaluate(model, graph).forces
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = evaluate(model, graph).forces
    stream.synchronize()
    assert torch.equal(found, expected)
