"""SimpleGNN's layers in one call: values and derivatives are those of its layers one by one."""

from dataclasses import replace

import pytest
import torch
from kernels import assert_same_bits_for_any_number_of_threads, dtypes
from systems import icosahedron, water
from torch import nn

from mdgnn import Graph, SimpleGNN, evaluate
from mdgnn.models import simple_gnn
from mdgnn.models.fused_network import fused


def graph_of(*structures):
    graph = Graph.from_atoms([*structures], 3.5)
    return replace(graph, atomic_numbers=graph.atomic_numbers % 4)


SMALL = graph_of(icosahedron(2, 0.05), water())


def both_ways(monkeypatch, results):
    """What `results` gives by the network in one call, which must be made, and by its layers one by one."""
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return fused(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(simple_gnn, "fused", counted)
        ours = results()
    assert calls
    monkeypatch.setattr(simple_gnn, "suits", lambda *arguments: False)
    return ours, results()


def assert_equal(ours, expected, tolerance):
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * float(b.detach().abs().max()))


@pytest.mark.parametrize("options", [{}, {"envelope": "cosine"}, {"envelope": "cosine", "mean_neighbours": 7}])
@pytest.mark.parametrize("frozen", [None, "embedding", "layers.1", "layers"])
@pytest.mark.parametrize("forces", [False, True])
def test_all_derivatives_are_those_of_layers_one_by_one(options, frozen, forces, monkeypatch):
    torch.manual_seed(0)
    model = SimpleGNN(**options, filters="direct").double()
    for name, parameter in model.named_parameters():
        if frozen is not None and frozen in name:
            parameter.requires_grad_(False)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def results():
        prediction = evaluate(model, SMALL, forces=forces, create_graph=True)
        loss = prediction.energy.square().sum() + (prediction.forces.square().sum() if forces else 0)
        first = torch.autograd.grad(loss, parameters, create_graph=not forces)
        second = () if forces else torch.autograd.grad(sum(g.square().sum() for g in first), parameters)
        (lone,) = torch.autograd.grad(model.atomic_energies(SMALL, SMALL.vectors).sum(), parameters[-5])
        return loss, *first, *second, lone

    assert_equal(*both_ways(monkeypatch, results), 1e-11)


@dtypes
@pytest.mark.parametrize("options", [{}, {"envelope": "cosine"}])
@pytest.mark.parametrize(
    ("width", "edge_dim", "n_layers", "n_structures"), [(1, 1, 1, 1), (15, 8, 2, 1), (17, 5, 3, 7), (48, 16, 2, 40)]
)
def test_sizes_around_those_of_tiles(width, edge_dim, n_layers, n_structures, options, dtype, monkeypatch):
    torch.manual_seed(0)
    model = SimpleGNN(3, width, edge_dim, n_layers, filters="direct", **options).to(dtype)
    graph = graph_of(*[icosahedron(2, 0.05) if k % 2 else water() for k in range(n_structures)])
    inputs = [p for p in model.parameters() if p.requires_grad]

    def results():
        model.zero_grad()
        vectors = graph.vectors.to(dtype).requires_grad_()
        energies = model.atomic_energies(graph, vectors)
        return energies, *torch.autograd.grad(energies.square().mean(), [vectors, *inputs])

    assert_equal(*both_ways(monkeypatch, results), {torch.float64: 1e-12, torch.float32: 2e-5}[dtype])


def test_forces_alone_and_energies_alone_are_those_of_all(monkeypatch):
    """A pass for forces leaves the gradients of weights out; without any, nothing is left for one."""
    model = SimpleGNN(filters="direct", envelope="cosine").double()
    vectors = SMALL.vectors.clone().requires_grad_()
    with torch.no_grad():
        alone = model.atomic_energies(SMALL, vectors)
    energies = model.atomic_energies(SMALL, vectors)
    assert torch.equal(alone, energies)
    (forces,) = torch.autograd.grad(energies.sum(), vectors, retain_graph=True)
    energies.sum().backward()
    assert torch.equal(forces, vectors.grad)


def test_bits_do_not_depend_on_threads():
    torch.manual_seed(0)
    model, graph = SimpleGNN(3, 40, envelope="cosine", filters="direct"), graph_of(*[icosahedron(2, 0.05)] * 120)
    weights = [p for p in model.parameters() if p.requires_grad]

    def run():
        vectors = graph.vectors.float().requires_grad_()
        energies = model.atomic_energies(graph, vectors)
        return energies, *torch.autograd.grad(energies.square().sum(), [vectors, *weights])

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize("kind", ["wide", "strided", "of two dtypes"])
def test_what_does_not_fit_the_kernel_goes_by_layers(kind, monkeypatch):
    """Reading it as if it did would be reading beyond its end. Tables have kernels of their own, with these weights."""

    def model_of(filters):
        torch.manual_seed(0)
        model = SimpleGNN(filters=filters)
        update = model.layers[1].update_mlp
        if kind == "wide":
            update[0], update[2] = nn.Linear(64, 40), nn.Linear(40, 32)
        elif kind == "strided":
            update[2].weight = nn.Parameter(update[2].weight.detach().t().contiguous().t())
        else:
            update.double()
        return model

    monkeypatch.setattr(simple_gnn, "fused", None)
    if kind == "of two dtypes":
        with pytest.raises(RuntimeError, match="dtype"):
            evaluate(model_of("direct"), SMALL, forces=False, create_graph=True)
    else:
        ours, tabulated = (evaluate(model_of(filters), SMALL, create_graph=True) for filters in ("direct", "table"))
        assert_equal([ours.energy, ours.forces], [tabulated.energy, tabulated.forces], 2e-5)


def test_vectors_of_other_edges_are_refused():
    with pytest.raises(ValueError, match="expected features of shape"):
        SimpleGNN(filters="direct").atomic_energies(SMALL, SMALL.vectors[1:].float())


def test_a_changed_weight_is_seen_before_the_backward(monkeypatch):
    model = SimpleGNN(filters="direct")
    monkeypatch.setattr(simple_gnn, "plain", None)
    energy = evaluate(model, SMALL, forces=False, create_graph=True).energy.sum()
    with torch.no_grad():
        model.layers[0].update_mlp.last.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        energy.backward()
