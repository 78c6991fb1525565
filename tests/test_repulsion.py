"""Repulsion of pairs beside a network: its formula, a wall whatever has been learnt, and every way to ask a model."""

import numpy as np
import pytest
import torch
from ase import Atoms
from systems import gnn, radial

import mdgnn
from mdgnn import Graph, MDGNNCalculator, PaiNN, SchNet, SimpleGNN, evaluate
from mdgnn.models import Property, attach_heads

ARCHITECTURES = ("SimpleGNN", "SchNet", "PaiNN")
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
modes = pytest.mark.parametrize("filters", ["table", "direct"])


def pair(architecture, **options):
    """A model with repulsion of random strengths, and the same without."""
    make = gnn if architecture == "SimpleGNN" else lambda **more: radial(architecture, **more)
    without = make(elements=[6, 8], **options)
    model = make(elements=[6, 8], repulsion=True, **options)
    state = without.state_dict()
    assert set(model.state_dict()) - set(state) == {"repulsion.strengths", "repulsion.functions.basis.log_rates"}
    model.load_state_dict({**model.state_dict(), **state})
    with torch.no_grad():
        model.repulsion.strengths.uniform_(-2, 0)
        model.repulsion.functions.basis.log_rates.uniform_(0, 2)
    return model, without


def structure():
    return Atoms("COOC", [[0, 0, 0], [0.9, 0.2, 0], [-0.3, 1.3, 0.4], [4.0, 0.5, 0]], cell=[5, 9, 9], pbc=(1, 0, 0))


def formula(model, atoms):
    """The energies of pairs, from arrays and ASE's distances."""
    a = model.repulsion.strengths.detach().numpy()[[{6: 1, 8: 2}[z] for z in atoms.numbers]]
    b = np.exp(model.repulsion.functions.basis.log_rates.detach().numpy())
    energies = np.zeros(len(atoms))
    for shift in (-1, 0, 1):
        d = np.linalg.norm(atoms.positions[None] + [5.0 * shift, 0, 0] - atoms.positions[:, None], axis=2)
        x = np.minimum(d / model.cutoff, 1)
        envelope = 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        terms = np.exp(a[:, None] + a[None] - b * (d[:, :, None] - 1)).sum(axis=2) * envelope
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


@architectures
def test_a_wall_whatever_has_been_learnt(architecture):
    model, without = pair(architecture)
    with torch.no_grad():
        model.repulsion.strengths.uniform_(-9, 9)
        model.repulsion.functions.basis.log_rates.uniform_(-3, 3)
    dimers = [Atoms("CO", [[0, 0, 0], [r, 0, 0]]) for r in np.linspace(0.05, 2.4, 50)]
    graph = Graph.from_atoms(dimers, 2.5)
    more = evaluate(model, graph).energy - evaluate(without, graph).energy
    assert (more > 0).all() and (more.diff() < 0).all()


@architectures
def test_derivatives(architecture):
    """Of a loss on energies and forces, for strengths and rates: torch's finite differences."""
    model, _ = pair(architecture)
    graph = Graph.from_atoms(structure(), model.cutoff)
    names = ("repulsion.strengths", "repulsion.functions.basis.log_rates")

    def loss(strengths, log_rates):
        changed = {f"model.{n}": t for n, t in zip(names, (strengths, log_rates), strict=True)}
        return torch.func.functional_call(_Loss(model, graph), changed, ())

    inputs = [dict(model.named_parameters())[n].detach().clone().requires_grad_() for n in names]
    assert torch.autograd.gradcheck(loss, inputs, rtol=1e-5, atol=1e-6)


class _Loss(torch.nn.Module):
    def __init__(self, model, graph):
        super().__init__()
        self.model, self.graph = model, graph

    def forward(self):
        found = evaluate(self.model, self.graph, create_graph=True)
        return found.energy.square().sum() + found.forces.square().sum()


@architectures
def test_every_way_gives_the_same(architecture, tmp_path):
    """torch, the engine, a file, properties beside energies, and the lecture's call of SimpleGNN."""
    model, _ = pair(architecture)
    atoms = structure()
    graph = Graph.from_atoms(atoms, model.cutoff)
    expected = evaluate(model, graph)
    mdgnn.save(model, tmp_path / "m.safetensors")
    again = mdgnn.load(tmp_path / "m.safetensors")
    assert again.config["repulsion"] is True and torch.equal(evaluate(again, graph).forces, expected.forces)
    for backend in ("torch", "engine"):
        atoms.calc = MDGNNCalculator(tmp_path / "m.safetensors", dtype="float64", backend=backend)
        assert atoms.get_potential_energy() == pytest.approx(float(expected.energy), rel=1e-12)
        np.testing.assert_allclose(atoms.get_forces(), expected.forces, rtol=1e-10, atol=1e-10)
    attach_heads(model, [Property("gap", "intensive", [0.0], 1.0)], True)
    assert torch.equal(evaluate(model, graph, properties=True).energies, expected.energies)
    if architecture == "SimpleGNN":
        atoms.pbc = False
        ends = torch.tensor([(i, j) for i in range(4) for j in range(4) if i != j]).t()
        energy = model(torch.tensor(atoms.numbers), torch.tensor(atoms.positions), ends)
        graph = Graph.from_atoms(atoms, 2.5)
        assert float(energy.detach()) == pytest.approx(float(evaluate(model, graph).energy), rel=1e-7)


@pytest.mark.parametrize("make", [SimpleGNN, SchNet, PaiNN])
def test_needs_a_cutoff(make):
    options = {"basis": "gaussian"} if make is not SimpleGNN else {}
    with pytest.raises(ValueError, match="expected a finite cutoff"):
        make(cutoff=float("inf"), repulsion=True, **options)
