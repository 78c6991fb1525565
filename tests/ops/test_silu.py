"""silu: agreement with torch, derivatives, extremes, bits."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from kernels import assert_same_bits_for_any_number_of_threads, devices, dtypes

from mdgnn.ops import silu
from mdgnn.ops.silu import SILU


@dtypes
def test_silu_equals_torch_in_float64_to_three_units_in_the_last_place(dtype):
    x = torch.cat([torch.linspace(-30, 30, 100001), torch.linspace(-1e-3, 1e-3, 1001)]).to(dtype)
    exact = F.silu(x.double())
    error = (silu(x).double() - exact).abs() / exact.abs().clamp(min=1e-300)
    assert float(error[x != 0].max()) < 3 * torch.finfo(dtype).eps
    assert float(silu(torch.zeros(1, dtype=dtype))) == 0.0 and not silu(torch.zeros(40000, dtype=dtype)).any()


@dtypes
@pytest.mark.parametrize("n", [1, 8000])
def test_silu_at_extremes(dtype, n):
    big = torch.finfo(dtype).max
    x = torch.tensor([big, -big, 1000.0, -1000.0, float("nan")], dtype=dtype)
    y = silu(x.repeat(n))
    assert y[0] == big and y[2] == 1000 and abs(float(y[3])) < 1e-30 and y[4].isnan()
    assert abs(float(y[1])) < 1e-30


@devices
@dtypes
def test_equals_reference_with_both_derivatives(device, dtype):
    """The reference in float64. On a GPU it is torch's."""
    numbers = torch.linspace(-20, 20, 40001, dtype=dtype, device=device)
    results = []
    for op, x in ((silu, numbers.clone()), (import_module("mdgnn.ops.silu").reference, numbers.double())):
        y = op(x.requires_grad_())
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        results.append((y, g, *torch.autograd.grad(g.square().sum(), x)))
    for ours, expected in zip(*results, strict=True):
        atol = {torch.float64: 4e-13, torch.float32: 2e-5}[dtype] * float(expected.detach().abs().max())
        torch.testing.assert_close(ours.double(), expected, rtol=0, atol=atol)


@dtypes
@pytest.mark.parametrize("n", [0, 1, 7, 8193, 32767, 32768, 100003])
def test_bits_do_not_depend_on_threads(dtype, n):
    """torch's own silu fails this from 32,768 elements on: the end of each thread's share takes another exp."""
    x = torch.randn(n, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 4
    x.requires_grad_()

    def run():
        y = silu(x)
        (g,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        return y, g, *torch.autograd.grad(g.square().sum(), x)

    assert_same_bits_for_any_number_of_threads(run)


@dtypes
def test_the_kernels_bits_do_not_depend_on_place(dtype):
    x = torch.randn(32768 + 13, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 4
    whole = silu(x)
    for k in range(0, len(x), 997):
        assert torch.equal(SILU.forward((), (x[k : k + 1],), ())[0], whole[k : k + 1])
    assert torch.equal(silu(x.repeat(2)[::2]), silu(x.repeat(2)[::2].contiguous()))
