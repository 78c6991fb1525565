"""cfconv: its formula, derivatives, edge cases, bits."""

import pytest
import torch
from kernels import (
    assert_same_bits_for_any_number_of_threads,
    devices,
    dtypes,
    some_distances,
    some_edges,
    some_table,
)
from torch.autograd import gradcheck, gradgradcheck

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
    inputs, found = (x, table.coefficients, r), []
    for out in (cfconv(x, TabulatedFilter(table, r), edges), formula(x, table, r, edges)):
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append((out, *first, *second))
    assert not found[0][0][1].any(), "an atom that receives nothing gets zero"
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-4}[dtype]
    for ours, expected in zip(*found, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=scale)


@devices
def test_derivatives(device):
    x, table, r, edges = problem(n=4, n_edges=7, width=3, device=device)

    def op(x, coefficients, r):
        return cfconv(x, TabulatedFilter(RadialTable(coefficients, table.cutoff), r), edges)

    assert gradcheck(op, (x, table.coefficients, r)) and gradgradcheck(op, (x, table.coefficients, r))


@devices
@pytest.mark.parametrize("wanted", [0, 1, 2], ids=["x", "coefficients", "r"])
def test_each_input_alone_gets_the_same_derivatives(wanted, device):
    x, table, r, edges = problem(device=device)
    grads = []
    for together in (True, False):
        given = [t.detach().requires_grad_(together or k == wanted) for k, t in enumerate((x, table.coefficients, r))]
        out = cfconv(given[0], TabulatedFilter(RadialTable(given[1], table.cutoff), given[2]), edges)
        (first,) = torch.autograd.grad(out.square().sum(), given[wanted], create_graph=True)
        grads.append((first, *torch.autograd.grad(first.square().sum(), given[wanted])))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@devices
def test_other_strides(device):
    given = problem(width=6, device=device)
    x, table, r, edges = (t.detach() if isinstance(t, torch.Tensor) else t for t in given)
    expected = cfconv(x, TabulatedFilter(table, r), edges)
    coefficients = torch.stack([table.coefficients] * 2, -1)[..., 0]
    filter = TabulatedFilter(RadialTable(coefficients, 2.0), torch.stack([r] * 2, 1)[:, 0])
    out = cfconv(x.t().contiguous().t(), filter, edges)
    assert torch.equal(out, expected)


@devices
@pytest.mark.parametrize(("n", "n_edges", "width"), [(0, 0, 4), (3, 0, 4), (1, 0, 1), (3, 5, 0)])
def test_empty_input(n, n_edges, width, device):
    x, table, r, edges = problem(n, n_edges, width, device)
    out = cfconv(x, TabulatedFilter(table, r), edges)
    assert out.shape == (n, width) and (n_edges or not out.any())
    g = torch.autograd.grad(out.sum(), (x, table.coefficients, r), create_graph=True)
    assert [t.shape for t in g] == [x.shape, table.coefficients.shape, r.shape]
    torch.autograd.grad(sum(t.sum() for t in g), x, allow_unused=True)


@dtypes
def test_bits_do_not_depend_on_threads(dtype):
    x, table, r, edges = problem(n=900, n_edges=20000, width=33, dtype=dtype)

    def run():
        out = cfconv(x, TabulatedFilter(table, r), edges)
        return out, *torch.autograd.grad(out.square().sum(), (x, r))

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(5, 3, dtype=torch.float64)}, r"x of shape \(5, 4\)"),
        ({"x": torch.zeros(5, 4)}, r"x of shape \(5, 4\) torch.float64"),
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


def test_compiles_with_rows_that_nothing_has_looked_at():
    x, table, r, edges = problem()
    rows, columns = edges.by_receiver, edges.by_sender

    def f(x, r):
        fresh = EdgeRows(Rows(rows.row_ptr, rows.index), Rows(columns.row_ptr, columns.index, columns.edge))
        return cfconv(x, TabulatedFilter(table, r), fresh).square().sum()

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, r), f(x, r))
    for a, b in zip(torch.autograd.grad(compiled(x, r), (x, r)), torch.autograd.grad(f(x, r), (x, r)), strict=True):
        torch.testing.assert_close(a, b)
