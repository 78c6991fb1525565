"""Products of torch whose bits do not depend on the number of threads."""

import pytest
import torch
import torch.nn.functional as F
from kernels import assert_same_bits_for_any_number_of_threads, dtypes

from mdgnn._internal.blas import add_linear, linear


@dtypes
@pytest.mark.parametrize("n", [16, 112, 128, 561])
@pytest.mark.parametrize(
    ("n_in", "n_out"), [(1, 8), (5, 15), (15, 5), (8, 24), (24, 8), (20, 64), (33, 66), (64, 192), (2, 1)]
)
def test_columns_of_any_number(n, n_in, n_out, dtype):
    """Those of results, and of both derivatives."""
    g = torch.Generator().manual_seed(0)
    x, weight, bias, start, grad = (
        torch.randn(shape, dtype=dtype, generator=g).requires_grad_()
        for shape in ((n, n_in), (n_out, n_in), (n_out,), (n, n_out), (n, n_out))
    )

    def run(linear=linear, add_linear=add_linear):
        results = []
        for out in (linear(x, weight, bias), linear(x, weight), add_linear(start, x, weight)):
            results += [out, *torch.autograd.grad(out, (x, weight), grad)]
        return results

    expected = run(F.linear, lambda start, x, weight: start + F.linear(x, weight))
    for ours, theirs in zip(run(), expected, strict=True):
        tolerance = 20 * torch.finfo(dtype).eps * float(theirs.detach().abs().max())
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)
    if n_out > 1:  # one column: MLP sums products instead
        assert_same_bits_for_any_number_of_threads(run)
