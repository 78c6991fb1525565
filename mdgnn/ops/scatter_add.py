"""scatter_add: gather rows, weight them and reduce them into rows of receivers, in one kernel.

``out[i] = reduce_k weight[edge[k]] * values[index[k]]`` for ``k`` in ``row_ptr[i] .. row_ptr[i + 1]``.

The derivative ladder is forward, backward, double backward: three functions below, and three operators of the same
names in ``torch.ops.mdgnn``, which torch.compile sees. Eager code calls the functions through
`torch.autograd.Function`, at less than half of the operators' overhead (62 against 159 us for a call and its
derivative at 13 atoms). A third derivative is refused.
"""

from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.csr import EdgeRows, Rows, address, transpose
from mdgnn.ops.kernels import kernels_for

_REDUCE = {"sum": 0, "mean": 1, "max": 2}
_NO_ROWS = (0, 0, 0, 0)


def reference(values: Tensor, rows: Rows, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """The specification, in plain torch; memory grows with edges x features."""
    count = rows.row_ptr.diff()
    receivers = torch.arange(rows.n_rows, device=values.device).repeat_interleave(count)
    messages = values if rows.index is None else values[rows.index]
    if weight is not None:
        messages = messages * (weight if rows.edge is None else weight[rows.edge])[:, None]
    out = messages.new_zeros(rows.n_rows, values.shape[1])
    if reduce == "max":
        return out.scatter_reduce(0, receivers[:, None].expand_as(messages), messages, "amax", include_self=False)
    out = out.index_add(0, receivers, messages)
    return out / count.clamp(min=1)[:, None] if reduce == "mean" else out


def scatter_add(
    values: Tensor, rows: Rows, weight: Tensor | None = None, *, columns: Rows | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduce gathered, weighted rows of `values` into one row per receiver.

    The sum of a row runs in the order of its entries, so results are the same on every run and for any number of
    threads. Sum and mean can be differentiated twice, max once.

    Parameters
    ----------
    values : (M, F) float32 or float64
    rows : Rows
        Entries by receiver; every index must lie in ``[0, M)``. `rows_by` makes them from edges in any order.
    weight : (E,), optional
        Same dtype as `values`.
    columns : Rows, optional
        The same entries grouped by the value that they gather (``index`` holds receivers). Saves a sort in the
        backward pass when `rows.index` is given.
    reduce : "sum", "mean" or "max"
        mean divides by the number of entries; max sends its gradient to the first maximum. An empty row gives 0.

    Returns
    -------
    (R, F) tensor

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit, or `reduce` is unknown.
    """
    if torch.compiler.is_compiling():
        return torch.ops.mdgnn.scatter_add(values, *_flat(rows, weight, columns), reduce)[0]  # type: ignore[no-any-return]
    _check(values, rows, weight, reduce)
    if torch.is_grad_enabled() and (values.requires_grad or (weight is not None and weight.requires_grad)):
        return _Forward.apply(values, rows, weight, columns, reduce)  # type: ignore[no-any-return, no-untyped-call]
    return forward(values, rows, weight, reduce)[0]


def gather_senders(x: Tensor, edges: EdgeRows) -> Tensor:
    """(N, F) -> (E, F): the row of each edge's sender; the derivative is a sum over rows."""
    return scatter_add(x, edges.to_senders, columns=edges.numbers_by_sender)


def gather_receivers(x: Tensor, edges: EdgeRows) -> Tensor:
    """(N, F) -> (E, F): the row of each edge's receiver; the derivative is a sum over rows."""
    return scatter_add(x, edges.to_receivers, columns=edges.numbers_by_receiver)


def _check(values: Tensor, rows: Rows, weight: Tensor | None, reduce: str) -> None:
    if values.ndim != 2 or values.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected values of shape (M, F) in float32 or float64, got {_describe(values)}")
    if values.device != rows.row_ptr.device:
        raise ValueError(f"expected rows on the device of the values, {values.device}, got {rows.row_ptr.device}")
    if reduce not in _REDUCE:
        raise ValueError(f"expected reduce to be one of {', '.join(_REDUCE)}, got {reduce!r}")
    if values.device.type == "cpu":
        exact = rows.index is None  # then every value has its entry, and its gradient
        if rows.n_values > values.shape[0] or (exact and rows.n_values < values.shape[0]):
            raise ValueError(f"expected {rows.n_values} values for these rows, got {values.shape[0]}")
    if weight is not None:
        n_edges = values.shape[0] if rows.index is None else rows.index.shape[0]
        if weight.shape != (n_edges,) or weight.dtype != values.dtype or weight.device != values.device:
            raise ValueError(
                f"expected weight of shape ({n_edges},) {values.dtype} on {values.device}, got {_describe(weight)}"
            )


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


# --- the kernels -----------------------------------------------------------------------------------------------------


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if tensor is None else (tensor.data_ptr(), *tensor.shape)


def _contiguous(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.contiguous()


def _columns(rows: Rows, columns: Rows | None, n_values: int) -> tuple[Rows | None, tuple[int, int, int, int]]:
    """The columns and their addresses; without an index none are needed."""
    if rows.index is None:
        return None, _NO_ROWS
    columns = columns or transpose(rows, n_values)
    if columns.n_rows != n_values:
        raise ValueError(f"expected columns with a row for each of the {n_values} values, got {columns.n_rows}")
    return columns, columns.addresses


def forward(values: Tensor, rows: Rows, weight: Tensor | None, reduce: str) -> tuple[Tensor, Tensor | None]:
    """The reduction (R, F) and, for max, the winning edges (R, F); no graph is recorded."""
    values, weight = values.contiguous(), _contiguous(weight)
    out = values.new_empty(rows.n_rows, values.shape[1])
    argmax = torch.empty_like(out, dtype=torch.int64) if reduce == "max" else None
    op = (values.element_size(), rows.addresses, _NO_ROWS, _matrix(values), address(weight), _REDUCE[reduce])
    kernels, where = kernels_for(values)
    kernels.scatter_add(op, _matrix(out), address(argmax), where)
    return out, argmax


def backward(
    grad: Tensor,
    values: Tensor,
    rows: Rows,
    weight: Tensor | None,
    columns: Rows | None = None,
    argmax: Tensor | None = None,
    reduce: str = "sum",
    wanted: tuple[bool, bool] = (True, True),
) -> tuple[Tensor | None, Tensor | None]:
    """What `wanted` asks of the derivatives for values (M, F) and weight (E,); no graph is recorded."""
    grad, values, weight = grad.contiguous(), values.contiguous(), _contiguous(weight)
    if reduce == "max" and columns is not None and columns.edge is None:
        columns = None  # they do not tell which of a row's edges is theirs, as weights and maxima need
    columns, column_addresses = _columns(rows, columns, values.shape[0]) if wanted[0] else (None, _NO_ROWS)
    grad_values = torch.empty_like(values) if wanted[0] else None
    grad_weight = torch.empty_like(weight) if wanted[1] and weight is not None else None
    op = (values.element_size(), rows.addresses, column_addresses, _matrix(values), address(weight), _REDUCE[reduce])
    kernels, where = kernels_for(values)
    kernels.scatter_add_backward(op, _matrix(grad), address(argmax), _matrix(grad_values), address(grad_weight), where)
    return grad_values, grad_weight


def double_backward(
    grad2_values: Tensor | None,
    grad2_weight: Tensor | None,
    grad: Tensor,
    values: Tensor,
    rows: Rows,
    weight: Tensor | None,
    columns: Rows | None,
    reduce: str,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The derivative of ``<grad2_values, grad_values> + <grad2_weight, grad_weight>`` for grad, values and weight."""
    grad2_values, grad2_weight = _contiguous(grad2_values), _contiguous(grad2_weight)
    grad, values, weight = grad.contiguous(), values.contiguous(), _contiguous(weight)
    needs_columns = grad2_weight is not None
    columns, column_addresses = _columns(rows, columns, values.shape[0]) if needs_columns else (None, _NO_ROWS)
    out_grad = torch.empty_like(grad)
    out_values = torch.empty_like(values) if grad2_weight is not None else None
    out_weight = torch.empty_like(weight) if weight is not None and grad2_values is not None else None
    op = (values.element_size(), rows.addresses, column_addresses, _matrix(values), address(weight), _REDUCE[reduce])
    kernels, where = kernels_for(values)
    given = (_matrix(grad), _matrix(grad2_values), address(grad2_weight))
    kernels.scatter_add_double_backward(op, *given, _matrix(out_grad), _matrix(out_values), address(out_weight), where)
    return out_grad, out_values, out_weight


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, rows: Rows, weight: Tensor | None, columns: Rows | None, reduce: str
    ) -> Tensor:
        out, argmax = forward(values, rows, weight, reduce)
        ctx.rows, ctx.columns, ctx.argmax, ctx.reduce = rows, columns, argmax, reduce
        ctx.save_for_backward(values, weight)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        values, weight = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[0], ctx.needs_input_grad[2])
        args = (grad, values, ctx.rows, weight, ctx.columns, ctx.argmax, ctx.reduce, wanted)
        run = _Backward.apply if torch.is_grad_enabled() else backward
        grad_values, grad_weight = run(*args)
        return grad_values, None, grad_weight, None, None


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        values: Tensor,
        rows: Rows,
        weight: Tensor | None,
        columns: Rows | None,
        argmax: Tensor | None,
        reduce: str,
        wanted: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.rows, ctx.columns, ctx.reduce = rows, columns, reduce
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, values, weight)
        return backward(grad, values, rows, weight, columns, argmax, reduce, wanted)

    @staticmethod
    def backward(ctx: Any, grad2_values: Tensor | None, grad2_weight: Tensor | None) -> tuple[Any, ...]:
        grad, values, weight = ctx.saved_tensors
        refuse_max(ctx.reduce)
        if grad2_values is None and grad2_weight is None:
            return (None,) * 8
        args = (grad2_values, grad2_weight, grad, values, *_flat(ctx.rows, weight, ctx.columns), ctx.reduce)
        out_grad, out_values, out_weight = torch.ops.mdgnn.scatter_add_double_backward(*args)
        out_weight = None if weight is None or grad2_values is None else out_weight
        return out_grad, None if grad2_weight is None else out_values, None, out_weight, None, None, None, None


def refuse_max(reduce: str) -> None:
    if reduce == "max":
        raise RuntimeError("scatter_add: max has no second derivative; use sum or mean to train on forces")


def _flat(rows: Rows, weight: Tensor | None, columns: Rows | None) -> tuple[Any, ...]:
    col = (None, None, None) if columns is None else (columns.row_ptr, columns.index, columns.edge)
    return rows.row_ptr, rows.index, rows.edge, weight, *col
