"""Multilayer perceptrons."""

from typing import cast

from torch import Tensor, nn

from mdgnn._internal.blas import Linear, linear
from mdgnn.ops import silu


class MLP(nn.Sequential):
    """Linear, activation, Linear: (N, n_in) -> (N, n_out).

    SiLU is `mdgnn.ops.silu`.

    Parameters
    ----------
    n_in, n_hidden, n_out : int
    activation : type of Module
    """

    def __init__(self, n_in: int, n_hidden: int, n_out: int, activation: type[nn.Module] = nn.SiLU):
        super().__init__(Linear(n_in, n_hidden), activation(), Linear(n_hidden, n_out))

    @property
    def first(self) -> nn.Linear:
        return cast(nn.Linear, self._modules["0"])  # at a third of the time of self[0]

    @property
    def last(self) -> nn.Linear:
        return cast(nn.Linear, self._modules["2"])

    @property
    def weights(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weight and bias of both."""
        first, _, last = cast(tuple[nn.Linear, nn.Module, nn.Linear], self._modules.values())
        a, b = first._parameters, last._parameters  # at a fifth of the time of first.weight
        try:
            return a["weight"], a["bias"], b["weight"], b["bias"]  # type: ignore[return-value]
        except KeyError:  # parametrized
            return first.weight, first.bias, last.weight, last.bias

    @property
    def is_silu(self) -> bool:
        """Whether that is the activation."""
        return type(self._modules["1"]) is nn.SiLU

    def forward(self, x: Tensor) -> Tensor:
        first, activation, last = cast(tuple[nn.Linear, nn.Module, nn.Linear], self._modules.values())
        hidden = linear(x, first.weight, first.bias)
        hidden = silu(hidden) if isinstance(activation, nn.SiLU) else activation(hidden)
        if last.out_features > 1:
            return linear(hidden, last.weight, last.bias)
        # BLAS gives products with a single column other bits for other numbers of threads.
        return (hidden * last.weight).sum(dim=1, keepdim=True) + last.bias


def xavier(module: nn.Module) -> None:
    """Draw a Linear's weights anew as in Glorot and Bengio, AISTATS 2010 (uniform), its bias zero; for Module.apply."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
