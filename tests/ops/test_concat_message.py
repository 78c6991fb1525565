"""concat_message: its formula, derivatives, edge cases, bits."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from kernels import devices, dtypes

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
    results = []
    for out in (
        concat_message(part, ends, edges, weight),
        reference(part, ends, edges, weight),
        formula(part, ends, edges, weight),
    ):
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append((out, *first, *second))
    assert not results[0][0][1].any(), "an atom that receives nothing gets zero"
    tolerance = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
    for ours, chain, expected in zip(*results, strict=True):
        scale = tolerance * float(expected.detach().abs().max())
        torch.testing.assert_close(ours, expected, rtol=0, atol=scale)
        torch.testing.assert_close(chain, expected, rtol=0, atol=scale)


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ends": torch.zeros(5, 4)}, r"ends of shape \(5, 8\)"),
        ({"part": torch.zeros(16, 4, dtype=torch.float64)}, r"edge_part of shape \(17, H\)"),
        ({"weight": torch.zeros(17)}, r"envelope of shape \(17,\) torch.float64"),
        ({"edges": EdgeRows(Rows(torch.zeros(6, dtype=torch.int64)))}, "by_receiver with senders"),
    ],
)
def test_bad_input_gets_a_sentence(change, message):
    given = dict(zip(("part", "ends", "edges", "weight"), problem(), strict=True)) | change
    with pytest.raises(ValueError, match=message):
        concat_message(given["part"], given["ends"], given["edges"], given["weight"])
