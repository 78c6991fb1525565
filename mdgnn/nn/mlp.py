"""Multilayer perceptrons."""

import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn.ops import silu


def mlp(n_in: int, n_hidden: int, n_out: int, activation: type[nn.Module] = nn.SiLU) -> nn.Sequential:
    """Linear, activation, Linear."""
    return nn.Sequential(nn.Linear(n_in, n_hidden), activation(), nn.Linear(n_hidden, n_out))


def xavier(module: nn.Module) -> None:
    """Draw a Linear's weights anew as in Glorot and Bengio, AISTATS 2010 (uniform), its bias zero; for Module.apply."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def linears(layers: nn.Sequential) -> tuple[nn.Linear, nn.Linear]:
    """The two Linear layers of the result of `mlp`; quicker than indexing it."""
    first, _, second = layers
    return first, second  # type: ignore[return-value]


def apply_mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    """`layers(x)` for the result of `mlp` with SiLU, by our `silu`, and without the cost of four module calls."""
    first, second = linears(layers)
    hidden = silu(F.linear(x, first.weight, first.bias))
    if second.out_features > 1:
        return F.linear(hidden, second.weight, second.bias)
    # BLAS gives products with a single column other bits for other numbers of threads.
    return (hidden * second.weight).sum(dim=1, keepdim=True) + second.bias
