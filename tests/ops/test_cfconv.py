"""cfconv: its formula, derivatives, edge cases, bits."""

import pytest
import torch
from kernels import (
    devices,
    dtypes,
    some_distances,
    some_edges,
    some_table,
)

from mdgnn.ops import EdgeRows, RadialTable, Rows, TabulatedFilter, cfconv, radial_filter


def problem(n=5, n_edges=17, width=4, device="cpu", dtype=torch.float64):
    """x, table, r, edges; atom 1 receives nothing."""
    x = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(device, dtype)
    table = some_table(width, device=device, dtype=dtype)
    return (
        x.requires_grad_(),
        table,
        some_distances(n_edges, device=device, dtype=dtype),
        some_edges(n, n_edges, device),
    )


def formula(x, table, r, edges):
    """Edge by edge, from the definition."""
    w, out, rows = radial_filter(table, r), [], edges.by_receiver
    for i in range(rows.n_rows):
        row = range(int(rows.row_ptr[i]), int(rows.row_ptr[i + 1]))
        out.append(sum((w[k] * x[rows.index[k]] for k in row), torch.zeros_like(x[0])))
    return torch.stack(out)


@devices
@dtypes
@pytest.mark.parametrize("width", [1, 4, 32, 37])
def test_equals_its_formula_with_both_derivatives(device, dtype, width):
    x, table, r, edges = problem(width=width, device=device, dtype=dtype)
    inputs, results = (x, table.coefficients, r), []
    for out in (cfconv(x, TabulatedFilter(table, r), edges), formula(x, table, r, edges)):
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append((out, *first, *second))
    assert not results[0][0][1].any(), "an atom that receives nothing gets zero"
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    for ours, expected in zip(*results, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=scale)


@pytest.mark.sample("all")
@devices
@dtypes
@pytest.mark.parametrize("width", [3, 4])
def test_derivatives_of_the_gradient_for_distances_alone(device, dtype, width):
    """Which is what forces are trained by where features do not depend on positions: a sum without values."""
    x, table, r, edges = problem(width=width, device=device, dtype=dtype)
    inputs, gradients = (x, table.coefficients, r), []
    for out in (cfconv(x, TabulatedFilter(table, r), edges), formula(x, table, r, edges)):
        (first,) = torch.autograd.grad(out.square().sum(), r, create_graph=True)
        gradients.append(torch.autograd.grad(first.square().sum(), inputs))
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    for ours, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(4, 4, dtype=torch.float64)}, r"x of shape \(5, C\)"),
        ({"x": torch.zeros(5, 3, dtype=torch.float64)}, r"coefficients of shape \(8, 4, 3\) .*got \(8, 4, 4\)"),
        ({"x": torch.zeros(5, 4)}, "coefficients of shape .* torch.float32 on cpu, got .* torch.float64"),
        ({"r": torch.zeros(16, dtype=torch.float64)}, r"r of shape \(17,\)"),
        ({"r": torch.zeros(17)}, "r of shape"),
        ({"table": RadialTable(torch.zeros(4, 3, 4, dtype=torch.float64), 2.0)}, "coefficients of shape"),
        ({"columns": Rows(torch.tensor([0, 17]), torch.arange(17))}, "with the receivers and the numbers"),
        ({"rows": Rows(torch.tensor([0, 17, 17, 17, 17, 17]))}, "by_receiver with senders"),
        ({"rows": Rows(torch.tensor([0, 17, 17, 17, 17, 17]), torch.full((17,), 5))}, "senders below 5"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    x, table, r, edges = problem()
    given = {"x": x, "table": table, "r": r, "rows": edges.by_receiver, "columns": edges.by_sender} | change
    with pytest.raises(ValueError, match=message):
        filter = TabulatedFilter(given["table"], given["r"])
        cfconv(given["x"], filter, EdgeRows(given["rows"], given["columns"]))


@pytest.mark.parametrize("shape", [(1, 4), (16, 4), (17, 1), (17,)])
def test_values_at_edges_of_another_shape_are_refused(shape):
    """None is stretched to all edges or channels."""
    x, *_, edges = problem()
    bad = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected filter of shape \(17, 4\) torch.float64 on cpu, got \(1"):
        cfconv(x, bad, edges)


def test_features_of_other_atoms_are_refused_with_values_too():
    """Atoms that no edge has would go unseen."""
    *_, edges = problem()
    with pytest.raises(ValueError, match=r"expected x of shape \(5, 4\) .* got \(7, 4\)"):
        cfconv(torch.zeros(7, 4), torch.zeros(17, 4), edges)
