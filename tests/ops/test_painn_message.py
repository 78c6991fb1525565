"""painn_message: its formula, derivatives, equivariance, edge cases, bits."""

import pytest
import torch
from kernels import (
    devices,
    dtypes,
    some_distances,
    some_edges,
    some_table,
)

from mdgnn.ops import EdgeRows, RadialTable, Rows, TabulatedFilter, painn_message, radial_filter

NAMES = ("x", "v", "table", "r", "unit", "edges")


def problem(n=5, n_edges=17, width=4, device="cpu", dtype=torch.float64):
    """x, v, table, r, unit, edges; atom 1 receives nothing. The op does not need unit vectors to be units."""
    g = torch.Generator().manual_seed(3)
    shapes = (n, 3 * width), (n, 3, width), (n_edges, 3)
    x, v, unit = (
        torch.randn(*shape, dtype=torch.float64, generator=g).to(device, dtype).requires_grad_() for shape in shapes
    )
    table, r = some_table(3 * width, device=device, dtype=dtype), some_distances(n_edges, device=device, dtype=dtype)
    return x, v, table, r, unit, some_edges(n, n_edges, device)


def floats(given):
    x, v, table, r, unit, *_ = given
    return x, v, table.coefficients, r, unit


def with_table(x, v, table, r, unit, edges):
    return painn_message(x, v, TabulatedFilter(table, r), unit, edges)


def formula(x, v, table, r, unit, edges):
    """Edge by edge, from the definition."""
    w, ds, dv, rows = radial_filter(table, r), [], [], edges.by_receiver
    for i in range(rows.n_rows):
        scalar, vector = torch.zeros_like(v[0, 0]), torch.zeros_like(v[0])
        for k in range(int(rows.row_ptr[i]), int(rows.row_ptr[i + 1])):
            a, b, c = (w[k] * x[rows.index[k]]).chunk(3)
            scalar = scalar + a
            vector = vector + torch.outer(unit[k], b) + v[rows.index[k]] * c
        ds.append(scalar)
        dv.append(vector)
    return torch.stack(ds), torch.stack(dv)


@devices
@dtypes
@pytest.mark.parametrize("width", [1, 4, 13, 32])
def test_equals_its_formula_with_both_derivatives(device, dtype, width):
    given, results = problem(width=width, device=device, dtype=dtype), []
    inputs = floats(given)
    for ds, dv in (with_table(*given), formula(*given)):
        first = torch.autograd.grad(ds.square().sum() + dv.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append((ds, dv, *first, *second))
    assert not results[0][0][1].any() and not results[0][1][1].any(), "an atom that receives nothing gets zero"
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    for ours, expected in zip(*results, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=scale)


def test_rotating_directions_and_vectors_rotates_vectors_and_keeps_scalars():
    x, v, table, r, unit, edges = problem()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    ds, dv = with_table(x, v, table, r, unit, edges)
    for matrix in (turn, -turn):
        turned = torch.einsum("ab,nbf->naf", matrix, v)
        ds2, dv2 = with_table(x, turned, table, r, unit @ matrix.t(), edges)
        torch.testing.assert_close(ds2, ds, rtol=0, atol=1e-13)
        torch.testing.assert_close(dv2, torch.einsum("ab,nbf->naf", matrix, dv), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(5, 11, dtype=torch.float64)}, r"x of shape \(5, 3 F\)"),
        ({"v": torch.zeros(5, 4, 3, dtype=torch.float64)}, r"v of shape \(5, 3, 4\)"),
        ({"v": torch.zeros(4, 3, 4, dtype=torch.float64)}, r"v of shape \(5, 3, 4\)"),
        (
            {"table": RadialTable(torch.zeros(4, 4, 4, dtype=torch.float64), 2.0)},
            r"coefficients of shape \(4, 4, 12\)",
        ),
        ({"r": torch.zeros(16, dtype=torch.float64)}, r"r of shape \(17,\)"),
        ({"unit": torch.zeros(17, dtype=torch.float64)}, r"unit of shape \(17, 3\)"),
        ({"unit": torch.zeros(17, 3)}, r"unit of shape \(17, 3\) torch.float64"),
        ({"edges": EdgeRows(Rows(torch.zeros(6, dtype=torch.int64)))}, "by_receiver with senders"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        with_table(**dict(zip(NAMES, problem(), strict=True)) | change)


@pytest.mark.parametrize("shape", [(1, 12), (16, 12), (17, 1), (17,)])
def test_values_at_edges_of_another_shape_are_refused(shape):
    """None is stretched to all edges or channels."""
    x, v, *_, unit, edges = problem()
    bad = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected filter of shape \(17, 12\) torch.float64 on cpu, got \(1"):
        painn_message(x, v, bad, unit, edges)


@pytest.mark.parametrize("shape", [(7, 12), (5, 11), (5,)])
def test_features_of_another_shape_are_refused_with_values_too(shape):
    _, v, *_, unit, edges = problem()
    bad, values = torch.zeros(shape, dtype=torch.float64), torch.zeros(17, 12, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"expected x of shape \(5, 12\)"):
        painn_message(bad, v, values, unit, edges)
