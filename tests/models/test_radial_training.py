"""SchNet and PaiNN: tables against direct filters, gradients of a loss on forces, training, torch.compile."""

import itertools

import laws
import pytest
import torch
from systems import icosahedron, radial

from mdgnn import Graph, evaluate

both = pytest.mark.parametrize("architecture", ["SchNet", "PaiNN"])
modes = pytest.mark.parametrize("filters", ["table", "direct"])


@both
def test_table_error_falls_as_the_fourth_power_of_the_spacing(architecture):
    """Of energies; that of forces as the third."""
    exact = laws.predict(radial(architecture, filters="direct"), icosahedron(3, 0.05))
    errors = []
    for n_knots in (513, 1025, 2049):
        found = laws.predict(radial(architecture, n_knots=n_knots), icosahedron(3, 0.05))
        errors.append(
            (
                float((found.energies - exact.energies).square().mean().sqrt()),
                float((found.forces - exact.forces).square().mean().sqrt()),
            )
        )
    for coarse, fine in itertools.pairwise(errors):
        assert 12 < coarse[0] / fine[0] < 20
        assert 6.5 < coarse[1] / fine[1] < 9.5


@both
def test_tables_in_float32_cost_little_more_than_float32_does(architecture):
    """More knots do not cost digits: coefficients are made in float64, and no differences of values are left."""
    atoms = icosahedron(3, 0.05)
    exact = laws.predict(radial(architecture, filters="direct"), atoms).forces
    direct, *tables = (
        float((laws.predict(radial(architecture, torch.float32, **options), atoms).forces - exact).square().mean())
        for options in ({"filters": "direct"}, {"n_knots": 1025}, {"n_knots": 8193})
    )
    assert all(table**0.5 < 3 * direct**0.5 for table in tables)


@both
def test_training_gradients_of_tables_are_those_of_direct_filters(architecture):
    """Of a loss on energies and forces, through the second derivative; to the tables' error, which is small here."""
    grads = []
    for options in ({"filters": "direct"}, {"n_knots": 4097}):
        model = radial(architecture, **options)
        found = evaluate(model, Graph.from_atoms(icosahedron(2, 0.05), 2.5), create_graph=True)
        loss = found.energy.square().sum() + found.forces.square().sum()
        grads.append(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))
    for expected, found in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6 * float(expected.abs().max()))


@both
@modes
def test_training_gradients_by_finite_differences(architecture, filters):
    model = radial(architecture, filters=filters)
    graph = Graph.from_atoms(icosahedron(2, 0.05), 2.5)

    def loss(create_graph):
        found = evaluate(model, graph, create_graph=create_graph)
        return found.energy.square().sum() + found.forces.square().sum()

    loss(True).backward()
    for name, parameter in model.named_parameters():
        place = int(parameter.grad.abs().argmax())
        value, gradient, step = parameter.data.view(-1)[place].clone(), float(parameter.grad.view(-1)[place]), 1e-5
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                parameter.view(-1)[place] = value + sign * step
            ends.append(float(loss(False)))
        with torch.no_grad():
            parameter.view(-1)[place] = value
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(gradient, rel=1e-6), name


@both
@modes
def test_a_few_steps_of_training_lower_the_loss(architecture, filters):
    """And what is predicted afterwards is of the trained weights, not of tables that have been kept."""
    model = radial(architecture, filters=filters)
    graph = Graph.from_atoms([icosahedron(2, 0.05, seed) for seed in range(3)], 2.5)
    target = evaluate(radial(architecture, seed=1), graph)
    optimizer, losses = torch.optim.Adam(model.parameters(), lr=1e-3), []
    for _ in range(6):
        with torch.no_grad():
            before = evaluate(model, graph, forces=False).energy
        found = evaluate(model, graph, create_graph=True)
        torch.testing.assert_close(found.energy.detach(), before, rtol=1e-12, atol=1e-12)
        loss = (found.energy - target.energy).square().mean() + (found.forces - target.forces).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


@both
@modes
def test_compiles_without_graph_breaks(architecture, filters):
    model = radial(architecture, filters=filters, n_knots=65)
    graph = Graph.from_atoms(icosahedron(2), 2.5)
    model.atomic_energies(graph, graph.vectors)  # what a graph caches is made outside of the compiled part

    def energies(vectors):
        return model.atomic_energies(graph, vectors)

    compiled = torch.compile(energies, fullgraph=True, backend="aot_eager")
    v = graph.vectors.clone().requires_grad_()
    inputs = [v, *model.parameters()]
    torch.testing.assert_close(compiled(v), energies(v), rtol=1e-13, atol=1e-13)
    grads = (torch.autograd.grad(f(v).sum(), inputs, materialize_grads=True) for f in (compiled, energies))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13 * max(1.0, float(b.abs().max())))
