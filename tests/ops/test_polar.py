"""polar: its formula, derivatives, edge cases, bits."""

from importlib import import_module

import pytest
import torch
from kernels import devices, dtypes

from mdgnn.ops import polar

reference = import_module("mdgnn.ops.polar").reference


def vectors_of(n_edges=11, device="cpu", dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n_edges, 3, dtype=dtype, generator=g).to(device).requires_grad_()


def everything(op, vectors):
    """Results, and both derivatives of something that depends on all of them."""
    r, unit = op(vectors)
    weights = torch.linspace(0.3, 1.7, 3, dtype=vectors.dtype, device=vectors.device)
    energy = (r.square() * (unit * weights).sum(1).sin()).sum()
    (first,) = torch.autograd.grad(energy, vectors, create_graph=True)
    return r, unit, first, *torch.autograd.grad((first * weights.flip(0)).square().sum(), vectors)


@devices
@dtypes
@pytest.mark.parametrize("n_edges", [1, 7, 200])
def test_equals_reference_with_both_derivatives(device, dtype, n_edges):
    vectors = vectors_of(n_edges, device, dtype)
    tolerance = {torch.float64: 1e-13, torch.float32: 5e-6}[dtype]
    for ours, expected in zip(everything(polar, vectors), everything(reference, vectors), strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=scale)


def test_lengths_alone():
    vectors = vectors_of()
    r, unit = polar(vectors, directions=False)
    assert unit is None and torch.equal(r, polar(vectors)[0])


@devices
def test_a_vector_of_length_zero_has_no_direction_and_no_derivatives(device):
    vectors = torch.zeros(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    for op in (polar, reference):
        r, unit = op(vectors)
        (g,) = torch.autograd.grad(r.sum() + unit.sum(), vectors, create_graph=True)
        (g2,) = torch.autograd.grad(g.sum(), vectors)
        assert not any(t.any() for t in (r, unit, g, g2))


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (torch.zeros(3), r"expected vectors of shape \(E, 3\) torch.float32 on cpu, got \(3,\)"),
        (torch.zeros(4, 2), r"expected vectors of shape \(4, 3\) torch.float32 on cpu, got \(4, 2\)"),
        (torch.zeros(4, 3, dtype=torch.float16), "expected vectors in float32 or float64, got torch.float16"),
    ],
)
def test_bad_input_gets_a_sentence(vectors, message):
    with pytest.raises(ValueError, match=message):
        polar(vectors)
