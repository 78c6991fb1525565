"""Random cases of CUDA: neighbour lists have the CPU's bits; every op and its derivatives differ from the reference in
float64 by rounding alone, and so do the CPU's.

On the emulated device each case has a random order of blocks and threads. A case is known by a seed and its number.
"""

import sys

import numpy as np
import torch
from fuzz_neighbors import random_system
from kernels import everything, problem_of
from rounding import largest_excess

from mdgnn import ops
from mdgnn.ops.csr import EdgeRows, Rows, rows_by
from mdgnn.ops.examples import CUTOFF, Example

WITH_KERNELS = [op for op in ops.OPS if "cuda" in op.devices]


def check(seed, number):
    """Raises AssertionError, with the case's seed and number, where CUDA and the CPU differ."""
    rng = np.random.default_rng([seed, number])
    if emulated := sys.modules.get("emulated_cuda"):
        with emulated.order_of_threads(str(rng.choice(["forward", "backward", f"random:{number}"]))):
            check_case(rng, seed, number)
    else:
        check_case(rng, seed, number)


def check_case(rng, seed, number):
    kinds = [check_list, check_buffers, *([check_op] * 4)]
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
    """Graphs of any kind: long rows, atoms without edges, few atoms or none; tables of 2 to 300 knots."""

    def __init__(self, rng, device, **options):
        self.kind, self.n_knots = rng.choice(["even", "long row", "one pair"]), int(rng.choice([2, 9, 33, 300]))
        self.crystal = bool(rng.random() < 0.3)
        super().__init__(device=device, **options)

    def edges(self):
        receivers, senders = self.integers(self.n_atoms, self.n_edges), self.integers(self.n_atoms, self.n_edges)
        if self.kind == "long row":
            receivers[self.n_edges // 8 :] = self.n_atoms // 2
        if self.kind == "one pair":
            receivers[:], senders[:] = 0, self.n_atoms - 1
        rows = rows_by(receivers.sort().values, self.n_atoms)
        return EdgeRows(Rows(rows.row_ptr.to(self.device), senders.to(self.device)))

    def coefficients(self, width, n_knots=None):
        return super().coefficients(width, n_knots or self.n_knots)

    def distances(self):
        """Some beyond the cutoff, in a crystal all in a few intervals; none at knots, where second derivatives jump."""
        r = 1.2 * CUTOFF * torch.rand(self.n_edges, dtype=torch.float64, generator=self._generator)
        if self.crystal:
            r = torch.tensor([0.71, 1.01, 1.43, 2.01], dtype=torch.float64)[(r * 1.6).long()]
        place = r * ((self.n_knots - 1) / CUTOFF)
        near = (place - place.round()).abs() < 1e-3
        return torch.where(near, r + 0.25 * CUTOFF / (self.n_knots - 1), r).to(self.device, self.dtype)


def check_op(rng):
    op = WITH_KERNELS[rng.integers(len(WITH_KERNELS))]
    n_atoms = int(rng.choice([0, 1, 2, 7, 60, 300]))
    sizes = {
        "n_atoms": n_atoms,
        "n_edges": int(rng.choice([0, 1, 31, 33, 400])) if n_atoms else 0,
        "width": int(rng.choice([1, 3, 4, 17, 33, 64, 100, 130])),
        "dtype": [torch.float32, torch.float64][rng.integers(2)],
        "seed": int(rng.integers(2**31)),
        "options": op.options[rng.integers(len(op.options))],
    }
    seed, by_device = int(rng.integers(2**31)), {}
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
