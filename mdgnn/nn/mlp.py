"""Multilayer perceptrons."""

import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn.ops import silu


def mlp(n_in: int, n_hidden: int, n_out: int) -> nn.Sequential:
    """Linear, SiLU, Linear."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_out))


def linears(layers: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    """The two Linear layers of the result of `mlp`; quicker than indexing it."""
    first, _, second = layers
    return first, second  # type: ignore[return-value]


def apply_mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """`layers(x)` for the result of `mlp`, with our `silu`, and without the cost of four module calls."""
    first, second = linears(layers)
    hidden = silu(F.linear(x, first.weight, first.bias))
    if second.out_features > 1:
        return F.linear(hidden, second.weight, second.bias)
    # BLAS gives products with a single column other bits for other numbers of threads.
    return (hidden * second.weight).sum(dim=1, keepdim=True) + second.bias
