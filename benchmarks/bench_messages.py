"""Messages: concat_message (32 features) and edge_basis (16 Gaussians), float32, forward and backward"""

from importlib import import_module

import pytest
import torch
from clusters import SIZES, graph

MODULES = {name: import_module(f"mdgnn.ops.{name}") for name in ("concat_message", "edge_basis")}


@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("op", list(MODULES))
def test_message_ops(timed, op, n_atoms):
    g = graph(n_atoms)
    torch.manual_seed(0)
    if op == "concat_message":
        inputs = [torch.randn(g.n_edges, 32, requires_grad=True), torch.randn(n_atoms, 64, requires_grad=True)]
        more, wanted = (g.neighbours, g.by_sender), torch.randn(n_atoms, 32)
    else:
        inputs = [g.vectors.float().requires_grad_()]
        more, wanted = (torch.linspace(0.5, 5.0, 16), 0.5), torch.randn(g.n_edges, 16)

    def run(function):
        out = function(*inputs, *more)
        out = out if op == "concat_message" else out[1]
        return out, *torch.autograd.grad(out, inputs, wanted)

    module = MODULES[op]
    functions = {"ours": lambda: run(getattr(module, op)), "reference": lambda: run(module.reference)}
    timed(functions, op, n_atoms, g.n_edges)
