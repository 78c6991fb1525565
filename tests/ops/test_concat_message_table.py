"""concat_message_table: its formula, derivatives, and what a table makes of concat_message."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from kernels import devices, dtypes, some_distances, some_edges, some_table

from mdgnn.ops import EdgeRows, RadialTable, Rows, TabulatedFilter, concat_message_table, radial_filter

reference = import_module("mdgnn.ops.concat_message_table").reference


def problem(n=5, n_edges=17, width=4, device="cpu", dtype=torch.float64):
    """ends, table, r, edges; atom 1 receives nothing."""
    ends = torch.randn(n, 2 * width, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).to(device, dtype)
    table = some_table(width + 1, device=device, dtype=dtype)
    return (
        ends.requires_grad_(),
        table,
        some_distances(n_edges, device=device, dtype=dtype),
        some_edges(n, n_edges, device),
    )


def formula(ends, table, r, edges):
    """Edge by edge, from the definition."""
    t, width, out, s, rows = radial_filter(table, r), ends.shape[1] // 2, [], [], edges.by_receiver
    for i in range(rows.n_rows):
        row = range(int(rows.row_ptr[i]), int(rows.row_ptr[i + 1]))
        x = [F.silu(ends[rows.index[k], :width] + ends[i, width:] + t[k, :-1]) * t[k, -1] for k in row]
        out.append(sum(x, torch.zeros_like(ends[0, :width])))
        s.append(sum((t[k, -1:] for k in row), torch.zeros_like(ends[0, :1])))
    return torch.stack(out), torch.stack(s)


@devices
@dtypes
@pytest.mark.parametrize("width", [1, 4, 32, 37])
def test_equals_its_formula_with_both_derivatives(device, dtype, width):
    ends, table, r, edges = problem(width=width, device=device, dtype=dtype)
    inputs, found = (ends, table.coefficients, r), []
    for out, s in (
        concat_message_table(ends, TabulatedFilter(table, r), edges),
        reference(ends, TabulatedFilter(table, r), edges),
        formula(ends, table, r, edges),
    ):
        first = torch.autograd.grad(out.square().sum() + (s**3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append((out, s, *first, *second))
    assert not found[0][0][1].any() and not found[0][1][1].any(), "an atom that receives nothing gets zero"
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    for ours, chain, expected in zip(*found, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=scale)
        torch.testing.assert_close(chain, expected, rtol=0, atol=scale)


@dtypes
@pytest.mark.parametrize("width", [1, 16])
def test_huge_numbers_and_those_that_are_none(dtype, width):
    """SiLU of a hugely negative number is zero, and so is its slope; NaN of either sign stays."""
    edges = EdgeRows(Rows(torch.tensor([0, 1]), torch.tensor([0])))
    table = RadialTable(torch.zeros(4, 4, width + 1, dtype=dtype), 2.0)
    table.coefficients[:, 0, -1] = 1.0  # c = 1, f = 0
    huge = float(torch.finfo(dtype).max)
    for x, value, slope in ((-huge, 0, 0), (-1e30, 0, 0), (-1e4, 0, 0), (1e4, 1e4, 1), (huge, huge, 1), (0.0, 0, 0.5)):
        ends = torch.zeros(1, 2 * width, dtype=dtype)
        ends[:, :width] = x
        ends.requires_grad_()
        out, _ = concat_message_table(ends, TabulatedFilter(table, torch.ones(1, dtype=dtype)), edges)
        (g,) = torch.autograd.grad(out.sum(), ends)
        few = {"rtol": 4 * torch.finfo(dtype).eps, "atol": 1e-12}
        torch.testing.assert_close(out, torch.full_like(out, value), **few)
        torch.testing.assert_close(g[:, :width], torch.full_like(out, slope), **few)
        assert torch.equal(g[:, width:], g[:, :width]), "sender and receiver are one atom"
    for nan in (float("nan"), -float("nan"), float("inf") - float("inf")):
        ends = torch.full((1, 2 * width), nan, dtype=dtype)
        assert concat_message_table(ends, TabulatedFilter(table, torch.ones(1, dtype=dtype)), edges)[0].isnan().all()


def test_nothing_is_kept_for_a_derivative_that_nobody_wants():
    ends, table, r, edges = problem()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(tuple(t.shape)) or t, lambda t: t):
        concat_message_table(ends.detach(), TabulatedFilter(table, r), edges)
    assert sizes and (5, 4) not in sizes
    sizes.clear()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(tuple(t.shape)) or t, lambda t: t):
        concat_message_table(ends, TabulatedFilter(table, r), edges)
    assert (5, 4) in sizes


def test_edges_of_a_sender_in_another_order():
    """The first derivatives are the same; the second, whose kernel walks along them, refuses."""
    ends, table, r, edges = problem(n=400, n_edges=40_000, width=32)
    rows, columns = edges.by_receiver, edges.by_sender
    order = torch.arange(40_000)
    for j in range(400):
        order[columns.row_ptr[j] : columns.row_ptr[j + 1]] = order[columns.row_ptr[j] : columns.row_ptr[j + 1]].flip(0)
    other = Rows(columns.row_ptr, columns.index[order], columns.edge[order])
    inputs, found = (ends, r), []
    for c in (columns, other):
        out, _ = concat_message_table(ends, TabulatedFilter(table, r), EdgeRows(rows, c))
        found.append(torch.autograd.grad(out.square().sum(), inputs, create_graph=True))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-13 * float(a.detach().abs().max()))
    torch.autograd.grad(found[0][0].square().sum(), inputs)
    with pytest.raises(ValueError, match="edges of each sender in ascending order, those of atom"):
        torch.autograd.grad(found[1][0].square().sum(), inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": torch.zeros(5, 9, dtype=torch.float64)}, r"ends of shape \(5, 2 H\)"),
        ({"r": torch.zeros(16, dtype=torch.float64)}, r"r of shape \(17,\)"),
        ({"edges": EdgeRows(Rows(torch.zeros(6, dtype=torch.int64)))}, "by_receiver with senders"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    given = dict(zip(("ends", "table", "r", "edges"), problem(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        concat_message_table(given["ends"], TabulatedFilter(given["table"], given["r"]), given["edges"])
