"""Models: energy+forces on a graph that is reused, and training steps on both; float32, 3 layers

"direct" is ours without tables of filters. Plain torch has the same weights; SimpleGNN's is the lecture's code, line
for line; at 561 atoms it also runs compiled by torch.compile, for these shapes alone. schnetpack's networks, where they
are installed, have weights of their own. A training step is one of Adam, on 32 clusters of 55 atoms. Atoms are
displaced at random: PaiNN's vectors vanish in a symmetric cluster, where the gradient of their length is all rounding.
"""

import pytest
import schnetpack_code
import torch
from clusters import displaced, liquid
from networks import FEATURES, make
from plain_torch import compiled, energy_and_forces

from mdgnn import Graph, evaluate

models = pytest.mark.parametrize("name", list(FEATURES))


def assert_equal(ours, energies, forces):
    assert abs(ours.energies - energies).max() <= 1e-5 * ours.energies.abs().sum()
    assert (ours.forces - forces).abs().max() <= 1e-4 * forces.abs().max()


WIDE = {"SchNet", "PaiNN"}  # plain torch would take tens of GB for the largest cluster
SIZES = [13, 147, 561, 1415, 6525, 500]
CASES = [(name, n, FEATURES[name]) for n in SIZES for name in FEATURES] + [(name, 561, 128) for name in sorted(WIDE)]


@pytest.mark.parametrize(("name", "n_atoms", "width"), CASES)
def test_energy_forces(timed, name, n_atoms, width):
    model = make(name, width).requires_grad_(False)
    g = liquid(5) if n_atoms == 500 else displaced(n_atoms)
    functions = {"ours": lambda: evaluate(model, g)}
    if n_atoms < 6525 or name not in WIDE:
        assert_equal(evaluate(model, g), *energy_and_forces(model, g))
        direct = make(name, width, filters="direct").requires_grad_(False)
        assert_equal(evaluate(direct, g), *energy_and_forces(model, g))
        functions["direct"] = lambda: evaluate(direct, g)
        functions["plain torch"] = lambda: energy_and_forces(model, g)
    if n_atoms == 561 and width == FEATURES[name]:
        functions["torch.compile"] = compiled(model, g)
        assert_equal(evaluate(model, g), *functions["torch.compile"]())
    if n_atoms == 561 and name in WIDE and schnetpack_code.SPEC:
        functions["schnetpack"] = schnetpack_code.energy_and_forces_of(name, width, g)
    task = f"{name}, F={width}" + (", liquid" if n_atoms == 500 else "")
    timed(functions, task, g.n_atoms, g.n_edges, once=["plain torch"] if g.n_edges > 500_000 else [])


@models
def test_training_step(timed, name):
    g = Graph.batch([displaced(55, seed) for seed in range(32)])
    target = torch.randn(g.n_atoms, 3, generator=torch.Generator().manual_seed(0))

    def step(code):
        model = make(name, FEATURES[name])
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

        def run():
            if code == "ours":
                energies, forces = evaluate(model, g, create_graph=True)[1:3]
            else:
                energies, forces = energy_and_forces(model, g, create_graph=True)
            loss = energies.square().mean() + (forces - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run

    model = make(name, FEATURES[name])
    assert_equal(evaluate(model, g), *energy_and_forces(model, g))
    timed({code: step(code) for code in ("ours", "plain torch")}, f"{name}, training step", g.n_atoms, g.n_edges)
