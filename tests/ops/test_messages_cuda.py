"""Messages on a GPU: what the CPU computes, for all widths, graphs, tables and addresses."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from kernels import dtypes, some_table

from mdgnn.ops import (
    EdgeRows,
    RadialTable,
    Rows,
    TabulatedFilter,
    cfconv,
    concat_message,
    concat_message_table,
    painn_message,
    rows_by,
)

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
WITH_TABLE = {"cfconv": cfconv, "concat_message_table": concat_message_table, "painn_message": painn_message}
WIDE = 129, 256, 260, 512, 513, 640
OPS = WITH_TABLE | {"concat_message": concat_message}
ops, with_table = (pytest.mark.parametrize("name", list(of)) for of in (OPS, WITH_TABLE))


def problem(name, dtype, n=60, n_edges=3000, width=64, n_knots=33, long_row=False, crystal=False):
    """Inputs on the CPU, as the op takes them but for the table's coefficients, which are last; edges."""
    g = torch.Generator().manual_seed(5)
    receivers = torch.randint(0, n, (n_edges,), generator=g)
    receivers[receivers == 1] = 0
    if long_row:
        receivers[n_edges // 8 :] = n // 2
    rows = Rows(rows_by(receivers.sort().values, n).row_ptr, torch.randint(0, n, (n_edges,), generator=g))
    edges = EdgeRows(rows)
    if name == "concat_message":
        shapes = (n_edges, width), (n, 2 * width), (n_edges,)
        inputs = [2 * torch.randn(*shape, dtype=torch.float64, generator=g).to(dtype) for shape in shapes]
        return inputs, edges
    r = 2.4 * torch.rand(n_edges, dtype=torch.float64, generator=g)
    if crystal:  # all edges in three intervals
        r = torch.tensor([0.71, 1.0, 1.41, 2.01], dtype=torch.float64)[(r * 1.6).long()]
    shapes = {
        "cfconv": [(n, width)],
        "concat_message_table": [(n, 2 * width)],
        "painn_message": [(n, 3 * width), (n, 3, width)],
    }[name]
    features = [torch.randn(*shape, dtype=torch.float64, generator=g) for shape in shapes]
    directions = [torch.randn(n_edges, 3, dtype=torch.float64, generator=g)] if name == "painn_message" else []
    n_channels = {"cfconv": width, "concat_message_table": width + 1, "painn_message": 3 * width}[name]
    table = some_table(n_channels, n_knots).coefficients.detach()
    return [t.to(dtype) for t in (*features, r, *directions, table)], edges


def results(name, inputs, edges):
    """Outputs, and both derivatives of a loss."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    if name == "concat_message":
        out = concat_message(*inputs[:2], edges, inputs[2])
    else:
        features, rest = (inputs[:2], inputs[2:-1]) if name == "painn_message" else (inputs[:1], inputs[1:-1])
        filter = TabulatedFilter(RadialTable(inputs[-1], 2.0), rest[0])
        out = WITH_TABLE[name](*features, filter, *rest[1:], edges)
    out = out if isinstance(out, tuple) else (out,)
    first = torch.autograd.grad(sum(t.square().sum() for t in out), inputs, create_graph=True)
    return *out, *first, *torch.autograd.grad(sum((g / g.detach().norm()).square().sum() for g in first), inputs)


def on_gpu(edges):
    return EdgeRows(*map(_on_gpu, (edges.by_receiver, edges.by_sender)))


def _on_gpu(rows):
    return Rows(*(None if t is None else t.cuda() for t in (rows.row_ptr, rows.index, rows.edge)))


def check_against_cpu(name, dtype, shift=0, apart=0, **options):
    """`shift`: addresses that are no multiples of 16; `apart`: rows of numbers that are parts of longer ones."""
    inputs, edges = problem(name, dtype, **options)
    expected = results(name, inputs, edges)
    moved = []
    for t in inputs:
        row = t.shape[-1]
        memory = torch.empty(t.numel() // row * (row + apart) + shift, dtype=dtype, device="cuda")
        moved.append(memory[shift:].view(*t.shape[:-1], row + apart)[..., :row].copy_(t))
    first, again = (results(name, moved, on_gpu(edges)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), "two runs differ"
    # A distance in units of the knots' spacing, of which t is the fraction, is rounded or, by a fused operation, not.
    tolerance = {torch.float64: 1e-14, torch.float32: 5e-6}[dtype] * (50 + options.get("n_knots", 33))
    for ours, reference in zip(first, expected, strict=True):
        scale = tolerance * float(reference.detach().abs().max())
        torch.testing.assert_close(ours.cpu(), reference, rtol=tolerance, atol=scale)


@ops
@dtypes
@pytest.mark.parametrize(
    ("width", "n"),
    [
        *((width, 60) for width in (1, 2, 3, 5, 8, 31, 32, 33, 64, 65, 100, 128)),
        *(pytest.param(width, 60, marks=pytest.mark.sample("none")) for width in WIDE),
        *((width, 12) for width in WIDE),
    ],
)
def test_every_width(name, dtype, width, n):
    check_against_cpu(name, dtype, width=width, n=n, n_edges=50 * n)


@ops
@dtypes
@pytest.mark.parametrize("width", [4, 7])
@pytest.mark.parametrize(
    "options",
    [
        {"long_row": True},
        pytest.param({"n_edges": 50_000}, marks=pytest.mark.sample("none")),
        pytest.param({"n": 5000}, marks=pytest.mark.sample("none")),
        {"n": 1},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_graph(name, dtype, width, options):
    check_against_cpu(name, dtype, width=width, **options)


@with_table
@dtypes
@pytest.mark.parametrize("width", [4, 7])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"crystal": True, "n_edges": 200_000}, marks=pytest.mark.sample("none")),
        {"n_knots": 2},
        pytest.param({"n_knots": 1024, "n_edges": 50_000}, marks=pytest.mark.sample("none")),
        {"n_knots": 1400, "n_edges": 300},  # more intervals than a turn of their scan takes
        {"n_knots": 3000, "n_edges": 300},  # and more than counters fit into shared memory
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_table(name, dtype, width, options):
    check_against_cpu(name, dtype, width=width, **options)


@ops
@dtypes
@pytest.mark.parametrize("shift", [1, 2])
def test_addresses_that_vectors_do_not_fit(name, dtype, shift):
    check_against_cpu(name, dtype, shift=shift, n=20, n_edges=150, width=8)


@dtypes
@pytest.mark.parametrize("apart", [1, 2])
def test_edges_whose_rows_are_parts_of_longer_ones(dtype, apart):
    """Of inputs of other ops copies are made."""
    check_against_cpu("concat_message", dtype, apart=apart, n=20, n_edges=150, width=8)


def test_gradient_of_a_table_by_more_edges_than_a_warp_stages():
    """Beyond 131,072 edges a warp takes more than 32 at a time, in turns."""
    module, n_edges = import_module("mdgnn.ops.cfconv"), 140_000
    g = torch.Generator().manual_seed(0)
    row_ptr = torch.arange(0, n_edges + 1, 1000)
    edges = EdgeRows(Rows(row_ptr, torch.randint(0, n_edges // 1000, (n_edges,), generator=g)))
    x, grad = (torch.randn(n_edges // 1000, 1, dtype=torch.float64, generator=g) for _ in range(2))
    r = 2 * torch.rand(n_edges, dtype=torch.float64, generator=g)
    inputs, gradients = (x, some_table(1, 9).coefficients.detach(), r), []
    for device, its_edges in (("cpu", edges), ("cuda", on_gpu(edges))):
        given, needs_grad = [t.to(device) for t in inputs], (False, True, False)
        static = module.Static(its_edges, 2.0)
        gradients.append(module.backward(static, (grad.to(device),), given, (), needs_grad)[1].cpu())
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12 * float(gradients[0].abs().max()))


@ops
def test_captured_in_a_cuda_graph(name):
    """Forward and both derivatives of the kernels, replayed with other numbers."""
    inputs, edges = problem(name, torch.float32)
    inputs, edges = [t.cuda() for t in inputs], on_gpu(edges)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results(name, inputs, edges)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        first = results(name, inputs, edges)
    for t in inputs:
        t.mul_(0.9)
    graph.replay()
    for a, b in zip(first, results(name, inputs, edges), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", list(WITH_TABLE))
def test_results_for_more_numbers_than_32_bits_count(name):
    """Rows of features beyond the 2^31st number, one edge of the last atom to itself."""
    width = {"cfconv": 512, "concat_message_table": 256, "painn_message": 170}[name]
    row = {"cfconv": width, "concat_message_table": 2 * width, "painn_message": 3 * width}[name]
    n = 2**31 // row + 2
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs 40 GB of GPU memory")
    last = torch.full((1,), n - 1)
    row_ptr = torch.zeros(n + 1, dtype=torch.int64)
    row_ptr[-1] = 1
    edges = on_gpu(EdgeRows(Rows(row_ptr, last)))
    x = torch.zeros(n, row, device="cuda")
    x[-1] = torch.arange(row)
    table = RadialTable(torch.ones(1, 4, row, device="cuda"), 2.0)
    r = torch.full((1,), 1.0, device="cuda")
    with torch.no_grad():
        if name == "cfconv":
            out = cfconv(x, TabulatedFilter(table, r), edges)
        elif name == "concat_message_table":
            x[-1, width:] = 0
            table = RadialTable(torch.ones(1, 4, width + 1, device="cuda"), 2.0)
            out, _ = concat_message_table(x, TabulatedFilter(table, r), edges)
            x = F.silu(torch.arange(width, device="cuda") + 1.875)
            torch.testing.assert_close(out[-1], 1.875 * x)
            return
        else:
            v, unit = torch.zeros(n, 3, width, device="cuda"), torch.ones(1, 3, device="cuda")
            out, _ = painn_message(x, v, TabulatedFilter(table, r), unit, edges)
    assert torch.equal(out[-1], 1.875 * torch.arange(width, device="cuda"))
    assert not out[:-1].any()


def test_more_edges_times_features_than_32_bits_count():
    """Edges of concat_message beyond the 2^31st number: two, of the last atom to itself; 1024 of every other."""
    if torch.cuda.mem_get_info()[0] < 40e9:
        pytest.skip("needs 40 GB of GPU memory")
    width = 512
    n_edges = 2**31 // width + 2
    row_ptr = torch.arange(0, n_edges + 1024, 1024, device="cuda").clamp(max=n_edges)
    edges, n = torch.arange(n_edges, device="cuda"), len(row_ptr) - 1
    part, ends = torch.zeros(n_edges, width, device="cuda"), torch.zeros(n, 2 * width, device="cuda")
    last = part[-1] = torch.arange(width, device="cuda") / 64
    inputs = (part.requires_grad_(), ends.requires_grad_())
    out = concat_message(*inputs, EdgeRows(Rows(row_ptr, edges // 1024), Rows(row_ptr, edges // 1024, edges)))
    of_part, of_ends = torch.autograd.grad(out.sum(), inputs)
    torch.testing.assert_close(out[-1], F.silu(last))
    assert not out[:-1].any()
    slope = last.sigmoid() * (1 + last * (1 - last.sigmoid()))
    torch.testing.assert_close(of_part[-1], slope)
    assert (of_part[:-1] == 0.5).all()
    torch.testing.assert_close(of_ends[-1], (slope + 0.5).repeat(2))
