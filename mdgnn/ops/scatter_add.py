"""scatter_add: gather rows, weight them and reduce them into rows of receivers, in one kernel.

``out[i] = reduce_k weight[edge[k]] * values[index[k]]`` for ``k`` in ``row_ptr[i] .. row_ptr[i + 1]``.

The derivative ladder is forward, backward, double backward (`scatter_add`, `scatter_add_backward` and
`scatter_add_double_backward` in ``torch.ops.mdgnn``); a third derivative is refused. torch.compile sees these
operators; eager code calls the same functions through `torch.autograd.Function`, at less than half the overhead
(62 against 159 us for a call and its derivative, 13 atoms).
"""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from mdgnn import _C
from mdgnn.ops.csr import Rows
from mdgnn.threads import get_num_threads

_REDUCE = {"sum": 0, "mean": 1, "max": 2}
_NOTHING = (0, 0, 0)


def reference(values: Tensor, rows: Rows, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """The specification, in plain torch; memory grows with edges x features."""
    row_ptr, index, edge = rows
    n_rows = row_ptr.numel() - 1
    count = row_ptr.diff()
    receivers = torch.arange(n_rows, device=values.device).repeat_interleave(count)
    messages = values if index is None else values[index]
    if weight is not None:
        messages = messages * (weight if edge is None else weight[edge])[:, None]
    out = messages.new_zeros(n_rows, values.shape[1])
    if reduce == "max":
        return out.index_reduce(0, receivers, messages, "amax", include_self=False)
    out = out.index_add(0, receivers, messages)
    return out / count.clamp(min=1)[:, None] if reduce == "mean" else out


def scatter_add(
    values: Tensor, rows: Rows, weight: Tensor | None = None, *, columns: Rows | None = None, reduce: str = "sum"
) -> Tensor:
    """Reduce gathered, weighted rows of `values` into one row per receiver.

    The sum of a row runs in the order of its entries, so results are the same on every run and for any number of
    threads. Sum and mean can be differentiated twice, max once and on the CPU only.

    Parameters
    ----------
    values : (M, F) float32 or float64
    rows : Rows
        Entries by receiver. `rows_by` makes them from an index in any order.
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
    """
    _check(values, rows, weight, reduce)
    col = columns or Rows(rows.row_ptr[:0])
    col_ptr = None if columns is None else columns.row_ptr
    args = (values, rows.row_ptr, rows.index, rows.edge, weight, col_ptr, col.index, col.edge, reduce)
    if torch.compiler.is_compiling():
        out = torch.ops.mdgnn.scatter_add(*args)[0]
    elif torch.is_grad_enabled() and (values.requires_grad or (weight is not None and weight.requires_grad)):
        out = _Forward.apply(*args)[0]  # type: ignore[no-untyped-call]
    else:
        out = _forward(*args)[0]
    return out  # type: ignore[no-any-return]


def _check(values: Tensor, rows: Rows, weight: Tensor | None, reduce: str) -> None:
    if values.ndim != 2 or values.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected values of shape (M, F) in float32 or float64, got {_describe(values)}")
    n_edges = values.shape[0] if rows.index is None else rows.index.shape[0]
    for name, array in zip(Rows._fields, rows, strict=True):
        if array is not None and (array.ndim != 1 or array.dtype != torch.int64 or array.device != values.device):
            raise ValueError(f"expected rows.{name} as (n,) int64 on {values.device}, got {_describe(array)}")
    if rows.edge is not None and rows.edge.shape[0] != n_edges:
        raise ValueError(f"expected rows.edge of {n_edges} entries, got {rows.edge.shape[0]}")
    if weight is not None and (weight.shape != (n_edges,) or weight.dtype != values.dtype):
        raise ValueError(f"expected weight of shape ({n_edges},) in {values.dtype}, got {_describe(weight)}")
    if reduce not in _REDUCE:
        raise ValueError(f"expected reduce to be one of {', '.join(_REDUCE)}, got {reduce!r}")


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


# --- the kernels -----------------------------------------------------------------------------------------------------


def _kernels(device: torch.device) -> Any:
    return import_module("mdgnn._C_cuda") if device.type == "cuda" else _C


def _where(device: torch.device) -> tuple[int, int, int]:
    if device.type == "cuda":
        return 0, device.index, torch.cuda.current_stream(device).cuda_stream
    return get_num_threads(), 0, 0


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    return _NOTHING if tensor is None else (tensor.data_ptr(), tensor.shape[0], tensor.shape[1])


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def _pack(values: Tensor, rows: Rows, columns: Rows | None, weight: Tensor | None, reduce: str) -> tuple[Any, ...]:
    def pack(r: Rows | None) -> tuple[int, int, int, int]:
        if r is None:
            return 0, 0, 0, 0
        return r.row_ptr.data_ptr(), _address(r.index), _address(r.edge), r.row_ptr.numel() - 1

    return values.element_size(), pack(rows), pack(columns), _matrix(values), _address(weight), _REDUCE[reduce]


def _transpose(rows: Rows, n_values: int) -> Rows | None:
    """The entries of `rows` by the value that they gather."""
    if rows.index is None:
        return None
    n_rows = rows.row_ptr.numel() - 1
    receivers = torch.arange(n_rows, device=rows.row_ptr.device).repeat_interleave(rows.row_ptr.diff())
    col_ptr, order = torch.ops.mdgnn.counting_sort(rows.index, n_values)
    return Rows(col_ptr, receivers[order], order if rows.edge is None else rows.edge[order])


def _forward(
    values: Tensor,
    row_ptr: Tensor,
    index: Tensor | None,
    edge: Tensor | None,
    weight: Tensor | None,
    col_ptr: Tensor | None,
    col_index: Tensor | None,
    col_edge: Tensor | None,
    reduce: str,
) -> tuple[Tensor, Tensor]:
    values, row_ptr, index, edge, weight = _contiguous(values, row_ptr, index, edge, weight)
    out = values.new_empty(row_ptr.numel() - 1, values.shape[1])
    argmax = torch.empty(out.shape if reduce == "max" else (0,), dtype=torch.int64, device=values.device)
    op = _pack(values, Rows(row_ptr, index, edge), None, weight, reduce)
    _kernels(values.device).scatter_add(op, _matrix(out), argmax.data_ptr(), _where(values.device))
    return out, argmax


def _backward(
    grad: Tensor,
    values: Tensor,
    row_ptr: Tensor,
    index: Tensor | None,
    edge: Tensor | None,
    weight: Tensor | None,
    col_ptr: Tensor | None,
    col_index: Tensor | None,
    col_edge: Tensor | None,
    argmax: Tensor,
    reduce: str,
    wanted: list[bool],
) -> tuple[Tensor, Tensor]:
    grad, values, row_ptr, index, edge, weight = _contiguous(grad, values, row_ptr, index, edge, weight)
    col_ptr, col_index, col_edge = _contiguous(col_ptr, col_index, col_edge)
    rows = Rows(row_ptr, index, edge)
    columns = None
    if wanted[0] and reduce != "max":
        columns = _transpose(rows, values.shape[0]) if col_ptr is None else Rows(col_ptr, col_index, col_edge)
    grad_values = torch.empty_like(values) if wanted[0] else None
    grad_weight = torch.empty_like(weight) if wanted[1] and weight is not None else None
    op = _pack(values, rows, columns, weight, reduce)
    where = _where(values.device)
    kernels = _kernels(values.device)
    kernels.scatter_add_backward(
        op, _matrix(grad), argmax.data_ptr(), _matrix(grad_values), _address(grad_weight), where
    )
    return _or_empty(grad_values, values), _or_empty(grad_weight, values)


def _double_backward(
    grad2_values: Tensor | None,
    grad2_weight: Tensor | None,
    grad: Tensor,
    values: Tensor,
    row_ptr: Tensor,
    index: Tensor | None,
    edge: Tensor | None,
    weight: Tensor | None,
    col_ptr: Tensor | None,
    col_index: Tensor | None,
    col_edge: Tensor | None,
    reduce: str,
) -> tuple[Tensor, Tensor, Tensor]:
    grad2_values, grad2_weight, grad, values = _contiguous(grad2_values, grad2_weight, grad, values)
    row_ptr, index, edge, weight = _contiguous(row_ptr, index, edge, weight)
    col_ptr, col_index, col_edge = _contiguous(col_ptr, col_index, col_edge)
    rows = Rows(row_ptr, index, edge)
    columns = None
    if grad2_weight is not None:
        columns = _transpose(rows, values.shape[0]) if col_ptr is None else Rows(col_ptr, col_index, col_edge)
    out_grad = torch.empty_like(grad)
    out_values = torch.empty_like(values) if grad2_weight is not None else None
    out_weight = torch.empty_like(weight) if weight is not None and grad2_values is not None else None
    op = _pack(values, rows, columns, weight, reduce)
    _kernels(values.device).scatter_add_double_backward(
        op,
        _matrix(grad),
        _matrix(grad2_values),
        _address(grad2_weight),
        _matrix(out_grad),
        _matrix(out_values),
        _address(out_weight),
        _where(values.device),
    )
    return out_grad, _or_empty(out_values, values), _or_empty(out_weight, values)


def _or_empty(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Operators return tensors: an empty one stands for a derivative that nobody asked for."""
    return like.new_empty(0) if tensor is None else tensor


# --- registration ----------------------------------------------------------------------------------------------------

_GRAPH = "Tensor row_ptr, Tensor? index, Tensor? edge, Tensor? weight"
_COLUMNS = "Tensor? col_ptr, Tensor? col_index, Tensor? col_edge"
_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define(f"scatter_add(Tensor values, {_GRAPH}, {_COLUMNS}, str reduce) -> (Tensor, Tensor)")
_library.define(
    f"scatter_add_backward(Tensor grad, Tensor values, {_GRAPH}, {_COLUMNS}, Tensor argmax, str reduce, bool[] wanted)"
    " -> (Tensor, Tensor)"
)
_library.define(
    "scatter_add_double_backward(Tensor? grad2_values, Tensor? grad2_weight, Tensor grad, Tensor values,"
    f" {_GRAPH}, {_COLUMNS}, str reduce) -> (Tensor, Tensor, Tensor)"
)
for _name, _function in {
    "scatter_add": _forward,
    "scatter_add_backward": _backward,
    "scatter_add_double_backward": _double_backward,
}.items():
    for _key in ("CPU", "CUDA"):
        _library.impl(_name, _function, _key)


@torch.library.register_fake("mdgnn::scatter_add")
def _(values: Tensor, row_ptr: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    out = values.new_empty(row_ptr.shape[0] - 1, values.shape[1])
    return out, row_ptr.new_empty(out.shape if rest[-1] == "max" else (0,))


@torch.library.register_fake("mdgnn::scatter_add_backward")
def _(grad: Tensor, values: Tensor, row_ptr: Tensor, index: Any, edge: Any, weight: Any, *rest: Any) -> Any:
    wanted = rest[-1]
    grad_values = torch.empty_like(values, memory_format=torch.contiguous_format) if wanted[0] else None
    has_weight = wanted[1] and weight is not None
    return _or_empty(grad_values, values), values.new_empty(weight.shape if has_weight else 0)


@torch.library.register_fake("mdgnn::scatter_add_double_backward")
def _(grad2_values: Any, grad2_weight: Any, grad: Tensor, values: Tensor, *rest: Any) -> Any:
    weight = rest[3]
    has_weight = weight is not None and grad2_values is not None
    return (
        grad.new_empty(grad.shape),
        values.new_empty(values.shape if grad2_weight is not None else 0),
        values.new_empty(weight.shape if has_weight else 0),
    )


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    values, row_ptr, index, edge, weight, col_ptr, col_index, col_edge, ctx.reduce = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    # The values are needed only for the weights' gradient and for max, but saving them costs no copy.
    ctx.save_for_backward(values, row_ptr, index, edge, weight, col_ptr, col_index, col_edge, output[1])


def _differentiate(ctx: Any, grad: Tensor | None, backward: Any) -> tuple[Any, ...]:
    values, *graph, argmax = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[4]]
    if grad is None or not any(wanted):
        return (None,) * 9
    grad_values, grad_weight = backward(grad, values, *graph, argmax, ctx.reduce, wanted)
    return (grad_values if wanted[0] else None, None, None, None, grad_weight if wanted[1] else None, *(None,) * 4)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.reduce, ctx.wanted = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors[:9])


def _differentiate_twice(
    ctx: Any, grad2_values: Tensor | None, grad2_weight: Tensor | None, double_backward: Any
) -> tuple[Any, ...]:
    if ctx.reduce == "max":
        raise RuntimeError("scatter_add: max has no second derivative; use sum or mean to train on forces")
    grad, values, *graph = ctx.saved_tensors
    grad2_values = grad2_values if ctx.wanted[0] else None
    grad2_weight = grad2_weight if ctx.wanted[1] else None
    if grad2_values is None and grad2_weight is None:
        return (None,) * 12
    out_grad, out_values, out_weight = double_backward(grad2_values, grad2_weight, grad, values, *graph, ctx.reduce)
    out_weight = None if graph[3] is None or grad2_values is None else out_weight
    return (out_grad, None if grad2_weight is None else out_values, None, None, None, out_weight, *(None,) * 6)


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError("scatter_add: third derivatives are not implemented; the ladder ends at the second")


class _Forward(torch.autograd.Function):
    # One combined forward: a separate setup_context would make torch bind the arguments again, at 40 us a call.
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*args)
        _save_forward(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
        return _differentiate(ctx, grad, _Backward.apply if torch.is_grad_enabled() else _backward)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor]:
        output = _backward(*args)
        _save_backward(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        return _differentiate_twice(ctx, *grads, torch.ops.mdgnn.scatter_add_double_backward)


_ops = torch.ops.mdgnn
torch.library.register_autograd(
    "mdgnn::scatter_add",
    lambda ctx, grad, _: _differentiate(ctx, grad, _ops.scatter_add_backward),
    setup_context=_save_forward,
)
torch.library.register_autograd(
    "mdgnn::scatter_add_backward",
    lambda ctx, *grads: _differentiate_twice(ctx, *grads, _ops.scatter_add_double_backward),
    setup_context=_save_backward,
)
torch.library.register_autograd("mdgnn::scatter_add_double_backward", _refuse)
