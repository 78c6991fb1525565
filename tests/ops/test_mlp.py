"""mlp: against its reference for sizes around those of tiles, for a single output, and on many rows."""

import pytest
import torch
from kernels import assert_close, assert_same_bits_for_any_number_of_threads, dtypes, everything
from torch.autograd import gradcheck, gradgradcheck

from mdgnn.nn import MLP
from mdgnn.ops import mlp
from mdgnn.ops.mlp import MLP_OP, STATIC, reference


def inputs_of(n, sizes, dtype):
    """x, weights and biases for (C, H, K)."""
    g = torch.Generator().manual_seed(0)
    n_in, n_hidden, n_out = sizes
    shapes = (n, n_in), (n_hidden, n_in), (n_hidden,), (n_out, n_hidden), (n_out,)
    inputs = [torch.randn(*s, generator=g, dtype=torch.float64).to(dtype) / s[-1] ** 0.5 for s in shapes]
    return [x.requires_grad_() for x in inputs]


@dtypes
@pytest.mark.parametrize(
    ("n", "sizes"), [(1, (1, 1, 1)), (7, (16, 33, 1)), (13, (17, 31, 15)), (600, (32, 32, 1)), (300, (40, 64, 32))]
)
def test_equals_its_reference(n, sizes, dtype):
    inputs = inputs_of(n, sizes, dtype)
    both = (everything(MLP_OP, STATIC, inputs, function, loss=mean_square) for function in (mlp, reference))
    assert_close(*both, {torch.float64: 1e-13, torch.float32: 3e-5}[dtype])


def mean_square(results):
    return sum(t.square().mean() for t in results)


def test_derivatives_of_a_single_output_are_those_of_finite_differences():
    inputs = inputs_of(3, (2, 3, 1), torch.float64)
    assert gradcheck(mlp, inputs) and gradgradcheck(mlp, inputs)


@pytest.mark.parametrize("n_out", [1, 24])
def test_bits_do_not_depend_on_threads(n_out):
    inputs = inputs_of(1500, (40, 33, n_out), torch.float32)

    def run():
        out = mlp(*inputs)
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    assert_same_bits_for_any_number_of_threads(run)


@pytest.mark.parametrize("activation", [torch.nn.SiLU, torch.nn.Tanh])
def test_a_perceptron_in_one_call_is_the_same(activation):
    """What has another activation than the op goes on to have it."""
    torch.manual_seed(0)
    network, x = MLP(5, 8, 1, activation).double(), torch.randn(6, 5, dtype=torch.float64)
    torch.testing.assert_close(network(x, one_call=True), network(x), rtol=1e-13, atol=1e-13)
