"""forces: its formula, derivatives, edge cases, bits."""

import pytest
import torch
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes
from torch.autograd import gradcheck, gradgradcheck

from mdgnn.ops import Rows, forces, rows_by


def problem(n=7, n_edges=23, device="cpu", dtype=torch.float64):
    """Gradients, rows, columns, receivers and senders of a graph without symmetry."""
    g = torch.Generator().manual_seed(0)
    receivers = torch.randint(0, n, (n_edges,), generator=g).sort().values.to(device)
    senders = torch.randint(0, n, (n_edges,), generator=g).to(device)
    columns = rows_by(senders, n)
    gradients = torch.randn(n_edges, 3, dtype=dtype, generator=g).to(device)
    rows = Rows(rows_by(receivers, n).row_ptr)
    return gradients, rows, Rows(columns.row_ptr, columns.index), receivers, senders


@devices
@dtypes
def test_equals_its_formula_and_is_differentiable(device, dtype):
    gradients, rows, columns, receivers, senders = problem(device=device, dtype=dtype)
    expected = torch.zeros(7, 3, dtype=torch.float64, device=device)
    expected.index_add_(0, receivers, gradients.double()).index_add_(0, senders, -gradients.double())
    torch.testing.assert_close(forces(gradients, rows, columns), expected, rtol=1e-14, atol=1e-14)
    tracked = forces(gradients.requires_grad_(), rows, columns)
    assert torch.equal(tracked.detach(), forces(gradients.detach(), rows, columns)), "one sum, one order, the same bits"
    wide = gradients.detach().double().requires_grad_()
    assert gradcheck(lambda g: forces(g, rows, columns), wide)
    assert gradgradcheck(lambda g: forces(g, rows, columns), wide)


@pytest.mark.parametrize(("n", "n_edges"), [(0, 0), (3, 0), (1, 2)])
def test_empty_input(n, n_edges):
    index = torch.zeros(n_edges, dtype=torch.int64)
    rows = rows_by(index, n)
    found = forces(torch.ones(n_edges, 3), Rows(rows.row_ptr), Rows(rows.row_ptr, rows.index))
    assert found.shape == (n, 3) and not found.any()


@dtypes
def test_bits_do_not_depend_on_threads(dtype):
    gradients, rows, columns, *_ = problem(3000, 60000, dtype=dtype)
    assert_same_bits_for_any_number_of_threads(lambda: [forces(gradients, rows, columns)])


def test_bad_input_gets_a_sentence():
    gradients, rows, columns, *_ = problem()
    for bad in (gradients[:, :2], gradients.half(), gradients[0]):
        with pytest.raises(ValueError, match=r"gradients of shape \(E, 3\)"):
            forces(bad, rows, columns)
    with pytest.raises(ValueError, match="as many edges as gradients"):
        forces(gradients[1:], rows, columns)
    with pytest.raises(ValueError, match="as many edges as gradients"):  # also where a derivative is wanted
        forces(gradients[1:].clone().requires_grad_(), rows, columns)
    with pytest.raises(ValueError, match="rows and columns of 23 edges, got 22"):
        forces(gradients, Rows(rows.row_ptr.clamp(max=22)), columns)
