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

from mdgnn.ops import RadialTable, Rows, cfconv, radial_filter


def problem(n=5, n_edges=17, width=4, device="cpu", dtype=torch.float64):
    """x, table, r, rows, columns; atom 1 receives nothing."""
    x = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(device, dtype)
    table = some_table(width, device=device, dtype=dtype)
    return (
        x.requires_grad_(),
        table,
        some_distances(n_edges, device=device, dtype=dtype),
        *some_edges(n, n_edges, device),
    )


def formula(x, table, r, rows):
    """Edge by edge, from the definition."""
    w, out = radial_filter(table, r), []
    for i in range(rows.n_rows):
        edges = range(int(rows.row_ptr[i]), int(rows.row_ptr[i + 1]))
        out.append(sum((w[k] * x[rows.index[k]] for k in edges), torch.zeros_like(x[0])))
    return torch.stack(out)


@devices
@dtypes
@pytest.mark.parametrize("width", [1, 4, 32, 37])
def test_equals_its_formula_with_both_derivatives(device, dtype, width):
    x, table, r, rows, columns = problem(width=width, device=device, dtype=dtype)
    inputs, found = (x, table.coefficients, r), []
    for out in (cfconv(x, table, r, rows, columns), formula(x, table, r, rows)):
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
    x, table, r, rows, columns = problem(n=4, n_edges=7, width=3, device=device)

    def op(x, coefficients, r):
        return cfconv(x, RadialTable(coefficients, table.cutoff), r, rows, columns)

    assert gradcheck(op, (x, table.coefficients, r)) and gradgradcheck(op, (x, table.coefficients, r))


@devices
@pytest.mark.parametrize("wanted", [0, 1, 2], ids=["x", "coefficients", "r"])
def test_each_input_alone_gets_the_same_derivatives(wanted, device):
    x, table, r, rows, columns = problem(device=device)
    grads = []
    for together in (True, False):
        given = [t.detach().requires_grad_(together or k == wanted) for k, t in enumerate((x, table.coefficients, r))]
        out = cfconv(given[0], RadialTable(given[1], table.cutoff), given[2], rows, columns)
        (first,) = torch.autograd.grad(out.square().sum(), given[wanted], create_graph=True)
        grads.append((first, *torch.autograd.grad(first.square().sum(), given[wanted])))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@devices
def test_other_strides(device):
    given = problem(width=6, device=device)
    x, table, r, rows, columns = (t.detach() if isinstance(t, torch.Tensor) else t for t in given)
    expected = cfconv(x, table, r, rows, columns)
    coefficients = torch.stack([table.coefficients] * 2, -1)[..., 0]
    out = cfconv(x.t().contiguous().t(), RadialTable(coefficients, 2.0), torch.stack([r] * 2, 1)[:, 0], rows, columns)
    assert torch.equal(out, expected)


@devices
@pytest.mark.parametrize(("n", "n_edges", "width"), [(0, 0, 4), (3, 0, 4), (1, 0, 1), (3, 5, 0)])
def test_empty_input(n, n_edges, width, device):
    x, table, r, rows, columns = problem(n, n_edges, width, device)
    out = cfconv(x, table, r, rows, columns)
    assert out.shape == (n, width) and (n_edges or not out.any())
    g = torch.autograd.grad(out.sum(), (x, table.coefficients, r), create_graph=True)
    assert [t.shape for t in g] == [x.shape, table.coefficients.shape, r.shape]
    torch.autograd.grad(sum(t.sum() for t in g), x, allow_unused=True)


@dtypes
def test_bits_do_not_depend_on_threads(dtype):
    x, table, r, rows, columns = problem(n=900, n_edges=20000, width=33, dtype=dtype)

    def run():
        out = cfconv(x, table, r, rows, columns)
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
        ({"columns": Rows(torch.tensor([0, 17]), torch.arange(17))}, "columns with receivers and edges"),
        ({"rows": Rows(torch.tensor([0, 17, 17, 17, 17, 17]))}, "rows with senders"),
        ({"rows": Rows(torch.tensor([0, 17, 17, 17, 17, 17]), torch.full((17,), 5))}, "senders and receivers below 5"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    given = dict(zip(("x", "table", "r", "rows", "columns"), problem(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        cfconv(**given)


def test_compiles_with_rows_that_nothing_has_looked_at():
    x, table, r, rows, columns = problem()

    def f(x, r):
        return (
            cfconv(x, table, r, Rows(rows.row_ptr, rows.index), Rows(columns.row_ptr, columns.index, columns.edge))
            .square()
            .sum()
        )

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, r), f(x, r))
    for a, b in zip(torch.autograd.grad(compiled(x, r), (x, r)), torch.autograd.grad(f(x, r), (x, r)), strict=True):
        torch.testing.assert_close(a, b)
