"""What the tests of compiled kernels share."""

import sys

import pytest
import torch

import mdgnn
from mdgnn.ops import RadialTable
from mdgnn.ops.csr import EdgeRows, Rows, rows_by
from mdgnn.ops.declaration import as_tuple
from mdgnn.ops.examples import CUTOFF, N_KNOTS, Example

_NO_GPU = [] if torch.cuda.is_available() else [pytest.mark.skip("no CUDA device")]
_CUDA = pytest.param("cuda", marks=[pytest.mark.gpu, *_NO_GPU])
devices = pytest.mark.parametrize("device", ["cpu", _CUDA])
on_cuda = pytest.mark.parametrize("device", [_CUDA])
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


def assert_same_bits_in_any_order_of_threads(run):
    """`run()` returns tensors of a CUDA device; they are the same in five orders of blocks and threads.

    A GPU has an order of its own in every run; the emulated one is told.
    """
    emulated, results = sys.modules.get("emulated_cuda"), []
    for order in ("forward", "backward", "random:1", "random:2", "random:3"):
        if emulated:
            with emulated.order_of_threads(order):
                results.append(run())
        else:
            results.append(run())
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b), "bits depend on the order of threads"


class ExampleOfRows(Example):
    """Rows and columns of given lengths; all edges within the cutoff."""

    def __init__(self, lengths, **options):
        super().__init__(len(lengths), sum(lengths), **options)
        self.lengths = torch.tensor(lengths)

    def edges(self):
        receivers = torch.repeat_interleave(torch.arange(self.n_atoms), self.lengths)
        senders = receivers[torch.randperm(self.n_edges, generator=self._generator)]
        row_ptr = rows_by(receivers, self.n_atoms).row_ptr
        return EdgeRows(Rows(row_ptr.to(self.device), senders.to(self.device)))

    def distances(self):
        interval = self.integers(N_KNOTS - 1, self.n_edges)
        fraction = torch.rand(self.n_edges, dtype=torch.float64, generator=self._generator)
        return ((interval + 0.2 + 0.6 * fraction) * (CUTOFF / (N_KNOTS - 1))).to(self.device, self.dtype)


def problem_of(op, example):
    """Static arguments, and inputs of which the differentiable ones ask for gradients; of an `Example`."""
    static, inputs = op.example(example)
    for array, x in zip(op.inputs, inputs, strict=True):
        if x is not None:
            x.requires_grad_(array.differentiable)
    return static, inputs


def differentiable(inputs):
    return [x for x in inputs if x is not None and x.requires_grad]


def outputs(op, static, inputs, function=None):
    """Of the public function, or of the reference; those that are there."""
    results = as_tuple((function or op.function)(*op.arguments(static, *inputs)))
    return [t for t in results if t is not None]


def everything(op, static, inputs, function=None, loss=None):
    """The outputs, and as many derivatives of a loss as there are; with respect to all that have them."""
    loss = loss or (lambda results: sum((t * (1 + k)).square().sum() for k, t in enumerate(results)))
    outs = outputs(op, static, inputs, function)
    first = torch.autograd.grad(loss(outs), differentiable(inputs), create_graph=True)
    if op.max_derivatives(static) < 2:
        return *outs, *first
    return *outs, *first, *torch.autograd.grad(loss(first), differentiable(inputs), allow_unused=True)


def assert_close(actual, expected, tolerance, cancelled=0.0):
    """Of each array, errors relative to the largest number that is expected; none where that is 0.

    `cancelled`: what rounding leaves of numbers about 1 where they cancel in all of an array.
    """
    for a, b in zip(actual, expected, strict=True):
        b = torch.zeros_like(a) if b is None else b
        atol = max(cancelled, tolerance * float(b.detach().abs().max())) if b.numel() else 0
        torch.testing.assert_close(torch.zeros_like(b) if a is None else a, b, rtol=0, atol=atol)


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
