"""edge_basis: its formula, derivatives, edge cases, bits."""

from importlib import import_module

import pytest
import torch
from kernels import devices, dtypes
from torch.autograd import gradcheck

from mdgnn.ops import edge_basis

reference = import_module("mdgnn.ops.edge_basis").reference


def problem(n_edges=11, n_basis=5, device="cpu", dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    vectors = torch.randn(n_edges, 3, dtype=dtype, generator=g).to(device).requires_grad_()
    return vectors, torch.linspace(0.5, 3.0, n_basis, dtype=dtype, device=device)


@devices
@dtypes
@pytest.mark.parametrize("n_basis", [1, 5, 16, 37])
def test_equals_reference_with_both_derivatives(device, dtype, n_basis):
    vectors, centers = problem(200, n_basis, device, dtype)
    results = []
    for op in (edge_basis, reference):
        distances, basis = op(vectors, centers, 0.5)
        energy = (distances * basis.square().sum(1)).sum()
        (first,) = torch.autograd.grad(energy, vectors, create_graph=True)
        results.append((distances, basis, first, *torch.autograd.grad(first.square().sum(), vectors)))
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-6}[dtype]
    for ours, expected in zip(*results, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=scale)


def test_trainable_centres_get_their_gradient():
    vectors, centers = problem()
    centers.requires_grad_()
    assert gradcheck(lambda v, c: edge_basis(v, c, 0.4), (vectors, centers))


@devices
def test_a_vector_of_length_zero_has_no_gradient(device):
    centers = problem(device=device)[1]
    vectors = torch.zeros(2, 3, dtype=torch.float64, device=device, requires_grad=True)
    for op in (edge_basis, reference):
        distances, basis = op(vectors, centers, 0.4)
        (g,) = torch.autograd.grad(distances.sum() + basis.sum(), vectors, create_graph=True)
        (g2,) = torch.autograd.grad(g.sum(), vectors)
        assert not distances.any() and not g.any() and not g2.any()


@pytest.mark.parametrize(
    ("vectors", "centers", "message"),
    [
        (torch.zeros(3), torch.zeros(2), r"vectors of shape \(E, 3\)"),
        (torch.zeros(4, 3, dtype=torch.float16), torch.zeros(2), "float32 or float64"),
        (torch.zeros(4, 3), torch.zeros(2, dtype=torch.float64), r"centers of shape \(B,\) torch.float32"),
    ],
)
def test_bad_input_gets_a_sentence(vectors, centers, message):
    with pytest.raises(ValueError, match=message):
        edge_basis(vectors, centers, 0.5)


@pytest.mark.parametrize("width", [0, -0.5, float("nan")])
def test_widths_that_are_not_positive_are_refused(width):
    with pytest.raises(ValueError, match=f"positive width, got {width}"):
        edge_basis(torch.zeros(1, 3), torch.zeros(1), width)
