"""Random cases of CUDA: neighbour lists have the CPU's bits; every op and its derivatives differ from the reference in
float64 by rounding alone, and so do the CPU's; where no number is rounded they are the same.

On the emulated device each case has a random order of blocks and threads. A case is known by a seed and its number.
"""

import sys

import numpy as np
import torch
from fuzz_neighbors import random_system
from kernels import differentiable, everything, outputs, problem_of
from rounding import in_float64, largest_excess

from mdgnn import ops
from mdgnn.ops.csr import EdgeRows, Rows, rows_by
from mdgnn.ops.examples import CUTOFF, Example

WITH_KERNELS = [op for op in ops.OPS if "cuda" in op.devices]
EXACT = [op for op in WITH_KERNELS if not op.name.startswith("concat_message")]  # which has silu


def check(seed, number):
    """Raises AssertionError, with the case's seed and number, where CUDA and the CPU differ."""
    rng = np.random.default_rng([seed, number])
    if emulated := sys.modules.get("emulated_cuda"):
        with emulated.order_of_threads(str(rng.choice(["forward", "backward", f"random:{number}"]))):
            check_case(rng, seed, number)
    else:
        check_case(rng, seed, number)


def check_case(rng, seed, number):
    kinds = [check_list, check_buffers, *([check_op] * 3), *([check_exact_op] * 3)]
    kind = kinds[number % len(kinds)]
    try:
        kind(rng)
    except Exception as error:
        raise AssertionError(f"{kind.__name__}, seed {seed}, case {number}: {error}") from error


# --- neighbour lists -------------------------------------------------------------------------------------------------


def random_structures(rng):
    """Tensors for `ops.neighbors`: a structure, or a batch of some with one cutoff; and whether it is a batch."""
    systems = []
    while not systems or (len(systems) < 4 and rng.random() < 0.3):
        positions, cell, pbc, cutoff = random_system(rng)
        first = systems[0] if systems else None
        if not np.isfinite(cutoff) or len(positions) > 150:
            continue
        if first is None or (positions.dtype == first[0].dtype and first[3] < 2 * cutoff):
            systems.append((positions, cell, pbc, cutoff))
    positions = torch.tensor(np.concatenate([s[0] for s in systems]))
    cells, pbc = (torch.tensor(np.stack([s[k] for s in systems])) for k in (1, 2))
    first = torch.tensor(np.cumsum([0, *(len(s[0]) for s in systems)]))
    batch = len(systems) > 1
    given = (positions, cells, pbc) if batch else (positions, cells[0], pbc[0])
    return given, float(systems[0][3]), {"first_atom": first} if batch else {}


def on(device, options):
    return {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in options.items()}


def listed(device, given, cutoff, options):
    """The list, or the sentence by which it is refused."""
    try:
        return ops.neighbors(*(x.to(device) for x in given), cutoff, **on(device, options))
    except ValueError as error:
        return str(error)


def check_list(rng):
    given, cutoff, options = random_structures(rng)
    half = bool(rng.random() < 0.3)
    want = ("receivers", "vectors", "distances") if half else ("receivers", "vectors", "distances", "reverse")
    options |= {"half": half, "want": want, "self_interaction": bool(rng.random() < 0.3)}
    options["index_dtype"] = torch.int32 if rng.random() < 0.5 else torch.int64
    expected, actual = (listed(device, given, cutoff, options) for device in ("cpu", "cuda"))
    if isinstance(expected, str) or isinstance(actual, str):
        assert isinstance(expected, str) and isinstance(actual, str), f"only one is refused: {expected}, {actual}"
        return
    for name, a, b in zip(expected._fields, expected, actual, strict=True):
        assert (a is None and b is None) or torch.equal(a, b.cpu()), f"{name} differ"


def check_buffers(rng):
    """Of any capacity: what does not fit is left out from the end."""
    given, cutoff, options = random_structures(rng)
    want = ("receivers", "vectors", "distances", "reverse")
    expected = listed("cpu", given, cutoff, options | {"want": want})
    if isinstance(expected, str):
        return
    n_edges = len(expected.senders)
    capacity = int(rng.integers(0, n_edges + 5))
    n_structures = 1 if given[1].ndim == 2 else len(given[1])
    buffers = ops.NeighborBuffers(
        len(given[0]), capacity, n_structures=n_structures, want=want, dtype=given[0].dtype, device="cuda"
    )
    buffers.update(*(x.cuda() for x in given), cutoff, **on("cuda", options))
    n = min(capacity, n_edges)
    assert int(buffers.n_edges) == n_edges, "another number of edges"
    assert torch.equal(buffers.row_ptr.cpu(), expected.row_ptr.clamp(max=capacity)), "row_ptr differ"
    for name in ("senders", "shifts", "receivers", "vectors", "distances"):
        assert torch.equal(getattr(buffers, name)[:n].cpu(), getattr(expected, name)[:n]), f"{name} differ"
    reverse = torch.where(expected.reverse < n, expected.reverse, -1)[:n]
    assert torch.equal(buffers.reverse[:n].cpu(), reverse), "reverse differs"


# --- ops -------------------------------------------------------------------------------------------------------------


class RandomExample(Example):
    """Graphs of any kind: long rows, rows of full warps, atoms without edges, few atoms or none; tables of 2 to 300
    knots, most of a spacing in which places are exact."""

    def __init__(self, rng, device, *, n_atoms, n_edges, **options):
        self.kind, self.n_knots = rng.choice(["even", "long row", "one pair", "warps"]), int(rng.choice(self.KNOTS))
        self.crystal, self.lengths = bool(rng.random() < 0.3), rng.choice([0, 1, 31, 32, 33, 64, 96], n_atoms)
        if self.kind == "warps":
            self.lengths = torch.tensor(self.lengths * (self.lengths.cumsum() <= 600))
            n_edges = int(self.lengths.sum())
        super().__init__(n_atoms, n_edges, device=device, **options)

    KNOTS, PARTS = (2, 9, 33, 257, 300), 256  # of an interval, for places in it

    def edges(self):
        receivers, senders = self.integers(self.n_atoms, self.n_edges), self.integers(self.n_atoms, self.n_edges)
        if self.kind == "long row":
            receivers[self.n_edges // 8 :] = self.n_atoms // 2
        if self.kind == "one pair":
            receivers[:], senders[:] = 0, self.n_atoms - 1
        if self.kind == "warps":  # columns, too
            receivers = torch.repeat_interleave(torch.arange(self.n_atoms), self.lengths)
            senders = receivers[torch.randperm(self.n_edges, generator=self._generator)]
        rows = rows_by(receivers.sort().values, self.n_atoms)
        return EdgeRows(Rows(rows.row_ptr.to(self.device), senders.to(self.device)))

    def coefficients(self, width, n_knots=None):
        return super().coefficients(width, n_knots or self.n_knots)

    def distances(self):
        """Some beyond the cutoff, in a crystal all in a few intervals; none at knots, where second derivatives jump."""
        n_intervals = self.n_knots - 1
        interval = self.integers(n_intervals + n_intervals // 5 + 1, 4 if self.crystal else self.n_edges)
        if self.crystal:
            interval = interval[self.integers(4, self.n_edges)]
        place = interval + (1 + self.integers(self.PARTS - 1, self.n_edges)) / self.PARTS
        return (place.double() * (CUTOFF / n_intervals)).to(self.device, self.dtype)


class ExactExample(RandomExample):
    """Of small integers, and distances at quarters of intervals: sums of products of these are exact in float32."""

    KNOTS, PARTS = (2, 9), 4

    def small(self, *shape):
        return self.integers(3, *shape).double() - 1

    def normal(self, *shape, dtype=None):
        return self.small(*shape).to(self.device, dtype or self.dtype)

    def uniform(self, *shape):
        return ((1 + self.integers(2, *shape)) / 2).to(self.device, self.dtype)

    def coefficients(self, width, n_knots=None):
        return self.small((n_knots or self.n_knots) - 1, 4, width).to(self.device, self.dtype)


def random_sizes(rng, op):
    n_atoms = int(rng.choice([0, 1, 2, 7, 60, 300]))
    return {
        "n_atoms": n_atoms,
        "n_edges": int(rng.choice([0, 1, 31, 33, 400])) if n_atoms else 0,
        "width": int(rng.choice([1, 3, 4, 17, 33, 64, 100, 130])),
        "dtype": [torch.float32, torch.float64][rng.integers(2)],
        "seed": int(rng.integers(2**31)),
        "options": op.options[rng.integers(len(op.options))],
    }


def check_op(rng):
    op = WITH_KERNELS[rng.integers(len(WITH_KERNELS))]
    sizes, seed, by_device = random_sizes(rng, op), int(rng.integers(2**31)), {}
    for device in ("cuda", "cpu"):
        example = RandomExample(np.random.default_rng(seed), device, **sizes)
        static, inputs = problem_of(op, example)
        by_device[device] = [None if t is None else t.cpu() for t in everything(op, static, inputs)]
    for device, results in by_device.items():
        excess = largest_excess(op, static, inputs, results)
        assert excess <= 1, (
            f"{op.name} {sizes}, {example.kind}, {example.n_knots} knots: {device} is {excess:.3g} times as far from "
            "float64 as rounding may take it"
        )


def by_small_integers(op, static, inputs, function, seed):
    """Outputs, gradients and the gradients of these, also for what the outputs were multiplied by."""
    generator = torch.Generator().manual_seed(seed)

    def small(like):
        return torch.randint(-1, 2, like.shape, generator=generator).to(like.device, like.dtype)

    outs, x = outputs(op, static, inputs, function), differentiable(inputs)
    factors = [small(t).requires_grad_() for t in outs]
    first = torch.autograd.grad(outs, x, factors, create_graph=True)
    if op.max_derivatives(static) < 2:
        return *outs, *first
    return *outs, *first, *torch.autograd.grad(first, [*x, *factors], [small(t) for t in first], allow_unused=True)


def check_exact_op(rng):
    """Where nothing is rounded every number is that of float64: what is missing or there twice shows in any sum."""
    op = EXACT[rng.integers(len(EXACT))]
    sizes, seed = random_sizes(rng, op), int(rng.integers(2**31))
    if sizes["options"].get("reduce", "sum") != "sum":  # means are rounded; of equal numbers, which is the largest?
        sizes["options"] = {}
    results = {}
    for device in ("cuda", "cpu"):
        example = ExactExample(np.random.default_rng(seed), device, **sizes)
        static, inputs = problem_of(op, example)
        results[device] = by_small_integers(op, static, inputs, op.function, seed)
    exact = by_small_integers(op, static, in_float64(inputs), op.reference, seed)
    for device, numbers in results.items():
        for k, (ours, x) in enumerate(zip(numbers, exact, strict=True)):
            ours, x = (torch.zeros(1, dtype=torch.float64) if t is None else t.cpu().double() for t in (ours, x))
            assert bool((ours == x).all()), f"{op.name} {sizes}, {example.kind}: result {k} on {device} is not exact"
