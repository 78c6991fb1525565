"""concat_message: its formula, derivatives, edge cases, bits."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes
from torch.autograd import gradcheck, gradgradcheck

from mdgnn.ops import EdgeRows, Rows, concat_message, rows_by

reference = import_module("mdgnn.ops.concat_message").reference


def problem(n=5, width=4, n_edges=17, device="cpu", dtype=torch.float64):
    """edge_part, ends, edges, weight of a graph without symmetry, with self loops; atom 1 receives nothing."""
    g = torch.Generator().manual_seed(0)
    receivers = torch.randint(0, n, (n_edges,), generator=g)
    receivers[receivers == 1] = 0
    receivers = receivers.sort().values
    senders = torch.randint(0, n, (n_edges,), generator=g)
    part = torch.randn(n_edges, width, dtype=dtype, generator=g) * 2
    ends = torch.randn(n, 2 * width, dtype=dtype, generator=g) * 2
    weight = torch.rand(n_edges, dtype=dtype, generator=g)
    rows = Rows(rows_by(receivers, n).row_ptr.to(device), senders.to(device))
    tensors = [t.to(device).requires_grad_() for t in (part, ends, weight)]
    return tensors[0], tensors[1], EdgeRows(rows), tensors[2]


def formula(part, ends, edges, weight=None):
    """Edge by edge, from the definition."""
    width, out, rows = part.shape[1], [], edges.by_receiver
    for i in range(rows.n_rows):
        terms = [torch.zeros(width, dtype=part.dtype, device=part.device)]
        for k in range(int(rows.row_ptr[i]), int(rows.row_ptr[i + 1])):
            message = F.silu(part[k] + ends[rows.index[k], :width] + ends[i, width:])
            terms.append(message if weight is None else weight[k] * message)
        out.append(torch.stack(terms).sum(0))
    return torch.stack(out)


@devices
@dtypes
@pytest.mark.parametrize("width", [1, 4, 32, 37])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_equals_its_formula_with_both_derivatives(device, dtype, width, weighted):
    part, ends, edges, weight = problem(width=width, device=device, dtype=dtype)
    inputs = (part, ends, weight) if weighted else (part, ends)
    weight = weight if weighted else None
    found = []
    for out in (
        concat_message(part, ends, edges, weight),
        reference(part, ends, edges, weight),
        formula(part, ends, edges, weight),
    ):
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        found.append((out, *first, *second))
    assert not found[0][0][1].any(), "an atom that receives nothing gets zero"
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-4}[dtype]
    for ours, chain, expected in zip(*found, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=scale)
        torch.testing.assert_close(chain, expected, rtol=tolerance, atol=scale)


@devices
def test_derivatives(device):
    part, ends, edges, weight = problem(n=4, n_edges=7, width=3, device=device)

    def op(p, e, w=None):
        return concat_message(p, e, edges, w)

    assert gradcheck(op, (part, ends, weight)) and gradgradcheck(op, (part, ends, weight))
    assert gradcheck(op, (part, ends)) and gradgradcheck(op, (part, ends))


@devices
@pytest.mark.parametrize("wanted", ["part", "ends", "weight"])
def test_each_input_alone_gets_the_same_derivatives(device, wanted):
    given = dict(zip(("part", "ends", "edges", "weight"), problem(device=device), strict=True))
    grads = []
    for names in (("part", "ends", "weight"), (wanted,)):
        used = {
            n: t.detach().requires_grad_(n in names) if isinstance(t, torch.Tensor) else t for n, t in given.items()
        }
        out = concat_message(used["part"], used["ends"], used["edges"], used["weight"])
        (first,) = torch.autograd.grad(out.square().sum(), used[wanted], create_graph=True)
        grads.append((first, *torch.autograd.grad(first.square().sum(), used[wanted])))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_third_derivative_is_refused():
    part, ends, edges, weight = problem()
    out = concat_message(part, ends, edges, weight)
    (g,) = torch.autograd.grad(out.square().sum(), part, create_graph=True)
    (g2,) = torch.autograd.grad(g.square().sum(), part, create_graph=True)
    with pytest.raises(RuntimeError, match="concat_message: third derivatives"):
        torch.autograd.grad(g2.sum(), part)


@devices
def test_blocks_of_columns_and_other_strides(device):
    part, ends, edges, weight = problem(width=6, device=device)
    part, ends = part.detach(), ends.detach()
    wide = torch.cat([part, part, part], dim=1)[:, 6:12].requires_grad_()  # rows apart, each contiguous
    turned = part.t().contiguous().t().requires_grad_()
    expected = concat_message(part, ends, edges, weight)
    for other in (wide, turned):
        out = concat_message(other, ends.t().contiguous().t(), edges, torch.stack([weight] * 2, 1)[:, 0])
        assert torch.equal(out, expected)
        assert torch.autograd.grad(out.sum(), other)[0].shape == part.shape


@devices
@pytest.mark.parametrize(("n", "n_edges", "width"), [(0, 0, 4), (3, 0, 4), (1, 0, 1), (3, 5, 0)])
def test_empty_input(device, n, n_edges, width):
    index = torch.zeros(n_edges, dtype=torch.int64, device=device)
    part = torch.ones(n_edges, width, device=device, requires_grad=True)
    ends = torch.ones(n, 2 * width, device=device, requires_grad=True)
    row_ptr = rows_by(index, n).row_ptr
    out = concat_message(part, ends, EdgeRows(Rows(row_ptr, index)))
    assert out.shape == (n, width)
    g = torch.autograd.grad(out.sum(), (part, ends), create_graph=True)
    assert [t.shape for t in g] == [part.shape, ends.shape]
    torch.autograd.grad(sum(t.sum() for t in g), (part, ends))


@dtypes
def test_bits_do_not_depend_on_threads(dtype):
    part, ends, edges, weight = problem(n=900, n_edges=20000, width=33, dtype=dtype)

    def run():
        out = concat_message(part, ends, edges, weight)
        first = torch.autograd.grad(out.square().sum(), (part, ends, weight), create_graph=True)
        second = torch.autograd.grad(sum(g.sum() for g in first), (part, ends, weight))
        return out, *first, *second

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": torch.zeros(5, 4)}, r"ends of shape \(5, 8\)"),
        ({"part": torch.zeros(16, 4, dtype=torch.float64)}, r"edge_part of shape \(17, 4\)"),
        ({"weight": torch.zeros(17)}, r"envelope of shape \(17,\) torch.float64"),
        ({"edges": EdgeRows(Rows(torch.zeros(6, dtype=torch.int64)))}, "by_receiver with senders"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    given = dict(zip(("part", "ends", "edges", "weight"), problem(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        concat_message(given["part"], given["ends"], given["edges"], given["weight"])


def test_compiles_with_rows_that_nothing_has_looked_at():
    part, ends, edges, weight = problem()
    rows, columns = edges.by_receiver, edges.by_sender

    def f(p, e, w):
        fresh = EdgeRows(Rows(rows.row_ptr, rows.index), Rows(columns.row_ptr, columns.index, columns.edge))
        return concat_message(p, e, fresh, w).sum()

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(part, ends, weight), f(part, ends, weight))
