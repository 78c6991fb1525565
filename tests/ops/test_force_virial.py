"""force_virial: its formula, derivatives, operators, edge cases, bits."""

from importlib import import_module

import pytest
import torch
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes
from torch.autograd import gradcheck, gradgradcheck

from mdgnn.ops import EdgeRows, Rows, force_virial, rows_by

reference = import_module("mdgnn.ops.force_virial").reference


def problem(n=7, n_edges=23, device="cpu", dtype=torch.float64):
    """Gradients, vectors and edges of a graph without symmetry, with self loops; atom 2 has no edges."""
    g = torch.Generator().manual_seed(0)
    ends = torch.randint(0, max(n, 1), (2, n_edges), generator=g)
    ends[ends == 2] = 0
    receivers = ends[0].sort().values.to(device)
    gradients = torch.randn(n_edges, 3, dtype=torch.float64, generator=g).to(device, dtype)
    vectors = torch.randn(n_edges, 3, dtype=torch.float64, generator=g).to(device)
    rows = Rows(rows_by(receivers, n).row_ptr, ends[1].to(device))
    return gradients, vectors, EdgeRows(rows)


@devices
@dtypes
def test_equals_its_formula(device, dtype):
    gradients, vectors, edges = problem(device=device, dtype=dtype)
    for given in (None, vectors):
        expected = reference(gradients, edges, given)
        found = force_virial(gradients, edges, given)
        tracked = force_virial(gradients.clone().requires_grad_(), edges, given)
        for a, b, c in zip(expected, found, tracked, strict=True):
            if a is None:
                assert b is None and c is None
                continue
            torch.testing.assert_close(b, a, rtol=1e-13, atol=1e-13)
            assert torch.equal(b, c.detach()), "one sum, one order, the same bits"
            assert not b[2].any(), "an atom without edges gets zero"
    total = -torch.einsum("ka,kb->ab", gradients.double(), vectors)
    torch.testing.assert_close(found[1].sum(0), (total + total.T) / 2)
    assert torch.equal(found[1], found[1].transpose(1, 2))
    for again in (force_virial(gradients, edges, vectors), force_virial(gradients, edges, vectors)):
        assert torch.equal(again[0], found[0]) and torch.equal(again[1], found[1]), "two runs differ"


@devices
def test_derivatives(device):
    gradients, vectors, edges = problem(n=5, n_edges=9, device=device)
    inputs = gradients.requires_grad_(), vectors.requires_grad_()
    assert gradcheck(lambda g: force_virial(g, edges)[0], gradients)
    assert gradgradcheck(lambda g: force_virial(g, edges)[0], gradients)
    for wanted in (slice(None), slice(0, 1), slice(1, 2)):
        op = lambda g, v: force_virial(g, edges, v)[wanted]  # noqa: B023, E731
        assert gradcheck(op, inputs) and gradgradcheck(op, inputs)

    def first(g, v):  # bilinear: the ladder has no end
        out = force_virial(g, edges, v)
        return torch.autograd.grad(sum(t.square().sum() for t in out), (g, v), create_graph=True)

    assert gradgradcheck(first, inputs)


@devices
@dtypes
def test_operators(device, dtype):
    gradients, vectors, edges = problem(device=device, dtype=dtype)
    rows, columns = edges.by_receiver, edges.numbers_by_sender
    graph = (rows.row_ptr, rows.index, columns.row_ptr, columns.index)
    inputs = gradients.requires_grad_(), vectors.requires_grad_()
    operators = torch.ops.mdgnn
    torch.library.opcheck(operators.force_virial.default, (*inputs, *graph))
    torch.library.opcheck(operators.force_virial.default, (gradients, None, *graph))
    grads = [torch.randn(s, dtype=torch.float64, device=device, requires_grad=True) for s in ((7, 3), (7, 3, 3))]
    for given in ((*grads, vectors), (grads[0], None, None), (None, *grads[1:], vectors)):
        torch.library.opcheck(operators.force_virial_backward.default, (*given, *graph, dtype))
    found = []
    for op in (operators.force_virial(*inputs, *graph), force_virial(gradients, edges, vectors)):
        one = torch.autograd.grad(sum(t.square().sum() for t in op), inputs, create_graph=True)
        found.append((*op, *one, *torch.autograd.grad(sum(t.square().sum() for t in one), inputs)))
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b), "as the eager path, bit for bit"


@pytest.mark.parametrize("virial", [True, False])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own
def test_compiles(virial):
    gradients, vectors, edges = problem()

    def f(g):
        forces, virials = force_virial(g.sin(), edges, vectors if virial else None)
        return forces.cos().sum() + (virials.square().sum() if virial else 0)

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    ours, eager = (torch.autograd.grad(op(gradients.requires_grad_()), gradients) for op in (compiled, f))
    torch.testing.assert_close(ours, eager)


@devices
@pytest.mark.parametrize(("n", "n_edges"), [(0, 0), (3, 0), (1, 2)])
def test_empty_input(device, n, n_edges):
    index = torch.zeros(n_edges, dtype=torch.int64, device=device)
    by = rows_by(index, n)
    gradients = torch.ones(n_edges, 3, device=device, requires_grad=True)
    vectors = torch.zeros(n_edges, 3, dtype=torch.float64, device=device)
    forces, virials = force_virial(gradients, EdgeRows(Rows(by.row_ptr, index)), vectors)
    assert forces.shape == (n, 3) and virials.shape == (n, 3, 3) and not forces.any() and not virials.any()
    (grad,) = torch.autograd.grad(forces.sum() + virials.sum(), gradients)
    assert grad.shape == (n_edges, 3) and not grad.any()


def test_non_contiguous_input():
    gradients, vectors, edges = problem()
    strided = [t.t().contiguous().t() for t in (gradients, vectors)]
    for a, b in zip(
        force_virial(strided[0], edges, strided[1]),
        force_virial(gradients, edges, vectors),
        strict=True,
    ):
        assert torch.equal(a, b)


@dtypes
def test_bits_do_not_depend_on_threads(dtype):
    gradients, vectors, edges = problem(3000, 60000, dtype=dtype)
    gradients.requires_grad_()

    def run():
        out = force_virial(gradients, edges, vectors)
        return *out, *torch.autograd.grad(sum(t.square().sum() for t in out), gradients)

    assert_same_bits_for_any_number_of_threads(run)


def test_bad_input_gets_a_sentence():
    gradients, vectors, edges = problem()
    for bad in (gradients[:, :2], gradients[0], gradients[1:], gradients[1:].clone().requires_grad_()):
        with pytest.raises(ValueError, match=r"gradients of shape \(23, 3\)"):
            force_virial(bad, edges)
    with pytest.raises(ValueError, match="gradients in float32 or float64, got torch.float16"):
        force_virial(gradients.half(), edges)
    rows = edges.by_receiver
    with pytest.raises(ValueError, match="row_ptr to rise from 0 to the number of entries, 23"):
        force_virial(gradients, EdgeRows(Rows(rows.row_ptr.clamp(max=22), rows.index), edges.by_sender))
    with pytest.raises(ValueError, match="senders below 7"):
        force_virial(gradients, EdgeRows(Rows(rows.row_ptr, rows.index + 7), edges.by_sender))
    for bad in (vectors.float(), vectors[1:]):
        with pytest.raises(ValueError, match=r"vectors of shape \(23, 3\) torch.float64"):
            force_virial(gradients, edges, bad)
