"""What the tests of compiled kernels share."""

import pytest
import torch

import mdgnn
from mdgnn.ops import EdgeRows, RadialTable, Rows, rows_by
from mdgnn.ops.radial_filter import hermite

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
    g = torch.Generator().manual_seed(0)
    receivers = torch.randint(0, max(n, 1), (n_edges,), generator=g)
    receivers[receivers == 1] = 0
    senders = torch.randint(0, max(n, 1), (n_edges,), generator=g)
    return EdgeRows(Rows(rows_by(receivers.sort().values, n).row_ptr.to(device), senders.to(device)))


def some_table(n_channels, n_knots=9, cutoff=2.0, device="cpu", dtype=torch.float64):
    """Random values and slopes, as rough as they come; zero at the cutoff."""
    knots = torch.randn(2, n_knots, n_channels, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    knots[:, -1] = 0
    return RadialTable(hermite(*knots).to(device, dtype).requires_grad_(), cutoff)


def some_distances(n_edges, n_knots=9, cutoff=2.0, device="cpu", dtype=torch.float64):
    """Well inside the intervals of `some_table`, where it is smooth; each sixth is beyond the cutoff."""
    g = torch.Generator().manual_seed(2)
    interval = torch.randint(0, n_knots - 1, (n_edges,), generator=g)
    interval[5::6] += n_knots
    r = (interval + 0.2 + 0.6 * torch.rand(n_edges, dtype=torch.float64, generator=g)) * (cutoff / (n_knots - 1))
    return r.to(device, dtype).requires_grad_()
