"""message_passing_layer: a layer of SimpleGNN, messages and residual update, in one call.

With M1, m1, M2, m2 the weights and biases of the message's network, U1, u1, U2, u2 those of the update's::

    x[k] = M1 @ (h[sender], h[receiver], features[k]) + m1         for each edge k
    total[i] = M2 @ sum_k envelope[k] silu(x[k]) + n_neighbours[i] m2    over the edges k of receiver i
    out[i] = h[i] + U2 @ silu(U1 @ (h[i], total[i]) + u1) + u2

On a few hundred atoms the overhead of a dozen operators, and of as many again in each backward, is several times their
arithmetic. The kernels are the CPU's, forward and backward; second derivatives are those of the reference, which CUDA
and torch.compile take, too. A third derivative is refused.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn.ops.concat_message_linear import concat_message_linear
from mdgnn.ops.csr import EdgeRows
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, by_reference, contiguous, empty_like
from mdgnn.ops.examples import Example
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.silu import silu


class Static(NamedTuple):
    edges: EdgeRows


class LayerWeights(NamedTuple):
    """Of the message's network (H, 2 F + B), (H,), (K, H), (K,), of the update's (G, F + K), (G,), (F, G), (F,)."""

    message_1: Tensor
    message_bias_1: Tensor
    message_2: Tensor
    message_bias_2: Tensor
    update_1: Tensor
    update_bias_1: Tensor
    update_2: Tensor
    update_bias_2: Tensor


def split_by_input(weight: Tensor, bias: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The message's first layer by blocks of its input: for both ends of an edge, with as many features as `width`
    (2 H, F), with the bias (2 H) counted at the receiver, and for the features of the edge (H, B)."""
    for_ends, for_features = weight[:, : 2 * width], weight[:, 2 * width :]
    return torch.cat(for_ends.chunk(2, dim=1)), torch.cat((torch.zeros_like(bias), bias)), for_features


def reference(
    h: Tensor,
    features: Tensor,
    edges: EdgeRows,
    envelope: Tensor | None,
    n_neighbours: Tensor,
    weights: LayerWeights,
) -> Tensor:
    """The specification, by `concat_message_linear`: a product for h at the ends of edges costs one an atom."""
    w = weights
    for_ends, bias, for_features = split_by_input(w.message_1, w.message_bias_1, h.shape[1])
    sums = concat_message_linear(features, for_features, F.linear(h, for_ends, bias), edges, envelope)
    total = torch.addmm(n_neighbours.unsqueeze(1) * w.message_bias_2, sums, w.message_2.t())
    hidden = F.linear(torch.cat([h, total], dim=1), w.update_1, w.update_bias_1)
    return h + F.linear(silu(hidden), w.update_2, w.update_bias_2)


def message_passing_layer(
    h: Tensor,
    features: Tensor,
    edges: EdgeRows,
    envelope: Tensor | None,
    n_neighbours: Tensor,
    weights: LayerWeights,
) -> Tensor:
    """New features of atoms from their own and the messages that they receive.

    Parameters
    ----------
    h : (N, F) float32 or float64
        Features of atoms.
    features : (E, B)
        Of the edges.
    edges : EdgeRows
    envelope : (E,) or None
        What each message is multiplied with.
    n_neighbours : (N,)
        The sum of `envelope` over each atom's edges, or their number.
    weights : LayerWeights

    Returns
    -------
    (N, F)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    out: Tensor
    (out,) = MESSAGE_PASSING_LAYER(Static(edges), h, features, n_neighbours, envelope, *weights)
    return out


def _check(static: Static, inputs: Optionals) -> None:
    h, features, _, _, message_1, _, message_2, _, update_1, *_ = inputs
    assert h is not None and features is not None and message_1 is not None
    assert message_2 is not None and update_1 is not None
    for name, weight, sizes in (
        ("message_1", message_1, (2 * h.shape[1], features.shape[1])),
        ("update_1", update_1, (h.shape[1], message_2.shape[0])),
    ):
        if weight.shape[1] != sum(sizes):
            raise ValueError(f"expected {name} with {sizes[0]} + {sizes[1]} columns, got {weight.shape[1]}")


# --- the kernels: inputs are h, features, n_neighbours, envelope and the weights; output out; saved: messages (N, 3 H),
# silu_grads (N, H), total (N, K), hidden (N, G) -----------------------------------------------------------------------


def forward(static: Static, inputs: Optionals, needs_grad: Flags) -> Optionals:
    """The features (N, F), and what the layer goes through; no graph is recorded."""
    (rows, columns), (h, features, n_neighbours, envelope, *weights) = static.edges.addresses, contiguous(inputs)
    w = LayerWeights(*weights)
    n, width = len(h), len(w.message_1)
    out, messages = torch.empty_like(h), h.new_empty(n, 3 * width)
    total, hidden = h.new_empty(n, len(w.message_2)), h.new_empty(n, len(w.update_1))
    silu_grads = h.new_empty(n, width) if needs_grad[0] or needs_grad[4] or needs_grad[5] else None
    kernels, context = kernels_for(h)
    kernels.message_passing_layer(
        itemsize=h.element_size(),
        rows=rows,
        columns=columns,
        h=h,
        features=features,
        n_neighbours=n_neighbours,
        envelope=envelope,
        message_1=w.message_1,
        message_bias_1=w.message_bias_1,
        message_2=w.message_2,
        message_bias_2=w.message_bias_2,
        update_1=w.update_1,
        update_bias_1=w.update_bias_1,
        update_2=w.update_2,
        update_bias_2=w.update_bias_2,
        out=out,
        messages=messages,
        silu_grads=silu_grads,
        total=total,
        hidden=hidden,
        context=context,
    )
    return out, messages, silu_grads, total, hidden


def backward(static: Static, grads: Tensors, inputs: Optionals, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradients of the inputs, as `needs_grad`; no graph is recorded."""
    (rows, columns), (h, features, n_neighbours, envelope, *weights) = static.edges.addresses, contiguous(inputs)
    w, grad = LayerWeights(*weights), grads[0].contiguous()
    messages, silu_grads, total, hidden = saved
    input_grads = empty_like(inputs, needs_grad)
    out_h, out_features, out_n_neighbours, out_envelope, *out_weights = input_grads
    out = LayerWeights(*out_weights)  # type: ignore[arg-type]  # some are None
    kernels, context = kernels_for(h)
    kernels.message_passing_layer_backward(
        itemsize=h.element_size(),
        rows=rows,
        columns=columns,
        h=h,
        features=features,
        n_neighbours=n_neighbours,
        envelope=envelope,
        message_1=w.message_1,
        message_bias_1=w.message_bias_1,
        message_2=w.message_2,
        message_bias_2=w.message_bias_2,
        update_1=w.update_1,
        update_bias_1=w.update_bias_1,
        update_2=w.update_2,
        update_bias_2=w.update_bias_2,
        grad=grad,
        messages=messages,
        silu_grads=silu_grads,
        total=total,
        hidden=hidden,
        out_h=out_h,
        out_features=out_features,
        out_n_neighbours=out_n_neighbours,
        out_envelope=out_envelope,
        out_message_1=out.message_1,
        out_message_bias_1=out.message_bias_1,
        out_message_2=out.message_2,
        out_message_bias_2=out.message_bias_2,
        out_update_1=out.update_1,
        out_update_bias_1=out.update_bias_1,
        out_update_2=out.update_2,
        out_update_bias_2=out.update_bias_2,
        context=context,
    )
    return input_grads


def _arguments(
    static: Static, h: Any, features: Any, n_neighbours: Any, envelope: Any, *weights: Any
) -> tuple[Any, ...]:
    return h, features, static.edges, envelope, n_neighbours, LayerWeights(*weights)


def _example(e: Example) -> tuple[Static, tuple[Tensor | None, ...]]:
    envelope = e.uniform(e.n_edges) if e.option("envelope", True) else None
    n_features, width, n_messages, n_hidden = 3, e.width + 1, e.width + 2, e.width + 3
    edges, h, features = e.edges(), e.normal(e.n_atoms, e.width), e.normal(e.n_edges, n_features)
    shapes = (
        (width, 2 * e.width + n_features),
        (width,),
        (n_messages, width),
        (n_messages,),
        (n_hidden, e.width + n_messages),
        (n_hidden,),
        (e.width, n_hidden),
        (e.width,),
    )
    weights = (e.normal(*shape) / shape[-1] ** 0.5 for shape in shapes)
    return Static(edges), (h, features, e.uniform(e.n_atoms), envelope, *weights)


MESSAGE_PASSING_LAYER = Op(
    "message_passing_layer",
    "out[i] = h[i] + U(h[i], sum_k envelope[k] M(h[j], h[i], features[k])), M, U: linear, silu, linear",
    message_passing_layer,
    reference,
    _arguments,
    Static,
    inputs=(
        Array("h", "N F"),
        Array("features", "E B"),
        Array("n_neighbours", "N"),
        Array("envelope", "E", optional=True),
        Array("message_1", "H M"),
        Array("message_bias_1", "H"),
        Array("message_2", "K H"),
        Array("message_bias_2", "K"),
        Array("update_1", "G U"),
        Array("update_bias_1", "G"),
        Array("update_2", "F G"),
        Array("update_bias_2", "F"),
    ),
    outputs=(Array("out", "N F"),),
    saved=(
        Array("messages", "N 3H"),
        Array("silu_grads", "N H"),
        Array("total", "N K"),
        Array("hidden", "N G"),
    ),
    forward=forward,
    backward=backward,
    double_backward=by_reference(reference, _arguments),
    example=_example,
    options=({"envelope": True}, {"envelope": False}),
    check=_check,
    devices=("cpu",),
    source="the lecture's network",
)
