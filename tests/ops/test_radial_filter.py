"""radial_filter and tabulate: exact for cubics, fourth order for the rest, differentiable twice, zero beyond."""

import itertools

import pytest
import torch
from kernels import devices, dtypes, some_distances, some_table
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from mdgnn.ops import RadialTable, radial_filter, tabulate

LIKE = torch.zeros((), dtype=torch.float64)


def cubic(r):
    """(G,) -> (G, 3), which vanishes with its slope at r = 2."""
    return (r[:, None] - 2).square() * torch.stack([torch.ones_like(r), r, 3 - 0.5 * r], 1)


def bump(r):
    """A smooth function that vanishes with its slope at r = 2."""
    return (1 + torch.cos(r[:, None] * (torch.pi / 2))) * torch.sin(3 * r[:, None] + torch.arange(3))


@devices
@dtypes
def test_cubics_are_exact(device, dtype):
    r = torch.linspace(0, 1.999, 321, device=device, dtype=dtype)
    table = tabulate(cubic, 2.0, 7, r)
    tolerance = {torch.float64: 1e-14, torch.float32: 1e-5}[dtype]
    torch.testing.assert_close(radial_filter(table, r), cubic(r), rtol=tolerance, atol=tolerance)


def test_values_and_slopes_at_the_knots():
    """At knots the function and its slope are exact, whatever the knots' number."""
    table = tabulate(bump, 2.0, 9, LIKE)
    r = (torch.arange(8, dtype=torch.float64) * 0.25).requires_grad_()
    f = radial_filter(table, r)
    torch.testing.assert_close(f, bump(r), rtol=1e-14, atol=1e-14)
    for c in range(3):
        (slope,) = torch.autograd.grad(f[:, c].sum(), r, retain_graph=True)
        (expected,) = torch.autograd.grad(bump(r)[:, c].sum(), r)
        torch.testing.assert_close(slope, expected, rtol=1e-13, atol=1e-13)


def test_value_and_slope_are_continuous_at_knots_and_at_the_cutoff():
    table = some_table(4)
    at = torch.arange(1, 9, dtype=torch.float64) * 0.25  # the last is the cutoff
    sides = []
    for step in (-1e-12, 1e-12):
        r = (at + step).requires_grad_()
        f = radial_filter(table, r)
        sides.append((f, *torch.autograd.grad(f.square().sum() + f.sum(), r)))
    for left, right in zip(*sides, strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-8)


def test_exactly_zero_from_the_cutoff_on():
    table = RadialTable(torch.ones(5, 4, 3, dtype=torch.float64, requires_grad=True), 2.0)
    r = torch.tensor([2.0, 2.0 + 1e-12, 3.0, 1e9], dtype=torch.float64, requires_grad=True)
    f = radial_filter(table, r)
    assert not f.any()
    assert not any(g.any() for g in torch.autograd.grad(f.sum(), (r, table.coefficients)))
    assert radial_filter(table, torch.tensor([2.0 - 1e-12], dtype=torch.float64)).all()


def test_error_falls_as_the_fourth_power_of_the_spacing():
    r = torch.linspace(0, 1.999, 4001, dtype=torch.float64)
    error = [float((radial_filter(tabulate(bump, 2.0, n + 1, r), r) - bump(r)).abs().max()) for n in (16, 32, 64, 128)]
    for coarse, fine in itertools.pairwise(error):
        assert 14 < coarse / fine < 18


@devices
@pytest.mark.parametrize("n_channels", [1, 3])
def test_derivatives(device, n_channels):
    """With respect to distances (away from knots, where the second derivative jumps) and knots."""
    coefficients, cutoff, _ = some_table(n_channels, device=device)
    r = some_distances(11, device=device)

    def op(k, x):
        return radial_filter(RadialTable(k, cutoff), x)

    assert gradcheck(op, (coefficients, r)) and gradgradcheck(op, (coefficients, r))


def filter_network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Softplus(), nn.Linear(3, 2)).double()
    centres = torch.linspace(0, 2, 4, dtype=torch.float64)

    def function(r):
        return net(torch.exp(-(r[:, None] - centres).square())) * (1 + torch.cos(r[:, None] * (torch.pi / 2)))

    return net, function


def test_derivatives_with_respect_to_a_networks_weights_through_the_table():
    net, function = filter_network()
    names, weights = zip(*net.named_parameters(), strict=True)
    r = some_distances(7)

    def op(x, *values):
        for name, value in zip(names, values, strict=True):
            layer, kind = name.split(".")
            net[int(layer)].__dict__[kind] = value  # in place of the parameter
        return radial_filter(tabulate(function, 2.0, 9, x), x)

    for layer in (net[0], net[2]):
        del layer.weight, layer.bias
    assert gradcheck(op, (r, *weights)) and gradgradcheck(op, (r, *weights))


def test_tables_can_be_made_and_trained_in_a_compiled_function():
    net, function = filter_network()
    r = some_distances(7)

    def loss(x):
        f = radial_filter(tabulate(function, 2.0, 9, x), x)
        return f.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    inputs = (r, *net.parameters())
    for a, b in zip(torch.autograd.grad(compiled(r), inputs), torch.autograd.grad(loss(r), inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_tables_in_float32_hold_no_subnormal_numbers():
    """Where exponentials fall below them they are zero."""
    rates = torch.tensor([1.0, 24.0, 60.0], dtype=torch.float64)
    single, double = (
        tabulate(lambda r: torch.exp(-rates * (r[:, None] - 1)), 5.0, 1024, torch.zeros((), dtype=dtype))
        for dtype in (torch.float32, torch.float64)
    )
    size = single.coefficients.abs()
    assert (double.coefficients.abs() < 1e-40).any() and not ((size > 0) & (size < 1e-36)).any()
    torch.testing.assert_close(single.coefficients.double(), double.coefficients, rtol=1e-7, atol=1e-29)


@pytest.mark.parametrize(("n_edges", "n_channels"), [(0, 4), (3, 0), (0, 0)])
def test_empty_input(n_edges, n_channels):
    table, r = some_table(n_channels), some_distances(n_edges)
    f = radial_filter(table, r)
    assert f.shape == (n_edges, n_channels)
    g = torch.autograd.grad(f.sum(), (table.coefficients, r), create_graph=True)
    assert [t.shape for t in g] == [table.coefficients.shape, r.shape]


@pytest.mark.parametrize(
    ("coefficients", "r", "message"),
    [
        (torch.zeros(4, 3, 2), torch.zeros(3), r"coefficients of shape \(G - 1, 4, C\).*got \(4, 3, 2\)"),
        (torch.zeros(0, 4, 2), torch.zeros(3), "G > 1"),
        (torch.zeros(4, 4, 2), torch.zeros(3, 1), r"r of shape \(E,\)"),
        (torch.zeros(4, 4, 2), torch.zeros(3, dtype=torch.float64), r"r of shape \(E,\) torch.float32"),
        (torch.zeros(4, 4, 2, dtype=torch.float16), torch.zeros(3, dtype=torch.float16), "float32 or float64"),
    ],
)
def test_bad_input_gets_a_sentence(coefficients, r, message):
    with pytest.raises(ValueError, match=message):
        radial_filter(RadialTable(coefficients, 2.0), r)


@pytest.mark.parametrize(("cutoff", "n_knots"), [(0.0, 8), (-1.0, 8), (2.0, 1)])
def test_impossible_tables_get_a_sentence(cutoff, n_knots):
    with pytest.raises(ValueError, match="two knots or more and a positive cutoff"):
        tabulate(bump, cutoff, n_knots, LIKE)
