"""SimpleGNN's energies as one node of autograd, for training on energies alone: what its kernels leave to do.

On batches of small molecules what torch notes down about an operation takes longer than the operation does. Nothing
that depends on positions is differentiated here.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from mdgnn.nn import Elements
from mdgnn.ops import EdgeRows, LayerWeights, message_passing_layer, mlp
from mdgnn.ops.message_passing_layer import MESSAGE_PASSING_LAYER, Static, backward, forward
from mdgnn.ops.mlp import STATIC as MLP_STATIC
from mdgnn.ops.mlp import backward as mlp_backward
from mdgnn.ops.mlp import forward as mlp_forward

_OF_LAYER, _OF_READOUT = len(LayerWeights._fields), 4  # weights
_SAVED = 1 + len(MESSAGE_PASSING_LAYER.saved)


class Messages(NamedTuple):
    """What messages go along where no table is, the same for all layers.

    Attributes
    ----------
    edges : EdgeRows
    basis : (E, B)
    envelope : (E,) or None
    n_neighbours : (N, 1)
        Sums of the envelope.
    """

    edges: EdgeRows
    basis: Tensor
    envelope: Tensor | None
    n_neighbours: Tensor


class Atoms(NamedTuple):
    """Types (N,), and what has the shift and scale of their energies."""

    types: Tensor
    elements: Elements


def energies_in_one_node(
    atoms: Atoms, m: Messages, embedding: Tensor, layers: list[LayerWeights], readout: tuple[Tensor, ...]
) -> Tensor:
    """(N,) in float64, with nothing differentiated but the weights; on the CPU.

    Parameters
    ----------
    atoms : Atoms
    m : Messages
    embedding : (n_types, F)
    layers : list of LayerWeights
    readout : tuple of Tensor
        Of `mdgnn.ops.mlp`.
    """
    weights = [tensor for layer in layers for tensor in layer]
    return _Energies.apply(atoms, m, embedding, *weights, *readout)  # type: ignore[no-any-return, no-untyped-call]


class _Energies(Function):
    @staticmethod
    def forward(ctx: Any, atoms: Atoms, m: Messages, embedding: Tensor, *weights: Tensor) -> Tensor:
        h: Any = embedding.index_select(0, atoms.types)
        m = m._replace(n_neighbours=m.n_neighbours.squeeze(1))
        through = list[Any]()
        for k in range(0, len(weights) - _OF_READOUT, _OF_LAYER):
            given = (h, m.basis, m.n_neighbours, m.envelope, *weights[k : k + _OF_LAYER])
            out, *saved = forward(Static(m.edges), given, _flags(ctx, k))
            through += [h, *saved]
            h = out
        network, hidden = mlp_forward(MLP_STATIC, (h, *weights[-_OF_READOUT:]), (True,) * 5)
        ctx.atoms, ctx.m = atoms, m
        ctx.save_for_backward(embedding, *weights, *through, h, hidden)
        energies: Any = network.squeeze(1)  # type: ignore[union-attr]
        if atoms.elements.has_neither:
            return energies.to(torch.float64)  # type: ignore[no-any-return]
        return atoms.elements.energies(atoms.types, energies)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        atoms, m, needs_grad = ctx.atoms, ctx.m, ctx.needs_input_grad[2:]
        n, n_layers = len(needs_grad), (len(needs_grad) - 1 - _OF_READOUT) // _OF_LAYER
        embedding, *weights = ctx.saved_tensors[:n]
        *through, h, hidden = ctx.saved_tensors[n:]
        if torch.is_grad_enabled():  # a derivative of this one is wanted
            energies = _one_by_one(atoms, m, embedding, weights)
            trained = [t for t, needs in zip((embedding, *weights), needs_grad, strict=True) if needs]
            grads = iter(torch.autograd.grad(energies, trained, grad, create_graph=True))
            return None, None, *(next(grads) if needs else None for needs in needs_grad)
        if not atoms.elements.has_neither:
            grad = grad * atoms.elements.scale.index_select(0, atoms.types)
        of_network = grad.to(h.dtype).unsqueeze(1)
        readout = (h, *weights[-_OF_READOUT:])
        needs_readout = (True, *needs_grad[-_OF_READOUT:])
        of_h, *of_weights = mlp_backward(MLP_STATIC, (of_network,), readout, (hidden,), needs_readout)
        for layer in reversed(range(n_layers)):
            k = layer * _OF_LAYER
            before, *saved = through[_SAVED * layer : _SAVED * (layer + 1)]
            given = (before, m.basis, m.n_neighbours, m.envelope, *weights[k : k + _OF_LAYER])
            of_h, _, _, _, *own = backward(Static(m.edges), (of_h,), given, saved, _flags(ctx, k))  # type: ignore[arg-type]
            of_weights = own + of_weights
        of_embedding = None
        if needs_grad[0]:
            of_embedding = torch.ops.aten.embedding_dense_backward(of_h, atoms.types, len(embedding), -1, False)
        return None, None, of_embedding, *of_weights


def _flags(ctx: Any, k: int) -> tuple[bool, ...]:
    """Which inputs of the layer whose weights begin at k need a gradient: its h always, for what is before it."""
    return True, False, False, False, *ctx.needs_input_grad[3 + k : 3 + k + _OF_LAYER]


def _one_by_one(atoms: Atoms, m: Messages, embedding: Tensor, weights: list[Tensor]) -> Tensor:
    """The same by the operations it consists of; `m` as the node has it."""
    h = F.embedding(atoms.types, embedding)
    for k in range(0, len(weights) - _OF_READOUT, _OF_LAYER):
        layer = LayerWeights(*weights[k : k + _OF_LAYER])
        h = message_passing_layer(h, m.basis, m.edges, m.envelope, m.n_neighbours, layer)
    return atoms.elements.energies(atoms.types, mlp(h, *weights[-_OF_READOUT:]).squeeze(1))
