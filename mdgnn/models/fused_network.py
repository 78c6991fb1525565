"""SimpleGNN as one node of autograd, forward and backward one call of a kernel each; on the CPU.

On batches of small molecules what torch notes down about an operation takes longer than the operation does. `plain` is
the specification, and has the second derivatives.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from mdgnn._internal.blas import add_linear, linear
from mdgnn.nn import Elements
from mdgnn.ops import EdgeRows, Rows, concat_message_linear, scatter_add, silu
from mdgnn.ops.csr import address
from mdgnn.ops.declaration import gradients_asked_for
from mdgnn.ops.kernels import kernels_for

Weights = Sequence[Tensor]
"""Of a layer, the message's two Linears and the update's: weight and bias of each."""
OF_LAYER, OF_READOUT = 8, 4


class Messages(NamedTuple):
    """What messages go along where no table is, the same for all layers.

    Attributes
    ----------
    edges : EdgeRows
    basis : (E, B)
    envelope : (E,) or None
    """

    edges: EdgeRows
    basis: Tensor
    envelope: Tensor | None

    def n_neighbours(self) -> Tensor:
        """(N, 1): sums of the envelope."""
        rows = Rows(self.edges.by_receiver.row_ptr)
        if self.envelope is None:
            return rows.row_ptr.diff().unsqueeze(1).to(self.basis.dtype)
        return scatter_add(self.envelope[:, None], rows)


def split(weight: Tensor, bias: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The message's first Linear by blocks of its input: for both ends of an edge (2 H, F), with the bias (2 H) counted
    at the receiver, and for the basis (H, B)."""
    for_ends, for_basis = weight[:, : 2 * width], weight[:, 2 * width :]
    return torch.cat(for_ends.chunk(2, dim=1)), torch.cat((torch.zeros_like(bias), bias)), for_basis


def plain(h: Tensor, m: Messages, n_neighbours: Tensor, weights: Weights) -> Tensor:
    """(N, F) -> (N, F): h + U([h, sum of M([h_j, h_i, basis])]), M's second Linear after the sum."""
    w1, b1, w2, b2, u1, c1, u2, c2 = weights
    for_ends, bias, for_basis = split(w1, b1, h.shape[1])
    x = concat_message_linear(m.basis, for_basis, linear(h, for_ends, bias), m.edges, m.envelope)
    total = add_linear(n_neighbours * b2, x, w2)
    return h + linear(silu(linear(torch.cat([h, total], dim=1), u1, c1)), u2, c2)


def fused(m: Messages, types: Tensor, elements: Elements, embedding: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Features (N, F) and energies (N,) in float64.

    Parameters
    ----------
    m : Messages
    types : (N,)
        Rows of the embedding.
    elements : Elements
        Shift and scale of energies.
    embedding : (A, F)
    weights : sequence of Tensor
        Of each layer, then the readout's two Linears.

    Raises
    ------
    IndexError
        For a type without a row.
    """
    constants = _Constants(m.edges, types.contiguous(), elements)
    return _Network.apply(constants, m.basis, m.envelope, embedding, *weights)  # type: ignore[no-any-return, no-untyped-call]


def suits(m: Messages, types: Tensor, embedding: Tensor, weights: Weights) -> bool:
    """Whether `fused` can take the place of `plain`: contiguous arrays on the CPU, all layers as wide as features."""
    basis = m.basis
    if not isinstance(basis, Tensor) or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    width, bias = embedding.shape[1], (embedding.shape[1],)
    if m.envelope is not None and (m.envelope.shape, m.envelope.dtype) != (basis.shape[:1], basis.dtype):
        return False  # `plain` says so
    square, n_layers = (width, width), (len(weights) - OF_READOUT) // OF_LAYER
    of_layer = [(width, 2 * width + basis.shape[1]), bias, square, bias, (width, 2 * width), bias, square, bias]
    return (
        n_layers > 0
        and [w.shape for w in weights] == [*of_layer * n_layers, square, bias, (1, width), (1,)]
        and {t.dtype for t in weights} == {basis.dtype} == {embedding.dtype}
        and m.edges.checked[1:] == (len(types), len(basis))
        and {t.is_cpu and t.is_contiguous() for t in (m.envelope, basis, embedding, *weights) if t is not None}
        == {True}
    )


class _Constants(NamedTuple):
    """What is not differentiated."""

    edges: EdgeRows
    types: Tensor
    elements: Elements

    def network(self, basis: Tensor, envelope: Tensor | None, embedding: Tensor) -> tuple[Any, ...]:
        """What the kernels take of all but the weights."""
        by_receiver, by_sender = self.edges.addresses
        arrays = self.types, embedding, basis, envelope, self.elements.shift, self.elements.scale
        return by_receiver[:4], by_sender[:4], (*embedding.shape, *basis.shape), [address(a) for a in arrays]


class _Network(Function):
    @staticmethod
    def forward(
        ctx: Any, constants: _Constants, basis: Tensor, envelope: Tensor | None, embedding: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        n, width, (kernels, context) = len(constants.types), embedding.shape[1], kernels_for(basis)
        features, energies = basis.new_empty(n, width), basis.new_empty(n, dtype=torch.float64)
        saved = basis.new_empty(kernels.simple_gnn_saved(n, width, len(weights)))
        kernels.simple_gnn(
            basis.element_size(),
            constants.network(basis, envelope, embedding),
            [w.data_ptr() for w in weights],
            address(features),
            address(energies),
            address(saved),
            True in ctx.needs_input_grad,
            context[0],
        )
        ctx.constants = constants
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(features, saved, basis, envelope, embedding, *weights)
        return features, energies

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        constants, (features, saved, *inputs) = ctx.constants, ctx.saved_tensors
        needs_grad = ctx.needs_input_grad[1:]
        if needs_grad[0] or needs_grad[1]:  # forces: not of weights, which may have gradients too
            needs_grad = gradients_asked_for(ctx, 1, inputs)
        if torch.is_grad_enabled():  # a derivative of this one is wanted
            needed = [t for t, needs in zip(inputs, needs_grad, strict=True) if needs]
            pairs = [(t, g) for t, g in zip(_one_by_one(constants, *inputs), grads, strict=True) if g is not None]
            outputs, of_outputs = zip(*pairs, strict=True)
            results = iter(torch.autograd.grad(outputs, needed, of_outputs, create_graph=True))
            return None, *(next(results) if needs else None for needs in needs_grad)
        basis, envelope, embedding, *weights = inputs
        out = [torch.empty_like(t) if needs else None for t, needs in zip(inputs, needs_grad, strict=True)]
        basis_grad, envelope_grad, embedding_grad, *weight_grads = map(address, out)
        kernels, context = kernels_for(basis)
        given = [None if g is None else g.contiguous() for g in grads]
        kernels.simple_gnn_backward(
            basis.element_size(),
            constants.network(basis, envelope, embedding),
            [w.data_ptr() for w in weights],
            [address(t) for t in (features, *given)],
            address(saved),
            (embedding_grad, basis_grad, envelope_grad),
            weight_grads,
            context[0],
        )
        return None, *out


def _one_by_one(
    constants: _Constants, basis: Tensor, envelope: Tensor | None, embedding: Tensor, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same by `plain`."""
    m, types, elements = Messages(constants.edges, basis, envelope), constants.types, constants.elements
    h, n_neighbours = F.embedding(types, embedding), m.n_neighbours()
    *of_layers, o1, p1, o2, p2 = weights
    for k in range(0, len(of_layers), OF_LAYER):
        h = plain(h, m, n_neighbours, of_layers[k : k + OF_LAYER])
    network = (silu(linear(h, o1, p1)) * o2).sum(dim=1) + p2
    return h, elements.energies(types, network)
