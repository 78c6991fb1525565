"""edge_basis: its formula, derivatives, edge cases, bits."""

from importlib import import_module

import pytest
import torch
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes
from torch.autograd import gradcheck, gradgradcheck

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
    found = []
    for op in (edge_basis, reference):
        distances, basis = op(vectors, centers, 0.5)
        energy = (distances * basis.square().sum(1)).sum()
        (first,) = torch.autograd.grad(energy, vectors, create_graph=True)
        found.append((distances, basis, first, *torch.autograd.grad(first.square().sum(), vectors)))
    tolerance = {torch.float64: 1e-13, torch.float32: 2e-6}[dtype]
    for ours, expected in zip(*found, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=scale)


@devices
def test_derivatives(device):
    vectors, centers = problem(device=device)
    for take in (slice(0, 2), slice(0, 1), slice(1, 2)):  # both results, or one alone
        assert gradcheck(lambda v, take=take: edge_basis(v, centers, 0.4)[take], vectors)
        assert gradgradcheck(lambda v, take=take: edge_basis(v, centers, 0.4)[take], vectors)


def test_third_derivative_is_refused():
    vectors, centers = problem()
    g = edge_basis(vectors, centers, 0.4)[1].sum()
    for _ in range(2):
        (g,) = torch.autograd.grad(g.square().sum(), vectors, create_graph=True)
    with pytest.raises(RuntimeError, match="edge_basis: third derivatives"):
        torch.autograd.grad(g.sum(), vectors)


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


@devices
@pytest.mark.parametrize(("n_edges", "n_basis"), [(0, 4), (3, 0), (0, 0), (1, 1)])
def test_empty_input(device, n_edges, n_basis):
    vectors, centers = problem(n_edges, n_basis, device)
    distances, basis = edge_basis(vectors, centers, 0.4)
    assert distances.shape == (n_edges,) and basis.shape == (n_edges, n_basis)
    (g,) = torch.autograd.grad(distances.sum() + basis.sum(), vectors, create_graph=True)
    assert g.shape == vectors.shape
    torch.autograd.grad(g.sum(), vectors)


def test_non_contiguous_input():
    vectors, centers = problem()
    turned = vectors.detach().t().contiguous().t().requires_grad_()
    spread = torch.stack([centers, centers], 1)[:, 0]
    outs = [edge_basis(vectors, centers, 0.4), edge_basis(turned, spread, 0.4)]
    for a, b in zip(*outs, strict=True):
        assert torch.equal(a, b)
    grads = [torch.autograd.grad(b.sum(), v)[0] for (_, b), v in zip(outs, (vectors, turned), strict=True)]
    assert torch.equal(*grads)


@dtypes
def test_bits_do_not_depend_on_threads(dtype):
    vectors, centers = problem(20000, 16, dtype=dtype)

    def run():
        distances, basis = edge_basis(vectors, centers, 0.4)
        (first,) = torch.autograd.grad(distances.sum() + basis.square().sum(), vectors, create_graph=True)
        return distances, basis, first, *torch.autograd.grad(first.square().sum(), vectors)

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize(
    ("vectors", "centers", "message"),
    [
        (torch.zeros(3), torch.zeros(2), r"vectors of shape \(E, 3\)"),
        (torch.zeros(4, 3, dtype=torch.float16), torch.zeros(2), "float32 or float64"),
        (torch.zeros(4, 3), torch.zeros(2, dtype=torch.float64), r"centers as \(B,\) torch.float32"),
    ],
)
def test_bad_input_gets_a_sentence(vectors, centers, message):
    with pytest.raises(ValueError, match=message):
        edge_basis(vectors, centers, 0.5)
    with pytest.raises(ValueError, match="positive width, got 0"):
        edge_basis(torch.zeros(1, 3), torch.zeros(1), 0)
