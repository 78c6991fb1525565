"""Repulsion of pairs beside a network: its formula, that it falls whatever is learnt, every way to ask a model."""

import numpy as np
import pytest
import torch
from ase import Atoms
from kernels import dtypes
from systems import gnn, radial

import mdgnn
from mdgnn import Graph, MDGNNCalculator, PaiNN, SchNet, SimpleGNN, evaluate
from mdgnn.nn import Property, Repulsion

ARCHITECTURES = ("SimpleGNN", "SchNet", "PaiNN")
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
START = 0.8
modes = pytest.mark.parametrize("filters", ["table", "direct"])


def pair(architecture, **options):
    """A model with repulsion of random strengths, and the same without."""
    make = gnn if architecture == "SimpleGNN" else lambda **more: radial(architecture, **more)
    without = make(elements=[6, 8], **options)
    model = make(elements=[6, 8], repulsion=START, **options)
    state = without.state_dict()
    assert set(model.state_dict()) - set(state) == {"repulsion.strengths", "repulsion.functions.basis.rates"}
    model.load_state_dict({**model.state_dict(), **state})
    with torch.no_grad():
        model.repulsion.strengths.uniform_(-2, 0)
        model.repulsion.functions.basis.rates.uniform_(-4, -1)
    return model, without


def structure():
    return Atoms("COOC", [[0, 0, 0], [0.9, 0.2, 0], [-0.3, 1.3, 0.4], [4.0, 0.5, 0]], cell=[5, 9, 9], pbc=(1, 0, 0))


def formula(model, atoms):
    """The energies of pairs, from arrays and images of the cell."""
    a = model.repulsion.strengths.detach().numpy()[[{6: 1, 8: 2}[z] for z in atoms.numbers]]
    b = 60 / START / (1 + np.exp(-model.repulsion.functions.basis.rates.detach().numpy()))
    energies = np.zeros(len(atoms))
    for shift in (-1, 0, 1):
        d = np.linalg.norm(atoms.positions[None] + [5.0 * shift, 0, 0] - atoms.positions[:, None], axis=2)
        x = np.minimum(d / model.cutoff, 1)
        envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        terms = np.exp(a[:, None] + a[None] - b * (d[:, :, None] - START)).sum(axis=2) * envelope
        energies += 0.5 * np.where(d > 0, terms, 0).sum(axis=1)
    return energies


@architectures
@modes
def test_equals_its_formula(architecture, filters):
    """Added to the network's energies, and so multiplied by the scale."""
    model, without = pair(architecture, filters=filters, scale=[3.0, 0.5], shift=[-1.0, -2.0])
    atoms = structure()
    graph = Graph.from_atoms(atoms, model.cutoff)
    more = evaluate(model, graph).energies - evaluate(without, graph).energies
    expected = torch.tensor(formula(model, atoms) * np.array([3.0, 0.5, 0.5, 3.0]))
    torch.testing.assert_close(more, expected, rtol=1e-7 if filters == "table" else 1e-12, atol=1e-12)


@dtypes
@modes
@pytest.mark.parametrize("rates", [-9.0, -2.0, 0.0, 9.0])
def test_falls_with_the_distance_whatever_is_learnt(rates, filters, dtype):
    """From two atoms at one place on, with the fewest knots that are allowed; next to the cutoff up to rounding."""
    repulsion = Repulsion(1, START, cutoff=2.5, mode=filters, n_knots=95).to(dtype)
    with torch.no_grad():
        repulsion.functions.basis.rates.fill_(rates)
    r = torch.linspace(1e-9, 2.6, 1000, dtype=dtype)
    graph = Graph.from_atoms([Atoms("Ar2", [[0, 0, 0], [float(x), 0, 0]]) for x in r], 3.0)
    rows, lengths = torch.ones_like(graph.padded.atomic_numbers), graph.vectors.norm(dim=1).to(dtype)
    energies = repulsion(rows, lengths, graph.padded)
    (gradient,) = torch.autograd.grad(energies.sum(), repulsion.functions.basis.rates)
    assert torch.isfinite(energies).all() and torch.isfinite(gradient).all()
    energy = energies[: graph.n_atoms : 2, 0].detach()
    at_start = float(energy[r >= START][0])
    assert (energy[r < 1.0] > 0).all() and (energy[r >= 2.5] == 0).all() and 0.05 < at_start < 0.5
    inside = energy[r < 2.3]
    assert (inside >= 0).all() and (inside.diff() <= 8 * torch.finfo(dtype).eps * inside[:-1]).all()
    assert (energy[r >= 2.3].abs() <= inside[-1] + 1e-5 * at_start).all()


@architectures
def test_derivatives(architecture):
    """Of a loss on energies and forces, for strengths and rates: torch's finite differences."""
    model, _ = pair(architecture)
    graph = Graph.from_atoms(structure(), model.cutoff)
    names = ("repulsion.strengths", "repulsion.functions.basis.rates")

    def loss(strengths, rates):
        changed = {f"model.{n}": t for n, t in zip(names, (strengths, rates), strict=True)}
        return torch.func.functional_call(_Loss(model, graph), changed, ())

    inputs = [dict(model.named_parameters())[n].detach().clone().requires_grad_() for n in names]
    assert torch.autograd.gradcheck(loss, inputs, rtol=1e-5, atol=1e-6)


class _Loss(torch.nn.Module):
    def __init__(self, model, graph):
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self):
        prediction = evaluate(self.model, self.graph, create_graph=True)
        return prediction.energy.square().sum() + prediction.forces.square().sum()


@architectures
def test_every_way_gives_the_same(architecture, tmp_path):
    """torch, the engine, a file, properties beside energies, and the lecture's call of SimpleGNN."""
    model, _ = pair(architecture)
    atoms = structure()
    graph = Graph.from_atoms(atoms, model.cutoff)
    expected = evaluate(model, graph)
    mdgnn.save(model, tmp_path / "m.safetensors")
    again = mdgnn.load(tmp_path / "m.safetensors")
    assert again.config.repulsion == START and torch.equal(evaluate(again, graph).forces, expected.forces)
    for backend in ("torch", "engine"):
        atoms.calc = MDGNNCalculator(tmp_path / "m.safetensors", dtype="float64", backend=backend)
        assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), expected.forces, rtol=1e-10, atol=1e-10)
    model.attach_heads([Property("gap", "intensive", [0.0], 1.0)], True)
    assert torch.equal(evaluate(model, graph, properties=True).energies, expected.energies)
    if architecture == "SimpleGNN":
        atoms.pbc = False
        ends = torch.tensor([(i, j) for i in range(4) for j in range(4) if i != j]).t()
        energy = model(torch.tensor(atoms.numbers), torch.tensor(atoms.positions), ends)
        graph = Graph.from_atoms(atoms, 2.5)
        assert float(energy.detach()) == pytest.approx(float(evaluate(model, graph).energy), rel=1e-7)


@pytest.mark.parametrize("make", [SimpleGNN, SchNet, PaiNN])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cutoff": float("inf"), "repulsion": 0.8}, "between 0 and a finite cutoff, got 0.8 and inf"),
        ({"cutoff": 4.0, "repulsion": 4.0}, "between 0 and a finite cutoff, got 4.0 and 4.0"),
        ({"repulsion": -1.0}, "between 0 and a finite cutoff, got -1.0"),
        ({"repulsion": True}, "the distance it begins at, or 0, got True"),
        ({"repulsion": "zbl"}, "the distance it begins at, or 0, got 'zbl'"),
        (
            {"cutoff": 5.0, "repulsion": 0.5, "n_knots": 300},
            "expected 301 knots or more for a repulsion from 0.5, got 300",
        ),
    ],
)
def test_refuses_nonsense(make, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        make(**options)
    make(**{**options, "cutoff": 5.0, "repulsion": 0.5, "n_knots": 301})
