"""SchNet and PaiNN: energy+forces on a graph that is reused, and training steps on both; float32, 3 layers

Plain torch has the same weights; a training step is one of Adam, on 32 clusters of 55 atoms. Atoms are displaced at
random: PaiNN's vectors vanish in a symmetric cluster, where the gradient of their length is all rounding.
"""

import numpy as np
import pytest
import torch
from clusters import CUTOFF, icosahedron
from plain_torch import energy_and_forces

import mdgnn
from mdgnn import Graph, NeighborList, evaluate

MODELS = {"SchNet": mdgnn.SchNet, "PaiNN": mdgnn.PaiNN}
models = pytest.mark.parametrize("name", list(MODELS))


def make(name, n_features):
    torch.manual_seed(0)
    return MODELS[name](n_features, 3, 20, cutoff=CUTOFF)


def displaced(n_atoms, seed=0):
    r = icosahedron(n_atoms) + np.random.default_rng(seed).normal(0, 0.05, (n_atoms, 3))
    return Graph.from_edges(torch.ones(n_atoms, dtype=torch.int64), NeighborList(CUTOFF).update(r), np.zeros((3, 3)))


def assert_equal(ours, energies, forces):
    assert abs(ours.energies - energies).max() <= 1e-5 * ours.energies.abs().sum()
    assert (ours.forces - forces).abs().max() <= 1e-4 * forces.abs().max()


@models
@pytest.mark.parametrize(("n_features", "n_atoms"), [(64, 13), (64, 147), (64, 561), (64, 1415), (128, 561)])
def test_energy_forces(timed, name, n_features, n_atoms):
    model, g = make(name, n_features).requires_grad_(False), displaced(n_atoms)
    assert_equal(evaluate(model, g), *energy_and_forces(model, g))
    functions = {"ours": lambda: evaluate(model, g), "plain torch": lambda: energy_and_forces(model, g)}
    timed(functions, f"{name}, F={n_features}", n_atoms, g.n_edges)


@models
def test_training_step(timed, name):
    g = Graph.batch([displaced(55, seed) for seed in range(32)])
    wanted = torch.randn(g.n_atoms, 3, generator=torch.Generator().manual_seed(0))

    def step(code):
        model = make(name, 64)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def run():
            if code == "ours":
                energies, forces = evaluate(model, g, create_graph=True)[1:3]
            else:
                energies, forces = energy_and_forces(model, g, create_graph=True)
            loss = energies.square().mean() + (forces - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run

    model = make(name, 64)
    assert_equal(evaluate(model, g), *energy_and_forces(model, g))
    timed({code: step(code) for code in ("ours", "plain torch")}, f"{name}, training step", g.n_atoms, g.n_edges)
