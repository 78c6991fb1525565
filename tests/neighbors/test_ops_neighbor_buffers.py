"""Neighbour lists in memory of fixed size, and their capture in a CUDA graph. Needs no ASE."""

import pytest
import torch
from kernels import devices, dtypes
from test_ops_neighbors import PBC, batch_of, structure

from mdgnn import ops

NAMES = ("receivers", "vectors", "distances", "reverse")


def searched(args, want=NAMES, **options):
    return ops.neighbors(*args, want=want, **options)


def assert_holds(buffers, expected, n_edges):
    """The first n_edges edges of `expected`."""
    assert torch.equal(buffers.row_ptr, expected.row_ptr.clamp(max=n_edges))
    for name in ("senders", "shifts", *NAMES):
        array = getattr(expected, name)
        if array is None:
            continue
        if name == "reverse":
            array = torch.where(array < n_edges, array, -1)
        assert torch.equal(getattr(buffers, name)[:n_edges], array[:n_edges])


@devices
@dtypes
@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("pbc", PBC)
def test_buffers_hold_the_list(pbc, index_dtype, dtype, device):
    args = (*structure(0, 9, pbc, dtype, device), 1.8)
    expected = searched(args, index_dtype=index_dtype)
    n_edges = len(expected.senders)
    buffers = ops.NeighborBuffers(9, n_edges + 5, want=NAMES, dtype=dtype, device=device, index_dtype=index_dtype)
    buffers.update(*args)
    buffers.check()
    assert int(buffers.n_edges) == n_edges and not buffers.overflow
    assert_holds(buffers, expected, n_edges)
    assert not buffers.senders[n_edges:].any() and buffers.senders.dtype == index_dtype


@devices
@pytest.mark.parametrize("room", [0, 1, 7, -1])
def test_what_does_not_fit_is_left_out_and_reported(room, device):
    args = (*structure(1, 9, (True, True, False), device=device), 1.8)
    expected = searched(args)
    n_edges = len(expected.senders)
    capacity = room if room >= 0 else n_edges - 1
    buffers = ops.NeighborBuffers(9, capacity, want=NAMES, dtype=torch.float64, device=device)
    buffers.update(*args)
    assert int(buffers.n_edges) == n_edges and buffers.overflow
    assert_holds(buffers, expected, capacity)
    with pytest.raises(ValueError, match=f"{n_edges} edges do not fit into a capacity of {capacity}"):
        buffers.check()


@devices
def test_batches_and_halves_and_what_was_held_before(device):
    positions, cells, pbc, first = batch_of([structure(s, n, PBC[s], device=device) for s, n in enumerate([4, 0, 6])])
    buffers = ops.NeighborBuffers(10, 4000, n_structures=3, want=NAMES[:3], dtype=torch.float64, device=device)
    for cutoff, half in ((2.5, False), (1.5, True), (1.5, False)):
        buffers.update(positions, cells, pbc, cutoff, first_atom=first, half=half)
        expected = searched((positions, cells, pbc, cutoff), NAMES[:3], first_atom=first, half=half)
        assert_holds(buffers, expected, len(expected.senders))


@devices
def test_bad_input_gets_a_sentence(device):
    positions, cell, pbc = structure(2, 5, (True, True, True), device=device)
    buffers = ops.NeighborBuffers(5, 100, want=["reverse"], dtype=torch.float64, device=device)
    with pytest.raises(ValueError, match=r"positions \(5, 3\) .* of 1 structures, got \(4, 3\)"):
        buffers.update(positions[:4], cell, pbc, 1.0)
    with pytest.raises(ValueError, match=r"float64 on .*, got \(5, 3\) torch.float32"):
        buffers.update(positions.float(), cell.float(), pbc, 1.0)
    with pytest.raises(ValueError, match="half list has no reverse"):
        buffers.update(positions, cell, pbc, 1.0, half=True)
    with pytest.raises(ValueError, match="positive cutoff"):
        buffers.update(positions, cell, pbc, -1.0)
    with pytest.raises(ValueError, match="names out of receivers"):
        ops.NeighborBuffers(5, 100, want=["transposed"], device=device)
    with pytest.raises(ValueError, match="capacity of at least 0"):
        ops.NeighborBuffers(5, -1, device=device)
    positions[3, 1] = torch.nan
    with pytest.raises(ValueError, match="finite positions, got .*nan.* for atom 3"):
        buffers.update(positions, cell, pbc, 1.0)
        buffers.check()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("n_atoms", [50, 2200, pytest.param(5000, marks=pytest.mark.sample("none"))])
def test_a_cuda_graph_makes_the_list_anew(n_atoms):
    """By one block, and by several kernels."""
    torch.manual_seed(0)
    cell = torch.eye(3, device="cuda") * (n_atoms / 0.8) ** (1 / 3)
    pbc = torch.ones(3, dtype=torch.bool, device="cuda")
    positions = torch.rand(n_atoms, 3, device="cuda") * cell[0, 0]
    buffers = ops.NeighborBuffers(n_atoms, 60 * n_atoms, want=NAMES)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        buffers.update(positions, cell, pbc, 1.7)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        buffers.update(positions, cell, pbc, 1.7)
    for _ in range(3):
        positions += 0.3 * torch.randn_like(positions)
        graph.replay()
        expected = searched((positions, cell, pbc, 1.7))
        buffers.check()
        assert_holds(buffers, expected, len(expected.senders))
