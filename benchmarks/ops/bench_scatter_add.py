"""scatter_add: sum into receivers, float32

gather: rows of the senders, weighted per edge. messages: rows of the edges, already sorted by receiver. The row
permutations are prepared, as a graph keeps them. Bytes moved count every array once: what no kernel can avoid.
"""

import importlib

import pytest
import torch
from clusters import LARGE_SIZES, SIZES, graph

from mdgnn.ops import Rows, rows_by, scatter_add

reference = importlib.import_module("mdgnn.ops.scatter_add").reference  # the package exports the function by this name
no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("n_features", [32, 64])
@pytest.mark.parametrize("task", ["gather", "messages"])
def test_scatter_add(timed, task, n_features, backward, n_atoms):
    compare(timed, task, n_features, backward, n_atoms, "cpu")


@no_cuda
@pytest.mark.gpu
@pytest.mark.parametrize("n_atoms", LARGE_SIZES)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("n_features", [32, 64])
@pytest.mark.parametrize("task", ["gather", "messages"])
def test_scatter_add_cuda(timed, task, n_features, backward, n_atoms):
    compare(timed, task, n_features, backward, n_atoms, "cuda")


def compare(timed, task, n_features, backward, n_atoms, device):
    g = graph(n_atoms).to(device)
    n_values = n_atoms if task == "gather" else g.n_edges
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(n_values, n_features, generator=generator).to(device)
    cotangent = torch.randn(n_atoms, n_features, generator=generator).to(device)
    rows, weight, columns = Rows(g.row_ptr), None, None
    if task == "gather":
        rows = Rows(g.row_ptr, g.senders)
        weight = torch.rand(g.n_edges, generator=generator).to(device)
        columns = rows_by(g.senders, n_atoms, g.receivers)
    inputs = [values] if weight is None else [values, weight]

    def call(function, **options):
        if not backward:
            result = (function(values, rows, weight, **options),)
        else:
            for x in inputs:
                x.requires_grad_()
            out = function(values, rows, weight, **options)
            result = (out.detach(), *torch.autograd.grad(out, inputs, cotangent))
        if device == "cuda":
            torch.cuda.synchronize()
        return result

    functions = {"ours": lambda: call(scatter_add, columns=columns), "reference": lambda: call(reference)}
    for ours, theirs in zip(functions["ours"](), functions["reference"](), strict=True):
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()
    moved = traffic(task, n_features, backward, n_atoms, g.n_edges) if device == "cuda" else None
    name = f"{task} F={n_features} {'forward+backward' if backward else 'forward'}"
    timed(functions, name, n_atoms, g.n_edges, moved)


def traffic(task, n_features, backward, n_atoms, n_edges):
    """Bytes that have to be read or written, each array once: features and weights float32, indices int64."""
    n_values = n_atoms if task == "gather" else n_edges
    per_row, row_ptr = 4 * n_features, 8 * (n_atoms + 1)
    moved = n_values * per_row + row_ptr + n_atoms * per_row  # read the values, write the sums
    if task == "gather":
        moved += n_edges * (8 + 4)  # index and weight
    if backward:
        moved += n_atoms * per_row + row_ptr + n_values * per_row  # read dE/d(sums), write dE/d(values)
        if task == "gather":
            moved += n_edges * (8 + 8 + 4)  # the transpose: index, edge and weight
            moved += n_values * per_row + row_ptr + n_edges * (8 + 4)  # values and index give dE/d(weight)
    return moved
