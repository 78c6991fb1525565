"""concat_message_table: SimpleGNN's message with the edge's share and the envelope interpolated from a table.

``out[i] = sum_k c(r[k]) silu(ends[j, :H] + ends[i, H:] + f(r[k]))`` and ``s[i] = sum_k c(r[k])`` over the edges k from
j to receiver i; the table has the H functions f and, as its last column, c.

Nothing of size edges x features is stored: forward, backward and double backward interpolate the table anew. A third
derivative is refused.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.concat_message import reference as concat_message_reference
from mdgnn.ops.csr import EdgeRows, Rows
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous, empty_like
from mdgnn.ops.examples import CUTOFF, Example
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.radial_filter import (
    RadialTable,
    TabulatedFilter,
    check_table,
    radial_filter,
    table_workspace,
)
from mdgnn.ops.scatter_add import scatter_add


class Static(NamedTuple):
    edges: EdgeRows
    cutoff: float


def concat_message_table(ends: Tensor, filter: TabulatedFilter, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    """Sum of messages over each receiver's edges, in order, and the sum of their envelopes.

    Parameters
    ----------
    ends : (N, 2 H) float32 or float64
        What a message gets from its ends: columns :H of its sender's row and H: of its receiver's.
    filter : TabulatedFilter
        A table of H + 1 functions: what a message gets from its edge, then the envelope; and the lengths (E,) of the
        edges. Edges at or beyond the table's cutoff count for nothing.
    edges : EdgeRows
        The second derivative asks for ascending numbers in each row of `edges.by_sender`, and refuses others.

    Returns
    -------
    out : (N, H)
    s : (N, 1)
        Both are differentiable twice with respect to ends, the table's coefficients and r.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if has_torch_function_unary(ends):
        return handle_torch_function(concat_message_table, (ends,), ends, filter, edges)
    (coefficients, cutoff, _), r = filter
    out: tuple[Tensor, Tensor] = CONCAT_MESSAGE_TABLE(Static(edges, cutoff), ends, coefficients, r)
    return out


def reference(ends: Tensor, filter: TabulatedFilter, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    """The specification, differentiable as often as `concat_message` is; memory grows with edges x features."""
    interpolated = radial_filter(*filter)
    edge_part, envelope = interpolated[:, :-1], interpolated[:, -1]
    out = concat_message_reference(edge_part, ends, edges, envelope)
    return out, scatter_add(envelope[:, None], Rows(edges.by_receiver.row_ptr))


# --- the kernels: inputs are ends, coefficients, r; outputs out, s; saved on the CPU: silu_grads (N, H) ---------------


def _memory(coefficients: Tensor, r: Tensor, needs_grad: bool) -> tuple[Tensor | None, Tensor | None]:
    """What a GPU needs for the gradient of the table: to sort edges in, and 4 numbers an edge."""
    workspace = table_workspace(coefficients, r, needs_grad)
    return workspace, None if workspace is None else r.new_empty(r.shape[0], 4)


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The sums (N, H) and (N, 1), and the sums of silu_grads that the derivative for ends is made of."""
    (ends, coefficients, r), (rows, columns) = contiguous(inputs), static.edges.addresses
    n, width = rows[3], ends.shape[1] // 2
    out, s = ends.new_empty(n, width), ends.new_empty(n, 1)
    silu_grads = ends.new_empty(n, width) if needs_grad[0] and ends.is_cpu else None
    kernels, context = kernels_for(ends)
    kernels.concat_message_table(
        itemsize=ends.element_size(),
        rows=rows,
        columns=columns,
        ends=ends,
        table=(coefficients, static.cutoff),
        r=r,
        silu_grads=None,
        workspace=(None, r.shape[0]),
        of_edges=None,
        out_messages=out,
        out_s=s,
        out_silu_grads=silu_grads,
        context=context,
    )
    return out, s, silu_grads


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The derivatives for ends, coefficients and r, as `needs_grad`; no graph is recorded."""
    (out, s), inputs = contiguous(grads), contiguous(inputs)
    (ends, coefficients, r), (rows, columns) = inputs, static.edges.addresses
    (silu_grads,) = contiguous(saved) if needs_grad[0] and ends.is_cpu else (None,)
    input_grads = out_ends, out_coefficients, out_r = empty_like(inputs, needs_grad)
    workspace, of_edges = _memory(coefficients, r, needs_grad[1])
    kernels, context = kernels_for(ends)
    kernels.concat_message_table_backward(
        itemsize=ends.element_size(),
        rows=rows,
        columns=columns,
        ends=ends,
        table=(coefficients, static.cutoff),
        r=r,
        silu_grads=silu_grads,
        workspace=(workspace, r.shape[0]),
        of_edges=of_edges,
        grad_messages=out,
        grad_s=s,
        grad_silu_grads=None,
        out_ends=out_ends,
        out_coefficients=out_coefficients,
        out_r=out_r,
        context=context,
    )
    return input_grads


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The derivative of ``<grad2, backward(grads, ...)>`` for grads and inputs, as `needs_grad`."""
    grads, inputs = contiguous(grads), contiguous(inputs)
    (ends, coefficients, r), (rows, columns) = inputs, static.edges.addresses
    by_ends, by_table, by_r = contiguous(grad2)
    out_grads = out_grad, out_grad_s = empty_like(grads, [needs_grad[0] or needs_grad[1]] * 2)
    input_grads = out_ends, out_coefficients, out_r = empty_like(inputs, needs_grad[2:])
    workspace, of_edges = _memory(coefficients, r, needs_grad[3])
    kernels, context = kernels_for(ends)
    kernels.concat_message_table_double_backward(
        itemsize=ends.element_size(),
        rows=rows,
        columns=columns,
        ends=ends,
        table=(coefficients, static.cutoff),
        r=r,
        silu_grads=None,
        workspace=(workspace, r.shape[0]),
        of_edges=of_edges,
        grad_messages=grads[0],
        grad_s=grads[1],
        grad_silu_grads=None,
        grad2_ends=torch.zeros_like(ends) if by_ends is None else by_ends,
        grad2_coefficients=by_table,
        grad2_r=torch.zeros_like(r) if by_r is None else by_r,
        out_grad_messages=out_grad,
        out_grad_s=out_grad_s,
        out_grad_silu_grads=None,
        out_ends=out_ends,
        out_coefficients=out_coefficients,
        out_r=out_r,
        context=context,
    )
    return [*(t if w else None for t, w in zip(out_grads, needs_grad[:2], strict=True)), *input_grads]


def _arguments(static: Static, ends: Tensor, coefficients: Tensor, r: Tensor) -> tuple[Any, ...]:
    return ends, TabulatedFilter(RadialTable(coefficients, static.cutoff), r), static.edges


def _example(e: Example) -> tuple[Static, tuple[Tensor, ...]]:
    ends = e.normal(e.n_atoms, 2 * e.width)
    return Static(e.edges(), CUTOFF), (ends, e.coefficients(e.width + 1), e.distances())


CONCAT_MESSAGE_TABLE = Op(
    "concat_message_table",
    "out[i] = sum_k c(r[k]) silu(ends[j, :H] + ends[i, H:] + f(r[k])), s[i] = sum_k c(r[k])",
    concat_message_table,
    reference,
    _arguments,
    Static,
    inputs=(Array("ends", "N 2H"), Array("coefficients", "G 4 H+1"), Array("r", "E")),
    outputs=(Array("out", "N H"), Array("s", "N 1")),
    saved=(Array("silu_grads", "N H", present=lambda static, inputs: inputs[0].device.type == "cpu"),),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    check=lambda static, inputs: check_table(inputs[1], static.cutoff),
    source="the lecture's network",
)
