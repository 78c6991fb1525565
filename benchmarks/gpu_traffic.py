"""What the CUDA kernels move, counted on the emulated machine: make emulate-traffic; writes results/gpu_traffic.md

With --places WORD it prints the lines of the source that move most in kernels whose name contains the word, instead.
"""

import emulated_cuda  # isort: skip  # before torch

import argparse
import ctypes
import datetime
import re
from importlib import import_module
from pathlib import Path

import clusters
import torch
from traffic import count

from mdgnn import ops
from mdgnn.ops.radial_filter import RadialTable, TabulatedFilter, hermite

N_ATOMS, WIDTH, KNOTS = 147, 64, 1024
N_LIQUID = 2500  # atoms, too many for the bins of one block
SIDE = (N_LIQUID * (4 / 3 * torch.pi * 6**3) / 64) ** (1 / 3)  # of their box: 64 neighbours within 6
BANDWIDTH, FLOPS = 3.35e12, 67e12  # of an H100 SXM, by its data sheet: bytes/s of memory, float32 operations/s
MACHINE = ctypes.CDLL(str(emulated_cuda.BUILT / "libmachine.so"))
MESSAGES = {
    name: getattr(import_module(f"mdgnn.ops.{name}"), name)
    for name in ("cfconv", "painn_message", "concat_message", "concat_message_table")
}


# --- what runs --------------------------------------------------------------------------------------------------------


def normal(*shape, **options):
    return torch.randn(*shape, **options).cuda().requires_grad_()


def message_inputs(name, neighbors):
    """Those of an op of messages, with the coefficients of the table or the weights last."""
    n, n_edges = len(neighbors.row_ptr) - 1, len(neighbors.senders)
    if name == "concat_message":
        return normal(n_edges, WIDTH), normal(n, 2 * WIDTH), normal(n_edges)
    r = neighbors.distances.clone().requires_grad_()
    channels = {"cfconv": WIDTH, "concat_message_table": WIDTH + 1, "painn_message": 3 * WIDTH}[name]
    table = hermite(*torch.randn(2, KNOTS, channels, dtype=torch.float64)).float().cuda().requires_grad_()
    if name == "painn_message":
        unit = (neighbors.vectors / neighbors.distances[:, None]).requires_grad_()
        return normal(n, 3 * WIDTH), normal(n, 3, WIDTH), r, unit, table
    return normal(n, WIDTH if name == "cfconv" else 2 * WIDTH), r, table


def message(name, edges):
    """The op as a function of these inputs."""

    def call(*inputs):
        if name == "concat_message":
            edge_part, ends, weight = inputs
            return MESSAGES[name](edge_part, ends, edges, weight)
        *given, table = inputs
        place = 2 if name == "painn_message" else 1
        filter = TabulatedFilter(RadialTable(table, clusters.CUTOFF), given[place])
        return MESSAGES[name](*given[:place], filter, *given[place + 1 :], edges)

    return call


def derivatives(function, inputs, order=2):
    """What runs a function, its gradient and that of the gradient."""

    def run():
        out = function(*inputs)
        out = [t for t in (out if isinstance(out, tuple) else (out,)) if t is not None]
        grads = [torch.ones_like(t).requires_grad_() for t in out]
        first = torch.autograd.grad(out, inputs, grads, create_graph=order == 2)
        if order == 2:
            torch.autograd.grad(first, (*inputs, *grads), [torch.ones_like(t) for t in first], allow_unused=True)

    return run


def graph(positions, cell, periodic, cutoff):
    want = ("receivers", "vectors", "distances", "reverse")
    return ops.neighbors(positions, cell, periodic, cutoff, want=want)


def cases():
    """(op, atoms, edges, intervals of the table with an edge, what runs its kernels); a kernel counts where it is first
    met."""
    torch.manual_seed(0)
    cluster = torch.tensor(clusters.positions_of(N_ATOMS), dtype=torch.float32).cuda()
    open_box = torch.zeros(3, 3).cuda(), torch.zeros(3, dtype=torch.bool).cuda(), clusters.CUTOFF
    neighbors = graph(cluster, *open_box)
    edges = ops.EdgeRows(ops.Rows(neighbors.row_ptr, neighbors.senders))
    n_edges = len(neighbors.senders)
    filled = len((neighbors.distances.cpu() * ((KNOTS - 1) / clusters.CUTOFF)).long().unique())
    for name in MESSAGES:
        yield name, N_ATOMS, n_edges, filled, derivatives(message(name, edges), message_inputs(name, neighbors))
    vectors = neighbors.vectors.double().requires_grad_()
    forces = derivatives(lambda g, d: ops.force_virial(g, edges, d), (normal(n_edges, 3), vectors))
    yield "force_virial", N_ATOMS, n_edges, 0, forces
    columns = edges.by_sender
    rows = ops.Rows(neighbors.row_ptr, neighbors.senders, torch.arange(n_edges).cuda())
    of_edges = ops.Rows(neighbors.row_ptr)
    for reduce, order in (("sum", 2), ("max", 1)):

        def gathered(x, w, reduce=reduce):
            return ops.scatter_add(x, rows, w, columns=columns, reduce=reduce)

        def summed(x, reduce=reduce):
            return ops.scatter_add(x, of_edges, reduce=reduce)

        yield (
            "scatter_add",
            N_ATOMS,
            n_edges,
            0,
            derivatives(gathered, (normal(N_ATOMS, WIDTH), normal(n_edges)), order),
        )
        yield "scatter_add", N_ATOMS, n_edges, 0, derivatives(summed, (normal(n_edges, WIDTH),), 1)
    liquid = torch.rand(N_LIQUID, 3).cuda() * SIDE
    periodic = torch.eye(3).cuda() * SIDE, torch.ones(3, dtype=torch.bool).cuda(), 6.0
    yield "neighbors", N_LIQUID, len(graph(liquid, *periodic).senders), 0, lambda: graph(liquid, *periodic)
    yield "neighbors", N_ATOMS, n_edges, 0, lambda: graph(cluster, *open_box)


# --- what they would need ---------------------------------------------------------------------------------------------


def floors(n, e, filled):
    """(bytes, operations) of a launch by the headers of the kernels: numbers that are gathered count once an edge,
    rows of a result once an atom, whatever caches do. Operations are those of the formulas, by hand."""
    f, k = WIDTH, KNOTS - 1
    parts, chunks = -(-e // 256), -(-e // 32)  # of the sort; of the sums over intervals
    counts = 8 * k * parts
    candidates = 27 * n * n / (SIDE // 6) ** 3  # of the liquid: the atoms of 27 bins

    def edges(numbers, flops, atom, extra):
        """Numbers and operations an edge and feature, numbers an atom and feature, bytes an edge."""
        return 4 * f * (numbers * e + atom * n) + extra * e, flops * f * e

    def table(numbers, flops, extra, width=f):
        """The same of sums over intervals, for the gradient of a table of some width."""
        return 4 * f * numbers * e + (16 + extra) * e + 16 * width * filled, flops * f * e

    return {
        # r, sender and, for derivatives, what they write and are multiplied by: 4, 8, 4, 4 bytes an edge
        "cfconv: convolve<4, value>": edges(5, 9, 1, 12),
        "cfconv: convolve<4, slope>": edges(4, 7, 1, 16),
        "cfconv: convolve<4, value, slope>": edges(6, 16, 1, 16),
        "cfconv: distance_grads<4, value>": edges(4, 8, 1, 16),
        "cfconv: distance_grads<4, value, slope>": edges(5, 14, 1, 20),
        "cfconv: sum_chunks<4, value>": table(2, 9, 12),
        "cfconv: sum_chunks<4, value, slope>": table(3, 16, 16),
        "painn_message: receive<4>": edges(18, 37, 4, 24),
        "painn_message: receive<4, double_backward>": edges(24, 73, 4, 40),
        "painn_message: send<4>": edges(16, 36, 10, 24),
        "painn_message: send<4, double_backward>": edges(16, 64, 14, 40),
        "painn_message: edge_gradients<4>": edges(16, 48, 4, 40),
        "painn_message: edge_gradients<4, double_backward>": edges(22, 90, 4, 56),
        "painn_message: sum_chunks<4>": table(10, 37, 24, 3 * f),
        "painn_message: sum_chunks<4, double_backward>": table(16, 60, 40, 3 * f),
        "concat_message: sum_messages<4>": edges(2, 40, 2, 12),
        "concat_message: receive<4>": edges(3, 45, 3, 16),
        "concat_message: receive<4, double_backward>": edges(5, 55, 5, 20),
        "concat_message: sum_sent<4>": edges(1, 1, 1, 8),
        "concat_message_table: sum_messages": edges(5, 47, 2, 28),
        "concat_message_table: send": edges(6, 50, 2, 28),
        "concat_message_table: receive": edges(5, 50, 3, 48),
        "concat_message_table: sum_chunks<1>": table(7, 50, 28, f + 1),
        "concat_message_table: send<double_backward>": edges(11, 80, 3, 48),
        "concat_message_table: receive<double_backward>": edges(10, 80, 5, 68),
        "concat_message_table: sum_chunks<1, double_backward>": table(13, 80, 32, f + 1),
        "edges by interval: walk_part<count>": (4 * e + counts, 0),
        "edges by interval: walk_part<place>": (20 * e + counts + 8 * k, 0),
        "edges by interval: scan_parts": (3 * counts + 8 * k, 0),
        "edges by interval: scan_intervals": (2 * 8 * k, 0),
        "edges by interval: add_parts": (16 * f * (k - filled + chunks) + 8 * k, 0),
        "force_virial: sum_edges": ((2 * 36 + 8) * e + 96 * n, 60 * e),
        "force_virial: sum_edges<float64>": ((2 * 48 + 8) * e + 96 * n, 60 * e),
        # of the sender a virial, 72 bytes; the first of two launches in float32 reads its force, 24, too
        "force_virial: hand_to_edges<float64>": ((8 + 24 + 24 + 72) * e + 72 * n, 60 * e),
        "force_virial: hand_to_edges": ((8 + 24 + 12 + 84) * e + 84 * n, 60 * e),
        "scatter_add: sum_rows": edges(1, 2, 1, 20),
        "scatter_add: sum_columns": edges(1, 2, 1, 20),
        "scatter_add: spread_rows": edges(1, 1, 1, 0),
        "scatter_add: dot_rows": edges(1, 2, 1, 20),
        "scatter_add: max_rows": edges(1, 1, 3, 20),
        "scatter_add: max_columns": edges(2, 1, 2, 20),  # gradients are read where they count: once
        "scatter_add: max_spread": edges(1, 1, 3, 0),
        "scatter_add: max_dot": edges(1, 2, 3, 20),
        # 28 bytes a candidate; an edge gathers 24, and senders, receivers, shifts, vectors and distances are written
        "neighbors: count_rows": (28 * candidates + 8 * n, 25 * candidates),
        "neighbors: fill_rows": (28 * candidates + (24 + 44) * e, 25 * candidates),
        "neighbors: scan_rows": (16 * n, 0),
        # a step of a search is a sector: five, the ends of a row and a shift; shift, sender and result are side by side
        "neighbors: reverse_rows": ((5 * 32 + 40 + 40 + 28) * e, 0),
    }


# Template arguments that say which of two kernels it is, in their order.
FLAGS = {"convolve": ("value", "slope"), "distance_grads": ("value", "slope")}


def label(op, name):
    """'cfconv: convolve<4, value>' from a demangled name."""
    name = re.sub(r"^void |\(anonymous namespace\)::|mdgnn::|cuda::", "", name).split("(")[0]
    base, _, arguments = name.partition("<")
    base = base.removesuffix("_kernel")
    if base == "run_phases":
        return f"neighbors: bins, {arguments.split(', ', 1)[1].rstrip('>') if arguments.count(',') == 1 else 'all'}"
    words = re.findall(r"\w+", arguments)
    sizes = [w for w in words if w.isdigit()][:1]
    on = [w == "true" for w in words if w in ("true", "false")]
    names = FLAGS.get("convolve" if "cfconv" in op and base == "sum_chunks" else base, ("double_backward",))
    if base == "walk_part":
        flags = ["place" if on[0] else "count"]
    else:
        flags = [flag for flag, is_on in zip(names, on, strict=False) if is_on]
    if base in ("walk_part", "scan_parts", "scan_intervals", "add_parts"):
        op = "edges by interval"
    shown = ", ".join([*(["float64"] if words[:1] == ["double"] else []), *sizes, *flags])
    return f"{op}: {base}<{shown}>" if shown else f"{op}: {base}"


# --- the page ---------------------------------------------------------------------------------------------------------

HEAD = (
    "kernel", "launches", "blocks", "asked, MB", "sectors, MB", "once, MB", "floor, MB", "sectors / floor",
    "used", "turns of banks", "lanes", "Mflop", "H100, µs",
)  # fmt: skip


def row(name, kernel, floor):
    """The cells of a kernel: all numbers are of one launch."""
    c, per = kernel.total, 1 / kernel.launches
    moved = 32 * (c.sectors_read + c.sectors_written) * per
    once = 32 * (kernel.first_read + kernel.first_written) * per
    floor_bytes, flops = floor or (None, 0)
    estimate = [max(n_bytes / BANDWIDTH, flops / FLOPS) * 1e6 for n_bytes in (once, moved)]
    return [
        name,
        str(kernel.launches),
        f"{kernel.blocks * per:.0f}",
        f"{(c.bytes_read + c.bytes_written) * per * 1e-6:.2f}",
        f"{moved * 1e-6:.2f}",
        f"{once * 1e-6:.2f}",
        f"{floor_bytes * 1e-6:.2f}" if floor else "",
        f"{moved / floor_bytes:.2f}" if floor else "",
        f"{c.useful * per / moved:.0%}",
        f"{c.turns / c.shared_accesses:.2f}" if c.shared_accesses else "",
        f"{c.lanes / (32 * c.accesses):.0%}",
        f"{flops * 1e-6:.1f}" if flops else "",
        " to ".join(f"{t:.1f}" for t in estimate),
    ]


PAGE = """\
# Memory traffic of the CUDA kernels, counted

{date}, torch {torch}; by `make emulate-traffic`, without a GPU

A cluster of {atoms} Lennard-Jones atoms within {cutoff} sigma, F = {width}, tables of {knots} knots, float32; lists of
neighbours and their bins: a liquid of {liquid} atoms with 64 neighbours, then that cluster. Rows of float64 say so, as
sum_edges<float64>; the others are float32. Numbers are those of one launch. A GPU's compiler may load less often
than the one that builds the emulation.

- asked: bytes that lanes read and write. sectors: those of 32 bytes that the accesses of warps touch, which L1, L2 or
  memory serve. once: each sector once in a launch, what memory has to move if caches hold all of it.
- floor: by the header of the kernel, gathered rows once an edge.
- used: of the bytes of sectors, those that a lane of the access asked for; where all lanes read one number of 4 bytes,
  an eighth. turns of banks: of shared memory, 1 without a conflict. lanes: of a warp, that take part in an access.
- H100, µs: an **estimate**, nothing is measured: the longer of bytes over 3.35 TB/s and operations over 67 Tflop/s,
  from each sector once to each access from memory. Launches take their time besides.

"""


def page(rows):
    head = PAGE.format(
        date=datetime.date.today().isoformat(),
        torch=torch.__version__,
        atoms=N_ATOMS,
        cutoff=clusters.CUTOFF,
        width=WIDTH,
        knots=KNOTS,
        liquid=N_LIQUID,
    )
    table = [HEAD, ["---"] + ["---:"] * (len(HEAD) - 1), *rows]
    return head + "".join("| " + " | ".join(cells) + " |\n" for cells in table)


def print_places(kernel, name):
    """The lines of a kernel whose accesses take most sectors and turns of banks."""
    print(f"\n{name}: sectors, used, lanes an access, accesses of shared memory, turns of its banks")
    lines = []
    for place, c in kernel.places.items():
        sectors = c.sectors_read + c.sectors_written
        used, lanes = c.useful / max(32 * sectors, 1), c.lanes / c.accesses
        lines.append(
            (sectors + c.turns, f"{sectors:9} {used:5.0%} {lanes:5.1f} {c.shared_accesses:9} {c.turns:9}  {place}")
        )
    print("\n".join(line for _, line in sorted(lines, reverse=True)[:15]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--places", metavar="WORD")
    options = parser.parse_args()
    rows = {}
    for op, n, e, filled, run in cases():
        for kernel in count(MACHINE, run, options.places is not None):
            name = label(op, kernel.name)
            if options.places and options.places in name:
                print_places(kernel, name)
            rows.setdefault(name, row(name, kernel, floors(n, e, filled).get(name)))
    if options.places is None:
        (Path(__file__).parent / "results" / "gpu_traffic.md").write_text(page(rows.values()))


if __name__ == "__main__":
    main()
