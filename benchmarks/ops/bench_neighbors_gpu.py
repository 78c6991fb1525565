"""Neighbour list on a GPU: float32, a random liquid with about 64 neighbours within 6 A

buffers: topology alone into memory that is there, without waiting for the GPU in between. graph: the same from a CUDA
graph. exact: fresh arrays of exact size with shifts, vectors and distances; the host waits once for the count.
"""

import pytest
import torch

from mdgnn import ops

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CUTOFF, NEIGHBOURS = 6.0, 64


@pytest.mark.parametrize("task", ["buffers", "graph", "exact"])
@pytest.mark.parametrize("n_atoms", [128, 2048, 65_536, 1_048_576])
def test_search(timed, n_atoms, task):
    side = (n_atoms * (4 / 3 * torch.pi * CUTOFF**3) / NEIGHBOURS) ** (1 / 3)
    positions = torch.rand(n_atoms, 3, generator=torch.Generator().manual_seed(0)).cuda() * side
    arguments = (positions, torch.eye(3, device="cuda") * side, torch.ones(3, dtype=torch.bool, device="cuda"), CUTOFF)
    n_edges = len(ops.neighbors(*arguments).senders)
    buffers = ops.NeighborBuffers(n_atoms, n_edges, index_dtype=torch.int32)

    def search():
        buffers.update(*arguments)

    def exact():
        return ops.neighbors(*arguments, want=("vectors", "distances"), index_dtype=torch.int32)

    run = {"buffers": search, "graph": None, "exact": exact}[task] or captured(search)

    def call():
        run()
        torch.cuda.synchronize()

    moved = n_edges * (16 if task != "exact" else 32)
    timed({"ours": call}, task, n_atoms, n_edges, moved)


def captured(function):
    """The function as a CUDA graph."""
    side_stream = torch.cuda.Stream()
    with torch.cuda.stream(side_stream):
        function()
    side_stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph.replay
