"""scatter_add as torch operators, for torch.compile: schemas, fake kernels and derivatives of its three functions."""

from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.csr import Rows
from mdgnn.ops.scatter_add import backward, double_backward, forward, refuse_max

_GRAPH = (
    "Tensor row_ptr, Tensor? index, Tensor? edge, Tensor? weight, "
    "Tensor? col_ptr, Tensor? col_index, Tensor? col_edge"
)  # fmt: skip


def _rows(graph: tuple[Tensor | None, ...]) -> tuple[Rows, Tensor | None, Rows | None]:
    """Undo the flattening that operator schemas ask for."""
    row_ptr, index, edge, weight, col_ptr, col_index, col_edge = graph
    assert row_ptr is not None
    return Rows(row_ptr, index, edge), weight, None if col_ptr is None else Rows(col_ptr, col_index, col_edge)


def _or_empty(tensor: Tensor | None, like: Tensor) -> Tensor:
    """Operators return tensors: an empty one stands for what nobody asked for."""
    return like.new_empty(0) if tensor is None else tensor


def _forward(values: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    *graph, reduce = args
    rows, weight, _ = _rows(tuple(graph))
    out, argmax = forward(values, rows, weight, reduce)
    return out, _or_empty(argmax, rows.row_ptr)


def _backward(grad: Tensor, values: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    *graph, argmax, reduce, wanted = args
    rows, weight, columns = _rows(tuple(graph))
    found = backward(grad, values, rows, weight, columns, argmax, reduce, wanted)
    return _or_empty(found[0], values), _or_empty(found[1], values)


def _double_backward(
    grad2_values: Tensor | None, grad2_weight: Tensor | None, grad: Tensor, values: Tensor, *args: Any
) -> tuple[Tensor, Tensor, Tensor]:
    *graph, reduce = args
    rows, weight, columns = _rows(tuple(graph))
    found = double_backward(grad2_values, grad2_weight, grad, values, rows, weight, columns, reduce)
    return found[0], _or_empty(found[1], values), _or_empty(found[2], values)


_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define(f"scatter_add(Tensor values, {_GRAPH}, str reduce) -> (Tensor, Tensor)")
_library.define(
    f"scatter_add_backward(Tensor grad, Tensor values, {_GRAPH}, Tensor argmax, str reduce, bool[] wanted)"
    " -> (Tensor, Tensor)"
)
_library.define(
    "scatter_add_double_backward(Tensor? grad2_values, Tensor? grad2_weight, Tensor grad, Tensor values,"
    f" {_GRAPH}, str reduce) -> (Tensor, Tensor, Tensor)"
)
for _key in ("CPU", "CUDA"):
    _library.impl("scatter_add", _forward, _key)
    _library.impl("scatter_add_backward", _backward, _key)
    _library.impl("scatter_add_double_backward", _double_backward, _key)


@torch.library.register_fake("mdgnn::scatter_add")
def _(values: Tensor, row_ptr: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    out = values.new_empty(row_ptr.shape[0] - 1, values.shape[1])
    return out, row_ptr.new_empty(out.shape if rest[-1] == "max" else (0,))


@torch.library.register_fake("mdgnn::scatter_add_backward")
def _(grad: Tensor, values: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    weight, wanted = rest[3], rest[-1]
    has_weight = wanted[1] and weight is not None
    return values.new_empty(values.shape if wanted[0] else 0), values.new_empty(weight.shape if has_weight else 0)


@torch.library.register_fake("mdgnn::scatter_add_double_backward")
def _(grad2_values: Any, grad2_weight: Any, grad: Tensor, values: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    weight = rest[3]
    has_weight = weight is not None and grad2_values is not None
    return (
        grad.new_empty(grad.shape),
        values.new_empty(values.shape if grad2_weight is not None else 0),
        values.new_empty(weight.shape if has_weight else 0),
    )


def _save_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.reduce = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx: Any, grad: Tensor | None, _: Any) -> tuple[Any, ...]:
    values, *graph, argmax = ctx.saved_tensors
    wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[4]]
    if grad is None or not any(wanted):
        return (None,) * 9
    found = torch.ops.mdgnn.scatter_add_backward(grad, values, *graph, argmax, ctx.reduce, wanted)
    return (found[0] if wanted[0] else None, None, None, None, found[1] if wanted[1] else None, *(None,) * 4)


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.reduce, ctx.wanted = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors[:9])


def _differentiate_twice(ctx: Any, grad2_values: Tensor | None, grad2_weight: Tensor | None) -> tuple[Any, ...]:
    refuse_max(ctx.reduce)
    grad, values, *graph = ctx.saved_tensors
    grad2_values = grad2_values if ctx.wanted[0] else None
    grad2_weight = grad2_weight if ctx.wanted[1] else None
    if grad2_values is None and grad2_weight is None:
        return (None,) * 12
    out_grad, out_values, out_weight = torch.ops.mdgnn.scatter_add_double_backward(
        grad2_values, grad2_weight, grad, values, *graph, ctx.reduce
    )
    out_weight = None if graph[3] is None or grad2_values is None else out_weight
    return (out_grad, None if grad2_weight is None else out_values, None, None, None, out_weight, *(None,) * 6)


def _refuse(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError("scatter_add: third derivatives are not implemented; the ladder ends at the second")


torch.library.register_autograd("mdgnn::scatter_add", _differentiate, setup_context=_save_forward)
torch.library.register_autograd("mdgnn::scatter_add_backward", _differentiate_twice, setup_context=_save_backward)
torch.library.register_autograd("mdgnn::scatter_add_double_backward", _refuse)
