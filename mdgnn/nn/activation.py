"""Activation functions."""

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.dual import DERIVATIVES, sigmoid


def shifted_softplus(x: Tensor) -> Tensor:
    """``log(1 + exp(x)) - log(2)``, elementwise (Schuett et al., J. Chem. Phys. 148, 241722, 2018).

    Written with log sigmoid(-x), because the bits of torch's softplus depend on the number of threads. Those of the
    second derivative, which training on forces takes, do so here too.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(shifted_softplus, (x,), x)
    return -F.logsigmoid(-x) - math.log(2)


DERIVATIVES[shifted_softplus] = lambda x, y: sigmoid(x)


class ShiftedSoftplus(nn.Module):
    """`shifted_softplus` as a layer."""

    def forward(self, x: Tensor) -> Tensor:
        return shifted_softplus(x)
