"""What the tests of compiled kernels share."""

import pytest
import torch

import mdgnn

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
