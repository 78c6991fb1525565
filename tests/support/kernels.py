"""What the tests of compiled kernels share."""

import pytest
import torch

import mdgnn
from mdgnn.ops import RadialTable
from mdgnn.ops.examples import CUTOFF, N_KNOTS, Example

_NO_GPU = [] if torch.cuda.is_available() else [pytest.mark.skip("no CUDA device")]
devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, *_NO_GPU])])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def assert_same_bits_for_any_number_of_threads(run):
    """`run()` returns tensors; they are the same on 1, 2 and 3 threads."""
    torch_threads, results = torch.get_num_threads(), []
    try:
        for n_threads in (1, 2, 3):
            mdgnn.set_num_threads(n_threads)
            torch.set_num_threads(n_threads)
            results.append(run())
    finally:
        mdgnn.set_num_threads(None)
        torch.set_num_threads(torch_threads)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b), "bits depend on the number of threads"


def some_edges(n=5, n_edges=17, device="cpu"):
    """A graph without symmetry, with self loops; atom 1 receives nothing."""
    return Example(n, n_edges, device=device).edges()


def some_table(n_channels, n_knots=N_KNOTS, device="cpu", dtype=torch.float64):
    """Random values and slopes, as rough as they come; zero at the cutoff."""
    coefficients = Example(dtype=dtype, device=device, seed=1).coefficients(n_channels, n_knots)
    return RadialTable(coefficients.requires_grad_(), CUTOFF)


def some_distances(n_edges, device="cpu", dtype=torch.float64):
    """Well inside the intervals of `some_table`, where it is smooth; each sixth is beyond the cutoff."""
    return Example(n_edges=n_edges, dtype=dtype, device=device, seed=2).distances().requires_grad_()
