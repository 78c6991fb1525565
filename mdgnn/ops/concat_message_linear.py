"""concat_message_linear: SimpleGNN's message with the edge's share a linear layer of its features.

``out[i] = sum_k envelope[k] * silu(ends[sender(k), :H] + ends[i, H:] + weight @ features[k])`` over the edges k of
receiver i.

Nothing of size edges x H is stored: forward, backward and double backward evaluate the layer anew. A third derivative
is refused. The kernels are the CPU's; CUDA and torch.compile take the reference, whose product is a library's.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn._internal.blas import with_suitable_rows
from mdgnn.ops.concat_message import concat_message
from mdgnn.ops.csr import EdgeRows
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous, empty_like
from mdgnn.ops.examples import Example
from mdgnn.ops.kernels import kernels_for


class Static(NamedTuple):
    edges: EdgeRows


def reference(
    features: Tensor, weight: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None = None
) -> Tensor:
    """The specification: `concat_message` of an array of edges x H."""
    edge_part = with_suitable_rows(lambda features: F.linear(features, weight), features)
    return concat_message(edge_part, ends, edges, envelope)


def concat_message_linear(
    features: Tensor, weight: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None = None
) -> Tensor:
    """Sum of messages over each receiver's edges, in order.

    Parameters
    ----------
    features : (E, B) float32 or float64
        Of the edges.
    weight : (H, B)
        Of the linear layer that gives what a message gets from its edge.
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
    (out,) = CONCAT_MESSAGE_LINEAR(Static(edges), features, weight, ends, envelope)
    return out


# --- the kernels: inputs are features, weight, ends, envelope; output out; saved: silu_grads (N, H) -------------------


def forward(static: Static, inputs: Optionals, needs_grad: Flags) -> Optionals:
    """The sums (N, H), and the sums of gradients of silu that the derivative for ends is made of."""
    (features, weight, ends, envelope), (rows, columns) = contiguous(inputs), static.edges.addresses
    n, width = rows[3], weight.shape[0]
    out = ends.new_empty(n, width)
    silu_grads = ends.new_empty(n, width) if needs_grad[2] else None
    kernels, context = kernels_for(ends)
    kernels.concat_message_linear(
        itemsize=ends.element_size(),
        rows=rows,
        columns=columns,
        features=features,
        weight=weight,
        ends=ends,
        envelope=envelope,
        silu_grads=None,
        out=out,
        out_silu_grads=silu_grads,
        context=context,
    )
    return out, silu_grads


def backward(static: Static, grads: Tensors, inputs: Optionals, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradients of features, weight, ends and envelope, as `needs_grad`; no graph is recorded."""
    grad, inputs, (rows, columns) = grads[0].contiguous(), contiguous(inputs), static.edges.addresses
    features, weight, ends, envelope = inputs
    input_grads = out_features, out_weight, out_ends, out_envelope = empty_like(inputs, needs_grad)
    kernels, context = kernels_for(grad)
    kernels.concat_message_linear_backward(
        itemsize=grad.element_size(),
        rows=rows,
        columns=columns,
        features=features,
        weight=weight,
        ends=ends,
        envelope=envelope,
        silu_grads=saved[0] if needs_grad[2] else None,
        grad=grad,
        out_features=out_features,
        out_weight=out_weight,
        out_ends=out_ends,
        out_envelope=out_envelope,
        context=context,
    )
    return input_grads


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The gradient of ``<grad2, backward(grad, ...)>`` for grad and the inputs, as `needs_grad`."""
    (grad,), inputs, (rows, columns) = contiguous(grads), contiguous(inputs), static.edges.addresses
    features, weight, ends, envelope = inputs
    by_features, by_weight, by_ends, by_envelope = contiguous(grad2)
    out_grad = torch.empty_like(grad)  # always written
    input_grads = out_features, out_weight, out_ends, out_envelope = empty_like(inputs, needs_grad[1:])
    kernels, context = kernels_for(grad)
    kernels.concat_message_linear_double_backward(
        itemsize=grad.element_size(),
        rows=rows,
        columns=columns,
        features=features,
        weight=weight,
        ends=ends,
        envelope=envelope,
        silu_grads=None,
        grad=grad,
        grad2_features=by_features,
        grad2_weight=by_weight,
        grad2_ends=by_ends,
        grad2_envelope=by_envelope,
        out_grad=out_grad,
        out_features=out_features,
        out_weight=out_weight,
        out_ends=out_ends,
        out_envelope=out_envelope,
        context=context,
    )
    return out_grad if needs_grad[0] else None, *input_grads


def _arguments(
    static: Static, features: Tensor, weight: Tensor, ends: Tensor, envelope: Tensor | None
) -> tuple[Any, ...]:
    return features, weight, ends, static.edges, envelope


def _example(e: Example) -> tuple[Static, tuple[Tensor | None, ...]]:
    envelope = e.uniform(e.n_edges) if e.option("envelope", True) else None
    n_features = 3
    features, weight = e.normal(e.n_edges, n_features), e.normal(e.width, n_features)
    return Static(e.edges()), (features, weight, e.normal(e.n_atoms, 2 * e.width), envelope)


CONCAT_MESSAGE_LINEAR = Op(
    "concat_message_linear",
    "out[i] = sum_k envelope[k] silu(ends[j, :H] + ends[i, H:] + weight @ features[k])",
    concat_message_linear,
    reference,
    _arguments,
    Static,
    inputs=(
        Array("features", "E B"),
        Array("weight", "H B"),
        Array("ends", "N 2H"),
        Array("envelope", "E", optional=True),
    ),
    outputs=(Array("out", "N H"),),
    saved=(Array("silu_grads", "N H"),),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    options=({"envelope": True}, {"envelope": False}),
    devices=("cpu",),
    source="the lecture's network",
)
