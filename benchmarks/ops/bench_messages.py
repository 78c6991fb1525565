"""Messages: ops on the edges of clusters, float32

concat_message (32 features) and edge_basis (16 Gaussians): forward and backward. Ops with a table: the kernels alone,
forward, or backward for features and distances, as in energies and forces. Beside them stands `arithmetic`: a matrix
product with as many multiply-adds as the formulas of edges have, vectorised; an exp counts as 14, a division as 4. That
or the cache is what binds a kernel: MB moved are the bytes of tables and features that edges read, most of them from
there.
"""

from importlib import import_module

import pytest
import torch
from clusters import CUTOFF, SIZES, displaced, graph

from mdgnn.ops import OPS

MODULES = {name: import_module(f"mdgnn.ops.{name}") for name in ("concat_message", "edge_basis")}


@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("op", list(MODULES))
def test_message_ops(timed, op, n_atoms):
    g = graph(n_atoms)
    torch.manual_seed(0)
    if op == "concat_message":
        inputs = [torch.randn(g.n_edges, 32, requires_grad=True), torch.randn(n_atoms, 64, requires_grad=True)]
        more, grad = (g.edges,), torch.randn(n_atoms, 32)
    else:
        inputs = [g.vectors.float().requires_grad_()]
        more, grad = (torch.linspace(0.5, 5.0, 16), 0.5), torch.randn(g.n_edges, 16)

    def run(function):
        out = function(*inputs, *more)
        out = out if op == "concat_message" else out[1]
        return out, *torch.autograd.grad(out, inputs, grad)

    module = MODULES[op]
    functions = {"ours": lambda: run(getattr(module, op)), "reference": lambda: run(module.reference)}
    timed(functions, op, n_atoms, g.n_edges)


# Multiply-adds per edge and feature, forward and backward; columns of the table per feature; numbers that are read or
# written per edge and feature beside the table, forward and backward.
WITH_TABLE = {
    "concat_message_table": ((30, 35), 1, (1, 2)),
    "cfconv": ((4, 9), 1, (1, 1)),
    "painn_message": ((19, 39), 3, (6, 4)),
}


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize(("op", "width"), [("concat_message_table", 32), ("cfconv", 64), ("painn_message", 64)])
def test_kernels_with_a_table(timed, op, width, way):
    g = displaced(561)
    torch.manual_seed(0)
    operations, columns, numbers = WITH_TABLE[op]
    table = torch.randn(512, 4, columns * width + (op == "concat_message_table"))
    r = g.vectors.norm(dim=1).float()
    inputs = {
        "concat_message_table": lambda: [torch.randn(561, 2 * width), table, r],
        "cfconv": lambda: [torch.randn(561, width), table, r],
        "painn_message": lambda: [
            *(torch.randn(561, 3 * width), torch.randn(561, 3, width), table, r),
            torch.nn.functional.normalize(g.vectors, dim=1).float(),
        ],
    }[op]()
    declared = next(o for o in OPS if o.name == op)
    static, needs_grad = declared.static(g.edges, CUTOFF), [x is not table for x in inputs]
    results, n_outputs = declared.forward(static, inputs, needs_grad), len(declared.outputs)
    grads, saved = [torch.randn_like(x) for x in results[:n_outputs]], results[n_outputs:]
    a, n = torch.randn(width, 512), operations[way == "backward"] * g.n_edges // 512
    b = torch.randn(512, n)  # width x 512 x n multiplications
    functions = {
        "ours": lambda: (
            declared.forward(static, inputs, needs_grad)
            if way == "forward"
            else declared.backward(static, grads, inputs, saved, needs_grad)
        ),
        "arithmetic": lambda: a @ b,
    }
    moved = g.n_edges * 4 * (4 * table.shape[2] + numbers[way == "backward"] * width)
    timed(functions, f"{op}, F={width}, {way}", 561, g.n_edges, moved)
