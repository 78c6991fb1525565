"""All ops: what their declarations say, float32

Forward and backward for all inputs, on the arguments that an op's own example makes: 561 atoms, 62,000 edges between
random ones, 32 features.
"""

import pytest
import torch

from mdgnn.ops import OPS
from mdgnn.ops.declaration import as_tuple
from mdgnn.ops.examples import Example

N_ATOMS, N_EDGES, WIDTH = 561, 62_000, 32


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_ops(timed, op):
    static, inputs = op.example(Example(N_ATOMS, N_EDGES, WIDTH, dtype=torch.float32))
    given = [
        x.requires_grad_() for x, array in zip(inputs, op.inputs, strict=True) if x is not None and array.differentiable
    ]

    def run(function):
        results = [t for t in as_tuple(function(*op.arguments(static, *inputs))) if t is not None]
        return *results, *torch.autograd.grad(results, given, [torch.ones_like(t) for t in results])

    timed({"ours": lambda: run(op.function), "reference": lambda: run(op.reference)}, op.name, N_ATOMS, N_EDGES)
