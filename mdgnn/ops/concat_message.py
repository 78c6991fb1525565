"""concat_message: the message of SimpleGNN after splitting its first Linear, summed over neighbours.

``out[i] = sum_e weight[e] * silu(edge_part[e] + h_sent[sender(e)] + h_received[i])`` over the edges e of receiver i.

It has no kernel of its own yet: it chains those of `scatter_add` in one autograd node, which keeps one array of size
edges x features instead of four and halves the overhead of small systems. Its own kernel takes this place later.
"""

from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.csr import Rows
from mdgnn.ops.scatter_add import backward, forward, scatter_add
from mdgnn.ops.silu import backward as silu_backward
from mdgnn.ops.silu import silu


def reference(
    edge_part: Tensor, ends: Tensor, both: tuple[Rows, Rows], by_receiver: Rows, weight: Tensor | None
) -> Tensor:
    """The specification, differentiable as often as `scatter_add` is."""
    x = edge_part + scatter_add(ends, both[0], columns=both[1])
    return scatter_add(silu(x), by_receiver, weight)


def concat_message(
    edge_part: Tensor, ends: Tensor, both: tuple[Rows, Rows], by_receiver: Rows, weight: Tensor | None = None
) -> Tensor:
    """Sum of messages over each receiver's edges, in order.

    Parameters
    ----------
    edge_part : (E, H)
        What a message gets from its edge.
    ends : (2 N, H)
        What it gets from its ends: row 2 j from sender j, row 2 i + 1 from receiver i.
    both : (Rows, Rows)
        For each edge, its two rows of `ends`; and the edges of each row of `ends`.
    by_receiver : Rows
        The edges of each receiver, in order (no index).
    weight : (E,), optional

    Returns
    -------
    (N, H)
    """
    if torch.compiler.is_compiling():
        return reference(edge_part, ends, both, by_receiver, weight)
    if weight is not None and weight.dtype != edge_part.dtype:
        raise ValueError(f"expected weight in {edge_part.dtype}, got {weight.dtype}")
    return _ConcatMessage.apply(edge_part, ends, both, by_receiver, weight)  # type: ignore[no-any-return, no-untyped-call]


class _ConcatMessage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, edge_part: Tensor, ends: Tensor, both: tuple[Rows, Rows], by_receiver: Rows, weight: Tensor | None
    ) -> Tensor:
        x = forward(ends, both[0], None, "sum")[0].add_(edge_part)
        ctx.both, ctx.by_receiver = both, by_receiver
        ctx.save_for_backward(edge_part, ends, weight, x)
        return forward(silu(x), by_receiver, weight, "sum")[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        edge_part, ends, weight, x = ctx.saved_tensors
        need = ctx.needs_input_grad
        if torch.is_grad_enabled():  # to be differentiated again: repeat the forward as a chain of operators
            wanted = (need[0], need[1], need[4])
            inputs = [t for t, w in zip((edge_part, ends, weight), wanted, strict=True) if w]
            out = reference(edge_part, ends, ctx.both, ctx.by_receiver, weight)
            found = iter(torch.autograd.grad(out, inputs, grad, create_graph=True))
            return tuple(next(found) if w else None for w in need)
        values = silu(x) if need[4] else x  # they matter for the weight's gradient alone
        g, grad_weight = backward(grad, values, ctx.by_receiver, weight, wanted=(True, need[4]))
        assert g is not None
        g = silu_backward(g, x)
        grad_ends = forward(g, ctx.both[1], None, "sum")[0] if need[1] else None
        return g, grad_ends, None, None, grad_weight
