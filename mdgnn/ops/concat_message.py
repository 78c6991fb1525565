"""concat_message: the message of SimpleGNN after splitting its first Linear by blocks, summed over neighbours.

``out[i] = sum_k envelope[k] * silu(edge_part[k] + ends[sender(k), :H] + ends[i, H:])`` over the edges k of receiver i.

Of size edges x features the derivatives save the input edge_part alone: its sum with the ends is computed again. A
third derivative is refused.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdgnn.ops.csr import EdgeRows, Rows
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous, empty_like
from mdgnn.ops.examples import Example
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.scatter_add import gather_receivers, gather_senders, scatter_add
from mdgnn.ops.silu import silu


class Static(NamedTuple):
    edges: EdgeRows


def add_ends(ends: Tensor, edges: EdgeRows) -> Tensor:
    """(N, 2 H) -> (E, H): ``ends[senders, :H] + ends[receivers, H:]``; the derivative is a sum over rows."""
    if ends.ndim != 2 or ends.shape[0] != edges.n_atoms or ends.shape[1] % 2:
        raise ValueError(f"expected ends of shape ({edges.n_atoms}, 2 H), got {tuple(ends.shape)}")
    sent, received = ends.chunk(2, dim=1)
    return gather_senders(sent, edges) + gather_receivers(received, edges)


def reference(edge_part: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None = None) -> Tensor:
    """The specification, differentiable as often as `scatter_add` and `silu` are."""
    return scatter_add(silu(edge_part + add_ends(ends, edges)), Rows(edges.by_receiver.row_ptr), envelope)


def concat_message(edge_part: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None = None) -> Tensor:
    """Sum of messages over each receiver's edges, in order.

    Parameters
    ----------
    edge_part : (E, H) float32 or float64
        What a message gets from its edge.
    ends : (N, 2 H)
        What it gets from its ends: columns :H of its sender's row and H: of its receiver's.
    edges : EdgeRows
    envelope : (E,), optional
        What each message is multiplied with.

    Returns
    -------
    (N, H)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    out: Tensor
    (out,) = CONCAT_MESSAGE(Static(edges), edge_part, ends, envelope)
    return out


# --- the kernels: inputs are edge_part, ends, envelope; there is one output -------------------------------------------


def _contiguous(edge_part: Tensor, ends: Tensor, envelope: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of edge_part only the rows must be, so that it may be a block of columns of something larger."""
    edge_part = edge_part if edge_part.stride(1) == 1 else edge_part.contiguous()
    return edge_part, ends.contiguous(), None if envelope is None else envelope.contiguous()


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Tensors:
    """The sums (N, H); no graph is recorded."""
    (edge_part, ends, envelope), rows = _contiguous(*inputs), static.edges.by_receiver.addresses
    out = edge_part.new_empty(rows[3], edge_part.shape[1])
    kernels, context = kernels_for(out)
    kernels.concat_message(
        itemsize=out.element_size(),
        rows=rows,
        columns=static.edges.numbers_by_sender.addresses,
        edge_part=edge_part,
        edge_stride=edge_part.stride(0),
        ends=ends,
        envelope=envelope,
        out=out,
        context=context,
    )
    return (out,)


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradients of edge_part, ends and envelope, as `needs_grad`; no graph is recorded."""
    grad, (edge_part, ends, envelope) = grads[0].contiguous(), _contiguous(*inputs)
    out_edge = edge_part.new_empty(edge_part.shape)  # which the kernel always writes
    out_ends = torch.empty_like(ends) if needs_grad[1] else None
    out_envelope = torch.empty_like(envelope) if envelope is not None and needs_grad[2] else None
    kernels, context = kernels_for(grad)
    kernels.concat_message_backward(
        itemsize=grad.element_size(),
        rows=static.edges.by_receiver.addresses,
        columns=static.edges.numbers_by_sender.addresses,
        edge_part=edge_part,
        edge_stride=edge_part.stride(0),
        ends=ends,
        envelope=envelope,
        grad=grad,
        out_edge_part=out_edge,
        out_ends=out_ends,
        out_envelope=out_envelope,
        context=context,
    )
    return out_edge if needs_grad[0] else None, out_ends, out_envelope


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The gradient of ``<grad2, backward(grad, ...)>`` for grad, edge_part, ends and envelope, as `needs_grad`."""
    by_edge, by_ends, by_envelope = contiguous(grad2)
    (grad,), (edge_part, ends, envelope) = contiguous(grads), _contiguous(*inputs)
    out_grad, out_edge = torch.empty_like(grad), edge_part.new_empty(edge_part.shape)  # always written
    out_ends, out_envelope = empty_like((ends, envelope), needs_grad[2:])
    kernels, context = kernels_for(grad)
    kernels.concat_message_double_backward(
        itemsize=grad.element_size(),
        rows=static.edges.by_receiver.addresses,
        columns=static.edges.numbers_by_sender.addresses,
        edge_part=edge_part,
        edge_stride=edge_part.stride(0),
        ends=ends,
        envelope=envelope,
        grad=grad,
        grad2_edge_part=by_edge,
        grad2_ends=by_ends,
        grad2_envelope=by_envelope,
        out_grad=out_grad,
        out_edge_part=out_edge,
        out_ends=out_ends,
        out_envelope=out_envelope,
        context=context,
    )
    return out_grad if needs_grad[0] else None, out_edge if needs_grad[1] else None, out_ends, out_envelope


def _arguments(static: Static, edge_part: Tensor, ends: Tensor, envelope: Tensor | None) -> tuple[Any, ...]:
    return edge_part, ends, static.edges, envelope


def _example(e: Example) -> tuple[Static, tuple[Tensor | None, ...]]:
    envelope = e.uniform(e.n_edges) if e.option("envelope", True) else None
    return Static(e.edges()), (e.normal(e.n_edges, e.width), e.normal(e.n_atoms, 2 * e.width), envelope)


CONCAT_MESSAGE = Op(
    "concat_message",
    "out[i] = sum_k envelope[k] silu(edge_part[k] + ends[j, :H] + ends[i, H:])",
    concat_message,
    reference,
    _arguments,
    Static,
    inputs=(Array("edge_part", "E H"), Array("ends", "N 2H"), Array("envelope", "E", optional=True)),
    outputs=(Array("out", "N H"),),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    options=({"envelope": True}, {"envelope": False}),
    source="the lecture's network",
)
