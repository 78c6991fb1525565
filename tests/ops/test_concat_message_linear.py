"""concat_message_linear: its formula with both derivatives, for sizes around those of its tiles."""

import pytest
import torch
from kernels import dtypes
from test_concat_message import formula, problem

from mdgnn.ops import concat_message_linear


def inputs_of(width, n_features, n_edges, dtype):
    """features, weight, ends, edges, envelope of the graph of `problem`."""
    _, ends, edges, envelope = problem(width=width, n_edges=n_edges, dtype=dtype)
    g = torch.Generator().manual_seed(1)
    features = torch.randn(n_edges, n_features, dtype=dtype, generator=g).requires_grad_()
    weight = torch.randn(width, n_features, dtype=dtype, generator=g).requires_grad_()
    return features, weight, ends, edges, envelope


@dtypes
@pytest.mark.parametrize(
    ("width", "n_features", "n_edges"),
    [(1, 1, 17), (4, 3, 1), (32, 16, 47), (32, 16, 48), (32, 16, 101), (37, 17, 60), (16, 33, 7), (24, 20, 290)],
)
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_equals_its_formula_with_both_derivatives(dtype, width, n_features, n_edges, weighted):
    features, weight, ends, edges, envelope = inputs_of(width, n_features, n_edges, dtype)
    inputs = (features, weight, ends, envelope) if weighted else (features, weight, ends)
    envelope = envelope if weighted else None
    results = []
    for out in (
        concat_message_linear(features, weight, ends, edges, envelope),
        formula(features @ weight.t(), ends, edges, envelope),
    ):
        first = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        results.append((out, *first, *second))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}[dtype]
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance * float(expected.detach().abs().max()))


def test_a_weight_may_be_a_block_of_columns():
    features, weight, ends, edges, envelope = inputs_of(8, 3, 40, torch.float64)
    wide = torch.cat([weight, weight], dim=1)
    assert torch.equal(
        concat_message_linear(features, wide[:, 3:], ends, edges, envelope),
        concat_message_linear(features, weight, ends, edges, envelope),
    )


@pytest.mark.parametrize("x", [-1e30, -200.0, -89.0, -88.0, 88.0, 200.0, 1e30])
@dtypes
def test_arguments_of_any_size(x, dtype):
    """SiLU is x or zero there, to a rounding, and its derivative one or zero."""
    features, weight, ends, edges, _ = inputs_of(4, 2, 17, dtype)
    ends = torch.full_like(ends, x / 2).requires_grad_()
    out = concat_message_linear(torch.zeros_like(features), weight, ends, edges)
    n = edges.by_receiver.row_ptr.diff()[:, None].to(dtype)
    torch.testing.assert_close(out, (n * max(x, 0)).expand_as(out), rtol=1e-6, atol=1e-30)
    (gradient,) = torch.autograd.grad(out.sum(), ends)
    received = gradient[:, 4:]
    torch.testing.assert_close(received, (n if x > 0 else 0 * n).expand_as(received), rtol=1e-6, atol=1e-30)
