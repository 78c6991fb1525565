"""Messages on a GPU: float32, tables of 1024 knots, a random liquid with about 64 neighbours within 6 A

Gathered rows and coefficients of the table are counted as moved once an edge, whether they come from a cache or not.
concat_message has no table but an array of edges x features, its derivatives too.
The share of a copy's bandwidth, measured in the same run, is in the extra info: `of_copy`.
"""

from importlib import import_module

import pytest
import torch

from mdgnn import ops
from mdgnn.ops.radial_filter import RadialTable, hermite

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUTOFF, NEIGHBOURS, KNOTS = 6.0, 64, 1024
MODULES = {name: import_module(f"mdgnn.ops.{name}") for name in ("cfconv", "concat_message", "painn_message")}
# Numbers of the table, of atoms' rows and of results that an edge and a feature take; forward: the sums. backward: for
# features, distances (and directions) and the table. double: of the last two and the features, again, and of the sums.
# concat_message: its edges' part and its senders' row; the gradient, written and read; what multiplies both.
MOVED = {
    "cfconv": {"forward": 5, "backward": 5 + 5 + 2, "double": 6 + 4 + 6 + 3},
    "concat_message": {"forward": 2, "backward": 2 + 2, "double": 2 + 2 + 2},
    "painn_message": {"forward": 18, "backward": 16 + 20 + 10, "double": 24 + 16 + 26 + 16},
}


@pytest.mark.parametrize("task", ["forward", "backward", "double"])
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("n_atoms", [512, 8192, 65_536])
@pytest.mark.parametrize("op", list(MODULES))
def test_message_ops(timed, benchmark, op, n_atoms, width, task):
    inputs, edges, per_edge = problem(op, n_atoms, width)
    moved = 4 * width * MOVED[op][task] * per_edge

    def synchronised(function):
        run = derivative(function, inputs, edges, task)

        def call():
            run()
            torch.cuda.synchronize()

        return call

    module = MODULES[op]
    functions = {"ours": synchronised(getattr(module, op))}
    if per_edge * width < 2**27:  # where its arrays of edges x features have room
        functions["reference"] = synchronised(module.reference)
    timed(functions, f"{op} {width} {task}", n_atoms, per_edge, moved)
    if benchmark.enabled:
        benchmark.extra_info["of_copy"] = benchmark.extra_info["GB/s"] / copy_bandwidth()


def problem(op, n_atoms, width):
    """Inputs, the coefficients of the table or the weights last, the edges, and their number."""
    torch.manual_seed(0)
    side = (n_atoms * (4 / 3 * torch.pi * CUTOFF**3) / NEIGHBOURS) ** (1 / 3)
    positions, periodic = torch.rand(n_atoms, 3).cuda() * side, torch.ones(3, dtype=torch.bool, device="cuda")
    cell = torch.eye(3, device="cuda") * side
    graph = ops.neighbors(positions, cell, periodic, CUTOFF, want=("vectors", "distances"), index_dtype=torch.int64)
    rows = ops.EdgeRows(ops.Rows(graph.row_ptr, graph.senders))
    n_edges, blocks = len(graph.senders), 3 if op == "painn_message" else 1
    if op == "concat_message":
        shapes = (n_edges, width), (n_atoms, 2 * width), (n_edges,)
        inputs = [torch.randn(*shape, device="cuda", requires_grad=True) for shape in shapes]
        return inputs, rows, n_edges
    features = [torch.randn(n_atoms, blocks * width, device="cuda")]
    edges = [graph.distances]
    if op == "painn_message":
        features.append(torch.randn(n_atoms, 3, width, device="cuda"))
        edges.append(graph.vectors / graph.distances[:, None])
    table = hermite(*torch.randn(2, KNOTS, blocks * width, dtype=torch.float64)).float().cuda()
    inputs = [t.requires_grad_() for t in (*features, *edges, table)]
    return inputs, rows, n_edges


def derivative(function, inputs, edges, task):
    """What one call of a benchmark does; what comes before it has been done."""
    *given, last = inputs
    place = 2 if len(given) == 4 else 1

    def forward():
        if last.ndim == 1:  # the weights of concat_message
            return (function(*given, edges, last),)
        filter = ops.TabulatedFilter(RadialTable(last, CUTOFF), given[place])
        out = function(*given[:place], filter, *given[place + 1 :], edges)
        return out if isinstance(out, tuple) else (out,)

    if task == "forward":
        return torch.no_grad()(forward)
    out = forward()
    grads = [torch.randn_like(t).requires_grad_() for t in out]
    if task == "backward":
        return lambda: torch.autograd.grad(out, inputs, grads, retain_graph=True)
    first = torch.autograd.grad(out, given, grads, create_graph=True)
    by = [torch.randn_like(t) for t in first]
    return lambda: torch.autograd.grad(first, (*inputs, *grads), by, retain_graph=True, allow_unused=True)


def copy_bandwidth():
    """GB/s, read and written, of a copy of 1 GB."""
    source = torch.ones(2**28, device="cuda")
    target = torch.empty_like(source)
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e-3)
    return 2 * source.numel() * 4 / sorted(times)[5] * 1e-9
