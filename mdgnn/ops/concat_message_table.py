"""concat_message_table: SimpleGNN's message with the edge's share and the envelope interpolated from a table.

``out[i] = sum_k c(r[k]) silu(ends[j, :H] + ends[i, H:] + f(r[k]))`` and ``s[i] = sum_k c(r[k])`` over the edges k from
j to receiver i; the table has the H functions f and, as its last column, c.

Nothing of size edges x features is stored: forward, backward and double backward interpolate the table anew. A third
derivative is refused.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.checks import check_arrays
from mdgnn.ops.concat_message import reference as concat_message_reference
from mdgnn.ops.csr import EdgeRows, Rows, address
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.ladder import Ladder, Neighbourhood, Op, Optionals, Tensors, contiguous, empty_like
from mdgnn.ops.radial_filter import (
    TabulatedFilter,
    check_table,
    radial_filter,
    table_address,
    table_workspace,
    workspace_address,
)
from mdgnn.ops.scatter_add import scatter_add


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
    table, r = filter
    if not torch.compiler.is_compiling():
        check_table(table, r)
        _, device = edges.addresses, edges.by_receiver.row_ptr.device
        width = 2 * (table.coefficients.shape[2] - 1)
        check_arrays(r.dtype, device, ("ends", ends, (edges.n_atoms, width)), ("r", r, (edges.n_edges,)))
    hood = Neighbourhood(edges.by_receiver, edges.by_sender, table.cutoff)
    out: tuple[Tensor, Tensor] = _ladder(hood, ends, table.coefficients, r)
    return out


def reference(ends: Tensor, filter: TabulatedFilter, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    """The specification, differentiable as often as `concat_message` is; memory grows with edges x features."""
    interpolated = radial_filter(*filter)
    edge_part, envelope = interpolated[:, :-1], interpolated[:, -1]
    out = concat_message_reference(edge_part, ends, edges, envelope)
    return out, scatter_add(envelope[:, None], Rows(edges.by_receiver.row_ptr))


# --- the kernels: inputs are ends, coefficients, r; outputs out, s; kept on the CPU: slopes (N, H) --------------------


def _op(
    hood: Neighbourhood,
    ends: Tensor,
    coefficients: Tensor,
    r: Tensor,
    slopes: Tensor | None = None,
    memory: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Any:
    edges, table = (hood.rows.addresses, hood.columns.addresses), table_address(coefficients, hood.cutoff)
    given = (address(r), address(slopes), workspace_address(memory[0], r), address(memory[1]))
    return ends.element_size(), *edges, _matrix(ends), table, *given


def _memory(coefficients: Tensor, r: Tensor, wanted: bool) -> tuple[Tensor | None, Tensor | None]:
    """What a GPU needs for the gradient of the table: to sort edges in, and 4 numbers an edge."""
    workspace = table_workspace(coefficients, r, wanted)
    return workspace, None if workspace is None else r.new_empty(r.shape[0], 4)


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if tensor is None else (address(tensor), *tensor.shape)


def _gradients(ends: Tensor | None, coefficients: Tensor | None, r: Tensor | None) -> Any:
    return _matrix(ends), address(coefficients), address(r)


def _result(out: Tensor | None, s: Tensor | None, slopes: Tensor | None = None) -> Any:
    return _matrix(out), address(s), address(slopes)


def forward(hood: Neighbourhood, inputs: Tensors, wanted: Sequence[bool]) -> Tensors:
    """The sums (N, H) and (N, 1), and the sums of slopes that the derivative for ends is made of."""
    ends, coefficients, r = contiguous(inputs)
    out, s, slopes = (ends.new_empty(shape) for shape in _shapes(hood.rows.n_rows, inputs, wanted[0]))
    kernels, where = kernels_for(ends)
    result = _result(out, s, slopes if slopes.numel() else None)
    kernels.concat_message_table(_op(hood, ends, coefficients, r), result, where)
    return [out, s, slopes]


def backward(hood: Neighbourhood, grads: Tensors, inputs: Tensors, kept: Tensors, wanted: Sequence[bool]) -> Optionals:
    """The derivatives for ends, coefficients and r, as `wanted`; no graph is recorded."""
    grads, inputs = contiguous(grads), contiguous(inputs)
    found = empty_like(inputs, wanted)
    ends, coefficients, r = inputs
    (slopes,) = kept
    if wanted[0] and ends.device.type == "cpu" and slopes.shape != grads[0].shape:
        raise ValueError(f"expected what the forward kept, {tuple(grads[0].shape)}, got {tuple(slopes.shape)}")
    memory, (kernels, where) = _memory(coefficients, r, wanted[1]), kernels_for(ends)
    given = (_op(hood, ends, coefficients, r, slopes, memory), _result(*grads))
    kernels.concat_message_table_backward(*given, _gradients(*found), where)
    return found


def double_backward(
    hood: Neighbourhood, grad2: Optionals, grads: Tensors, inputs: Tensors, wanted: Sequence[bool]
) -> Optionals:
    """The derivative of ``<grad2, backward(grads, ...)>`` for grads and inputs, as `wanted`."""
    grads, (ends, coefficients, r) = contiguous(grads), contiguous(inputs)
    by_ends, by_table, by_r = contiguous(grad2)
    by_ends = torch.zeros_like(ends) if by_ends is None else by_ends
    by_r = torch.zeros_like(r) if by_r is None else by_r
    out_grads = empty_like(grads, [wanted[0] or wanted[1]] * 2)
    found = empty_like((ends, coefficients, r), wanted[2:])
    memory, (kernels, where) = _memory(coefficients, r, wanted[3]), kernels_for(ends)
    given = (_op(hood, ends, coefficients, r, memory=memory), _result(*grads), _gradients(by_ends, by_table, by_r))
    kernels.concat_message_table_double_backward(*given, _result(*out_grads), _gradients(*found), where)
    return [*(t if w else None for t, w in zip(out_grads, wanted[:2], strict=True)), *found]


def _shapes(n_rows: Any, inputs: Tensors, keep: bool = True) -> list[tuple[Any, ...]]:
    width = inputs[0].shape[1] // 2
    return [(n_rows, width), (n_rows, 1), (n_rows if keep and inputs[0].device.type == "cpu" else 0, width)]


_INPUTS = ("ends", "coefficients", "r")
_ladder = Ladder(
    Op("concat_message_table", _INPUTS, _shapes, forward, backward, double_backward, n_outputs=2, n_kept=1)
)
