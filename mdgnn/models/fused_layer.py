"""SimpleGNN's layer as one node of autograd, for training on energies: the derivative for weights is written by hand.

With a few hundred atoms what torch notes down about a dozen operations takes longer than these do. Nothing that depends
on positions is differentiated here: forces are trained through `plain`, which is the specification.
"""

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from mdgnn.ops import EdgeRows, concat_message_linear, silu
from mdgnn.ops.concat_message_linear import Static, backward, forward

Weights = tuple[Tensor, ...]
"""Of the message's two Linears and the update's: weight and bias of each."""


class Messages(NamedTuple):
    """What a layer's messages go along, the same for all layers.

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


def split(weight: Tensor, bias: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The message's first Linear by blocks of its input: for both ends of an edge (2 H, F), with the bias (2 H) counted
    at the receiver, and for the basis (H, B)."""
    for_ends, for_basis = weight[:, : 2 * width], weight[:, 2 * width :]
    return torch.cat(for_ends.chunk(2, dim=1)), torch.cat((torch.zeros_like(bias), bias)), for_basis


def plain(h: Tensor, m: Messages, weights: Weights) -> Tensor:
    """(N, F) -> (N, F): h + U([h, sum of M([h_j, h_i, basis])]), M's second Linear after the sum."""
    w1, b1, w2, b2, u1, c1, u2, c2 = weights
    for_ends, bias, for_basis = split(w1, b1, h.shape[1])
    x = concat_message_linear(m.basis, for_basis, F.linear(h, for_ends, bias), m.edges, m.envelope)
    total = torch.addmm(m.n_neighbours * b2, x, w2.t())
    return h + F.linear(silu(F.linear(torch.cat([h, total], dim=1), u1, c1)), u2, c2)


def fused(h: Tensor, m: Messages, weights: Weights) -> Tensor:
    """`plain`, with nothing differentiated but h and the weights; on the CPU."""
    return _Layer.apply(m, h, *weights)  # type: ignore[no-any-return, no-untyped-call]


def suits(h: Tensor, m: Messages) -> bool:
    """Whether `fused` can take the place of `plain`, and does anything for it."""
    if not isinstance(h, Tensor) or torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return False
    moved = m.basis.requires_grad or (m.envelope is not None and m.envelope.requires_grad)
    return not moved and h.is_cpu and not torch.is_autocast_enabled("cpu")


class _Layer(Function):
    @staticmethod
    def forward(ctx: Any, m: Messages, h: Tensor, *weights: Tensor) -> Tensor:
        w1, b1, w2, b2, u1, c1, u2, c2 = weights
        for_ends, bias, for_basis = split(w1, b1, h.shape[1])
        ends = torch.addmm(bias, h, for_ends.t())
        sums = forward(Static(m.edges), (m.basis, for_basis, ends, m.envelope), (False, True, True, False))
        x, silu_grads = cast(tuple[Tensor, Tensor], sums)
        joint = torch.cat((h, torch.addmm(m.n_neighbours * b2, x, w2.t())), dim=1)
        hidden = torch.addmm(c1, joint, u1.t())
        active = silu(hidden)
        ctx.m = m
        ctx.save_for_backward(h, *weights, for_ends, ends, x, silu_grads, joint, hidden, active)
        return torch.addmm(c2, active, u2.t()).add_(h)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        m: Messages = ctx.m
        h, w1, b1, w2, b2, u1, c1, u2, c2, for_ends, ends, x, silu_grads, joint, hidden, active = ctx.saved_tensors
        if torch.is_grad_enabled():  # a derivative of this one is wanted
            inputs = (h, w1, b1, w2, b2, u1, c1, u2, c2)
            needed = [t for t, needs in zip(inputs, ctx.needs_input_grad[1:], strict=True) if needs]
            grads = iter(torch.autograd.grad(plain(h, m, inputs[1:]), needed, grad, create_graph=True))
            return None, *(next(grads) if needs else None for needs in ctx.needs_input_grad[1:])
        width = h.shape[1]
        grad_hidden = torch.ops.aten.silu_backward(grad.mm(u2), hidden)
        grad_joint = grad_hidden.mm(u1)
        grad_total = grad_joint[:, width:]
        of_message = m.basis, w1[:, 2 * width :], ends, m.envelope
        grads_of_message = backward(
            Static(m.edges), (grad_total.mm(w2),), of_message, (silu_grads,), (False, True, True, False)
        )
        grad_basis, grad_ends = cast(tuple[Tensor, Tensor], grads_of_message[1:3])
        grad_h = torch.addmm(grad_joint[:, :width], grad_ends, for_ends).add_(grad)
        of_weights = (
            torch.cat((*grad_ends.t().mm(h).chunk(2), grad_basis), dim=1),
            grad_ends[:, len(b1) :].sum(0),
            grad_total.t().mm(x),
            m.n_neighbours.t().mm(grad_total).squeeze(0),
            grad_hidden.t().mm(joint),
            grad_hidden.sum(0),
            grad.t().mm(active),
            grad.sum(0),
        )
        return None, grad_h, *of_weights
