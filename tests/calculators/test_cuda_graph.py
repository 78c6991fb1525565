"""A step in memory of fixed size: the same results as without, whatever room there is."""

import copy

import numpy as np
import pytest
import torch
from kernels import devices, dtypes

from mdgnn import Graph, LennardJones, NeighborList, PaiNN, SchNet, SimpleGNN, evaluate
from mdgnn.calculators.cuda_graph import CapturedStep

NONE, ALL = np.zeros(3, dtype=bool), np.ones(3, dtype=bool)


def model_of(name, dtype, device):
    torch.manual_seed(0)
    if name == "LennardJones":
        return LennardJones(cutoff=2.0).to(device)
    if name == "SimpleGNN":
        return SimpleGNN(8, 8, 5, 2, cutoff=2.0, envelope="cosine", elements=[18]).to(device, dtype)
    made = {"SchNet": SchNet, "PaiNN": PaiNN}[name](8, 2, 6, elements=[18], cutoff=2.0)
    return made.to(device, dtype)


def positions_of(n=20, side=3.0, seed=0):
    """Random ones that are not too close."""
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[:n] * side / 3
    return grid + np.random.default_rng(seed).normal(0, 0.05, (n, 3))


def expected_of(model, numbers, positions, cell, pbc, dtype, device):
    edges = NeighborList(model.cutoff).update(positions, cell, pbc)
    graph = Graph.from_edges(numbers, edges, cell).to(device)
    return evaluate(model, graph, virial=True, dtype=dtype), edges


@devices
@dtypes
@pytest.mark.parametrize("name", ["SimpleGNN", "SchNet", "PaiNN", "LennardJones"])
@pytest.mark.parametrize("pbc", [NONE, ALL, np.array([True, False, True])], ids=["open", "periodic", "slab"])
def test_a_step_is_an_evaluation(name, pbc, dtype, device):
    model, numbers, cell = model_of(name, dtype, device).requires_grad_(False), np.full(20, 18), np.eye(3) * 3
    step = CapturedStep(model, numbers, pbc, torch.device(device), dtype, virials=True)
    for seed in range(3):
        positions = positions_of(seed=seed)
        found = step(positions, cell)
        expected, edges = expected_of(model, numbers, positions, cell, pbc, dtype, device)
        tight = 1e-12 if dtype == torch.float64 else 2e-5
        scale = float(expected.forces.abs().max())
        np.testing.assert_allclose(found.forces, expected.forces.cpu(), rtol=0, atol=tight * scale)
        np.testing.assert_allclose(found.energies, expected.energies.cpu(), rtol=tight, atol=tight)
        np.testing.assert_allclose(found.virials, expected.virials.cpu(), rtol=0, atol=10 * tight * scale)
        assert found.energy == pytest.approx(found.energies.sum(), rel=1e-12, abs=1e-12)
        assert found.least_distance == edges.distances.min()


@devices
def test_more_edges_than_there_is_room_for(device):
    """Compressed to half its volume and back; what the arrays hold behind the last edge counts for nothing."""
    model, numbers = model_of("PaiNN", torch.float64, device).requires_grad_(False), np.full(27, 18)
    step = CapturedStep(model, numbers, ALL, torch.device(device), torch.float64)
    rooms = []
    for side in (3.6, 2.7, 4.2, 2.4, 3.6):
        positions, cell = positions_of(27, side), np.eye(3) * side
        found = step(positions, cell)
        expected, edges = expected_of(model, numbers, positions, cell, ALL, torch.float64, device)
        np.testing.assert_allclose(found.forces, expected.forces.cpu(), rtol=0, atol=1e-12)
        assert step.capacity >= len(edges.senders) and found.virials is None
        rooms.append(step.capacity)
    assert rooms[0] < rooms[1] == rooms[2] < rooms[3] == rooms[4]


@devices
@pytest.mark.parametrize("n", [1, 2])
def test_atoms_without_neighbours(n, device):
    model = model_of("PaiNN", torch.float32, device).requires_grad_(False)
    step = CapturedStep(model, [18] * n, NONE, torch.device(device), torch.float32)
    found = step(np.arange(3.0 * n).reshape(n, 3) * 10, np.zeros((3, 3)))
    assert found.least_distance == np.inf and not found.forces.any() and np.isfinite(found.energy)


@devices
def test_what_a_step_refuses_and_fits(device):
    model = model_of("SchNet", torch.float32, device).requires_grad_(False)
    step = CapturedStep(model, [18, 18], ALL, torch.device(device), torch.float32)
    assert step.fits([18, 18], ALL, False) and not step.fits([18, 18], ALL, True)
    assert not step.fits([18], ALL, False) and not step.fits([18, 18], NONE, False)
    good = step(np.array([[0.0, 0, 0], [1, 1, 0]]), np.eye(3) * 4)
    with pytest.raises(ValueError, match="finite positions, got (infinity or )?nan for atom 1"):
        step(np.array([[0.0, 0, 0], [np.nan, 1, 0]]), np.eye(3) * 4)
    again = copy.deepcopy(step)(np.array([[0.0, 0, 0], [1, 1, 0]]), np.eye(3) * 4)
    np.testing.assert_array_equal(good.forces, again.forces)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_is_captured_once(recwarn):
    model = model_of("PaiNN", torch.float32, "cuda").requires_grad_(False)
    step = CapturedStep(model, np.full(20, 18), ALL, torch.device("cuda"), torch.float32)
    for seed in range(5):
        step(positions_of(seed=seed), np.eye(3) * 3)
    assert step.n_captures == 1 and not recwarn.list
