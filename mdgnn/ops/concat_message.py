"""concat_message: the message of SimpleGNN after splitting its first Linear by blocks, summed over neighbours.

``out[i] = sum_k weight[k] * silu(edge_part[k] + ends[sender(k), :H] + ends[i, H:])`` over the edges k of receiver i.

The derivative ladder is forward, backward, double backward: three functions below; a third derivative is refused. Of
size edges x features they save the input edge_part alone: x is computed again. torch.compile takes the reference, a
chain of registered operators; so this one needs no registration of its own.
"""

from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.checks import check_arrays, check_edges
from mdgnn.ops.csr import Rows, address
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.scatter_add import scatter_add
from mdgnn.ops.silu import silu

_ABSENT = (0, 0, 0)
_NO_ROWS = (0, 0, 0, 0)


def add_ends(ends: Tensor, rows: Rows, columns: Rows) -> Tensor:
    """(N, 2 H) -> (E, H): ``ends[senders, :H] + ends[receivers, H:]``; the derivative is a sum over rows.

    `rows` and `columns` are those of `concat_message`.
    """
    if rows.index is None or ends.ndim != 2 or ends.shape[0] != rows.n_rows or ends.shape[1] % 2:
        raise ValueError(
            f"expected rows with an index, and ends of shape ({rows.n_rows}, 2 H), got {tuple(ends.shape)}"
        )
    sent, received = ends.chunk(2, dim=1)
    n_edges = rows.index.shape[0]
    one_each = torch.arange(n_edges + 1, device=ends.device)
    receivers = torch.arange(rows.n_rows, device=ends.device)
    receivers = receivers.repeat_interleave(rows.row_ptr.diff(), output_size=n_edges)
    by_receiver = Rows(rows.row_ptr, one_each[:-1])
    return scatter_add(sent, Rows(one_each, rows.index), columns=columns) + scatter_add(
        received, Rows(one_each, receivers), columns=by_receiver
    )


def reference(edge_part: Tensor, ends: Tensor, rows: Rows, columns: Rows, weight: Tensor | None = None) -> Tensor:
    """The specification, differentiable as often as `scatter_add` and `silu` are."""
    return scatter_add(silu(edge_part + add_ends(ends, rows, columns)), Rows(rows.row_ptr), weight)


def concat_message(edge_part: Tensor, ends: Tensor, rows: Rows, columns: Rows, weight: Tensor | None = None) -> Tensor:
    """Sum of messages over each receiver's edges, in order.

    Parameters
    ----------
    edge_part : (E, H) float32 or float64
        What a message gets from its edge.
    ends : (N, 2 H)
        What it gets from its ends: columns :H of its sender's row and H: of its receiver's.
    rows : Rows
        The edges of each receiver; the index holds their senders.
    columns : Rows
        The edges of each sender; the index holds the numbers of the edges.
    weight : (E,), optional

    Returns
    -------
    (N, H)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if torch.compiler.is_compiling():
        return reference(edge_part, ends, rows, columns, weight)
    _check(edge_part, ends, rows, columns, weight)
    return _Forward.apply(edge_part, ends, weight, rows, columns)  # type: ignore[no-any-return, no-untyped-call]


def _check(edge_part: Tensor, ends: Tensor, rows: Rows, columns: Rows, weight: Tensor | None) -> None:
    if edge_part.ndim != 2 or rows.index is None:
        raise ValueError(f"expected edge_part of shape (E, H) and rows with an index, got {tuple(edge_part.shape)}")
    n_edges, width = rows.index_size, edge_part.shape[1]
    check_arrays(
        edge_part.dtype,
        rows.row_ptr.device,
        ("edge_part", edge_part, (n_edges, width)),
        ("ends", ends, (rows.n_rows, 2 * width)),
        ("weight", weight, (n_edges,)),
    )
    check_edges(rows, columns)


# --- the kernels -----------------------------------------------------------------------------------------------------


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    return _ABSENT if tensor is None else (tensor.data_ptr(), *tensor.shape)


def _contiguous(edge_part: Tensor, ends: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of edge_part only the rows must be, so that it may be a block of columns of something larger."""
    edge_part = edge_part if edge_part.stride(1) == 1 else edge_part.contiguous()
    return edge_part, ends.contiguous(), None if weight is None else weight.contiguous()


def _op(edge_part: Tensor, ends: Tensor, weight: Tensor | None, rows: Rows, columns: tuple[int, ...]) -> Any:
    """What all three kernels take."""
    part, stride = _matrix(edge_part), edge_part.stride(0)
    return edge_part.element_size(), rows.addresses, columns, part, stride, _matrix(ends), address(weight)


def forward(edge_part: Tensor, ends: Tensor, weight: Tensor | None, rows: Rows) -> Tensor:
    """The sums (N, H); no graph is recorded."""
    edge_part, ends, weight = _contiguous(edge_part, ends, weight)
    out = edge_part.new_empty(rows.n_rows, edge_part.shape[1])
    kernels, where = kernels_for(out)
    kernels.concat_message(_op(edge_part, ends, weight, rows, _NO_ROWS), _matrix(out), where)
    return out


def backward(
    grad: Tensor,
    edge_part: Tensor,
    ends: Tensor,
    weight: Tensor | None,
    rows: Rows,
    columns: Rows,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The derivatives for edge_part and, as `wanted`, for ends and weight; no graph is recorded."""
    grad, (edge_part, ends, weight) = grad.contiguous(), _contiguous(edge_part, ends, weight)
    out_edge = edge_part.new_empty(edge_part.shape)
    out_ends = torch.empty_like(ends) if wanted[0] else None
    out_weight = torch.empty_like(weight) if wanted[1] and weight is not None else None
    op, (kernels, where) = _op(edge_part, ends, weight, rows, columns.addresses), kernels_for(grad)
    outs = (_matrix(out_edge), _matrix(out_ends), address(out_weight))
    kernels.concat_message_backward(op, _matrix(grad), *outs, where)
    return out_edge, out_ends, out_weight


def double_backward(
    grad2: tuple[Tensor | None, Tensor | None, Tensor | None],
    grad: Tensor,
    edge_part: Tensor,
    ends: Tensor,
    weight: Tensor | None,
    rows: Rows,
    columns: Rows,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The derivative of ``<grad2, backward(grad, ...)>`` for grad, edge_part, ends and weight."""
    by_edge, by_ends, by_weight = (None if g is None else g.contiguous() for g in grad2)
    grad, (edge_part, ends, weight) = grad.contiguous(), _contiguous(edge_part, ends, weight)
    out_grad, out_edge = torch.empty_like(grad), edge_part.new_empty(edge_part.shape)
    out_ends = torch.empty_like(ends)
    out_weight = None if weight is None else torch.empty_like(weight)
    op, (kernels, where) = _op(edge_part, ends, weight, rows, columns.addresses), kernels_for(grad)
    given = (_matrix(by_edge), _matrix(by_ends), address(by_weight))
    outs = (_matrix(out_grad), _matrix(out_edge), _matrix(out_ends), address(out_weight))
    kernels.concat_message_double_backward(op, _matrix(grad), given, *outs, where)
    return out_grad, out_edge, out_ends, out_weight


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edge_part: Tensor, ends: Tensor, weight: Tensor | None, rows: Rows, columns: Rows) -> Tensor:
        ctx.rows, ctx.columns = rows, columns
        ctx.save_for_backward(edge_part, ends, weight)
        return forward(edge_part, ends, weight, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        run: Any = _Backward.apply if torch.is_grad_enabled() else backward
        found = run(grad, *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.needs_input_grad[1:3])
        return (*found, None, None)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        *tensors, ctx.rows, ctx.columns, _ = args
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return backward(*args)

    @staticmethod
    def backward(ctx: Any, *grad2: Tensor | None) -> tuple[Any, ...]:
        args = (*grad2, *ctx.saved_tensors, ctx.rows, ctx.columns)
        return (*_DoubleBackward.apply(*args), None, None, None)  # type: ignore[no-untyped-call]


class _DoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return double_backward(args[:3], *args[3:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("concat_message: third derivatives are not implemented; the ladder ends at the second")
