"""scatter_add: gather rows, weight them and reduce them into rows of receivers, in one kernel.

``out[i] = reduce_k weight[edge[k]] * values[index[k]]`` for ``k`` in ``row_ptr[i] .. row_ptr[i + 1]``.

A third derivative is refused, and of max the second.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdgnn.ops.csr import EdgeRows, Rows, transpose
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous
from mdgnn.ops.examples import Example
from mdgnn.ops.kernels import kernels_for

_REDUCE = {"sum": 0, "mean": 1, "max": 2}


class Static(NamedTuple):
    rows: Rows
    columns: Rows | None
    reduce: str


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
        If a shape, dtype or device does not fit, or `reduce` is unknown; what `rows` and `columns` hold is looked at on
        the CPU alone (`Rows`).
    """
    out: Tensor
    (out,) = SCATTER_ADD(Static(rows, columns, reduce), values, weight)
    return out


def gather_senders(x: Tensor, edges: EdgeRows) -> Tensor:
    """(N, F) -> (E, F): the row of each edge's sender; the derivative is a sum over rows."""
    return scatter_add(x, edges.to_senders, columns=edges.numbers_by_sender)


def gather_receivers(x: Tensor, edges: EdgeRows) -> Tensor:
    """(N, F) -> (E, F): the row of each edge's receiver; the derivative is a sum over rows."""
    return scatter_add(x, edges.to_receivers, columns=edges.numbers_by_receiver)


def _check(static: Static, inputs: Optionals) -> None:
    rows, columns, reduce = static
    values, weight = inputs
    assert values is not None
    if reduce not in _REDUCE:
        raise ValueError(f"expected reduce to be one of {', '.join(_REDUCE)}, got {reduce!r}")
    _, n_entries, n_values = rows.counts
    n, exact = values.shape[0], n_entries < 0  # then every value has its entry, and its gradient
    if n_values > n or (exact and n_values < n and values.is_cpu):
        raise ValueError(f"expected {n_values} values for these rows, got {n}")
    if weight is not None and weight.shape[0] != (n if exact else n_entries):
        raise ValueError(f"expected weight of shape ({n if exact else n_entries},), got {tuple(weight.shape)}")
    if columns is not None and not exact:
        _check_columns(columns, rows, values)


def _check_columns(columns: Rows, rows: Rows, values: Tensor) -> None:
    (n_rows, n_entries, _), (n_columns, n_column_entries, n_receivers) = rows.counts, columns.counts
    if columns.checked[0] != values.device:
        raise ValueError(f"expected columns on {values.device}, got {columns.row_ptr.device}")
    if n_columns != values.shape[0]:
        raise ValueError(f"expected columns with a row for each of the {values.shape[0]} values, got {n_columns}")
    if n_column_entries != n_entries:
        got = "no index" if columns.index is None else n_column_entries
        raise ValueError(f"expected columns with the receivers of all {n_entries} entries, got {got}")
    if n_receivers > n_rows:
        raise ValueError(f"expected receivers below {n_rows} in columns, got {n_receivers - 1}")


# --- the kernels: inputs are values, weight; output out; saved for max: the winning edges -----------------------------


def _columns(static: Static, n_values: int) -> Rows | None:
    """The rows by value, worked out where they are not given; without an index none are needed."""
    rows, columns, reduce = static
    if rows.index is None:
        return None
    if columns is None or (reduce == "max" and columns.edge is None):  # maxima need to know which of a row's edges
        columns = transpose(rows, n_values)
    return columns


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The reduction (R, F) and, for max, the winning edges (R, F); no graph is recorded."""
    (values, weight), rows = contiguous(inputs), static.rows.addresses
    out = values.new_empty(rows[3], values.shape[1])
    argmax = torch.empty_like(out, dtype=torch.int64) if static.reduce == "max" else None
    kernels, context = kernels_for(values)
    kernels.scatter_add(
        itemsize=values.element_size(),
        rows=rows,
        columns=None,
        values=values,
        weight=weight,
        reduce=_REDUCE[static.reduce],
        out=out,
        argmax=argmax,
        context=context,
    )
    return out, argmax


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradients of values (M, F) and weight (E,), as `needs_grad`; no graph is recorded."""
    (grad,), (values, weight) = contiguous(grads), contiguous(inputs)
    (argmax,) = contiguous(saved) if static.reduce == "max" else (None,)
    out_values = torch.empty_like(values) if needs_grad[0] else None
    out_weight = torch.empty_like(weight) if needs_grad[1] else None
    columns = _columns(static, values.shape[0]) if needs_grad[0] else None
    kernels, context = kernels_for(values)
    kernels.scatter_add_backward(
        itemsize=values.element_size(),
        rows=static.rows.addresses,
        columns=None if columns is None else columns.addresses,
        values=values,
        weight=weight,
        reduce=_REDUCE[static.reduce],
        grad=grad,
        argmax=argmax,
        out_values=out_values,
        out_weight=out_weight,
        context=context,
    )
    return out_values, out_weight


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The gradient of ``<grad2, backward(grad, ...)>`` for grad, values and weight."""
    if static.reduce == "max":
        raise RuntimeError("scatter_add: max has no second derivative; use sum or mean to train on forces")
    (grad,), (values, weight), (grad2_values, grad2_weight) = contiguous(grads), contiguous(inputs), contiguous(grad2)
    out_grad = torch.empty_like(grad) if needs_grad[0] else None
    out_values = torch.empty_like(values) if needs_grad[1] and grad2_weight is not None else None
    out_weight = torch.empty_like(weight) if needs_grad[2] and grad2_values is not None else None
    columns = None if out_values is None else _columns(static, values.shape[0])
    kernels, context = kernels_for(values)
    kernels.scatter_add_double_backward(
        itemsize=values.element_size(),
        rows=static.rows.addresses,
        columns=None if columns is None else columns.addresses,
        values=values,
        weight=weight,
        reduce=_REDUCE[static.reduce],
        grad=grad,
        grad2_values=grad2_values,
        grad2_weight=grad2_weight,
        out_grad=out_grad,
        out_values=out_values,
        out_weight=out_weight,
        context=context,
    )
    if needs_grad[1] and out_values is None:  # linear in the values
        out_values = torch.zeros_like(values)
    if needs_grad[2] and out_weight is None:
        out_weight = torch.zeros_like(weight)
    return out_grad, out_values, out_weight


def _arguments(static: Static, values: Tensor, weight: Tensor | None) -> tuple[Any, ...]:
    return values, static.rows, weight, static.columns, static.reduce


def _reference(values: Tensor, rows: Rows, weight: Tensor | None, columns: Rows | None, reduce: str) -> Tensor:
    return reference(values, rows, weight, reduce)


def _function(values: Tensor, rows: Rows, weight: Tensor | None, columns: Rows | None, reduce: str) -> Tensor:
    return scatter_add(values, rows, weight, columns=columns, reduce=reduce)


def _example(e: Example) -> tuple[Static, tuple[Tensor | None, ...]]:
    edges, kind, reduce = e.edges(), e.option("rows", "gather"), e.option("reduce", "sum")
    rows: Rows = edges.by_receiver
    if kind == "edges":  # entry k uses value k
        rows = Rows(rows.row_ptr)
    elif kind == "permuted":  # the weights of entries stand elsewhere
        assert rows.index is not None
        rows = Rows(rows.row_ptr, rows.index, torch.arange(e.n_edges, device=rows.index.device).flip(0))
    values = e.normal(e.n_edges if kind == "edges" else e.n_atoms, e.width)
    columns = transpose(rows, e.n_atoms) if kind != "edges" and e.option("columns", True) else None
    return Static(rows, columns, reduce), (values, e.uniform(e.n_edges) if e.option("weight", True) else None)


SCATTER_ADD = Op(
    "scatter_add",
    "out[i] = reduce_k weight[edge[k]] * values[index[k]], reduce: sum, mean or max",
    _function,
    _reference,
    _arguments,
    Static,
    inputs=(Array("values", "M F"), Array("weight", "K", optional=True)),
    outputs=(Array("out", "R F"),),
    saved=(Array("argmax", "R F", torch.int64, present=lambda static, inputs: static.reduce == "max"),),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    options=(
        {},
        {"reduce": "mean"},
        {"weight": False, "columns": False},
        {"rows": "edges"},
        {"rows": "permuted"},
        {"reduce": "max"},
    ),
    max_derivatives=lambda static: 1 if static.reduce == "max" else 2,
    check=_check,
)
