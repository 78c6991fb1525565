"""The derivative ladder of an op on a graph: forward, backward, double backward; above that a clear error.

An op is three functions of tensors without a graph of autograd. From them `Ladder` makes what eager autograd calls
(`torch.autograd.Function`, at less than half of the overhead of operators) and, under the same names in
``torch.ops.mdgnn``, the operators that torch.compile sees.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdgnn.ops.csr import Rows

Tensors = Sequence[Tensor]
Optionals = Sequence[Tensor | None]


class Neighbourhood(NamedTuple):
    """Edges within a cutoff: by receiver (index: senders) and by sender (index: receivers, edge: numbers of edges)."""

    rows: Rows
    columns: Rows
    cutoff: float


class Op(NamedTuple):
    """What an op consists of; tensors come and go in the order of `inputs`.

    forward(hood, inputs, wanted) -> `n_outputs` outputs, then what it keeps for the backward, without a derivative;
    `wanted` says which inputs will get one. backward(hood, grads, inputs, kept, wanted) -> a derivative for each input,
    or None. double_backward(hood, grad2, grads, inputs, wanted) -> the derivative of <grad2, backward(...)> for each of
    grads and of inputs, or None; grad2 has one entry an input, None where nothing multiplies it. shapes(n_rows, inputs)
    are those of all that the forward returns when every input is wanted.
    """

    name: str
    inputs: tuple[str, ...]
    shapes: Callable[[Any, Tensors], list[tuple[Any, ...]]]
    forward: Callable[[Neighbourhood, Tensors, Sequence[bool]], Tensors]
    backward: Callable[[Neighbourhood, Tensors, Tensors, Tensors, Sequence[bool]], Optionals]
    double_backward: Callable[[Neighbourhood, Optionals, Tensors, Tensors, Sequence[bool]], Optionals]
    n_outputs: int = 1
    n_kept: int = 0


class Ladder:
    """`op` as a function that autograd and torch.compile know; it returns a tuple of the outputs."""

    def __init__(self, op: Op):
        self.op = op
        _register(op)

    def __call__(self, hood: Neighbourhood, *inputs: Tensor) -> Any:
        if torch.compiler.is_compiling():
            out = getattr(torch.ops.mdgnn, self.op.name)(*inputs, *_flat(hood))
            return (out,) if isinstance(out, Tensor) else out[: self.op.n_outputs]
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            return _Forward.apply(self.op, hood, *inputs)  # type: ignore[no-untyped-call]
        return tuple(self.op.forward(hood, inputs, [False] * len(inputs))[: self.op.n_outputs])


def contiguous(tensors: Optionals) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def empty_like(tensors: Tensors, wanted: Sequence[bool]) -> list[Tensor | None]:
    return [torch.empty_like(t) if w else None for t, w in zip(tensors, wanted, strict=True)]


def plus(a: Optionals, b: Optionals) -> list[Tensor | None]:
    """Sums of what `a` has; None in `b` adds nothing."""
    return [x if x is None or y is None else x + y for x, y in zip(a, b, strict=True)]


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, hood: Neighbourhood, *inputs: Tensor) -> Any:
        ctx.op, ctx.hood = op, hood
        found = op.forward(hood, inputs, ctx.needs_input_grad[2:])
        ctx.save_for_backward(*inputs, *found[op.n_outputs :])
        return tuple(found[: op.n_outputs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved, n, wanted = ctx.saved_tensors, len(ctx.op.inputs), ctx.needs_input_grad[2:]
        inputs, kept = saved[:n], saved[n:]
        if torch.is_grad_enabled():
            found = _Backward.apply(ctx.op, ctx.hood, wanted, kept, *grads, *inputs)  # type: ignore[no-untyped-call]
        else:
            found = ctx.op.backward(ctx.hood, grads, inputs, kept, wanted)
        return (None, None, *found)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, hood: Neighbourhood, wanted: Sequence[bool], kept: Tensors, *tensors: Tensor) -> Any:
        ctx.op, ctx.hood = op, hood
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        grads, inputs = tensors[: -len(op.inputs)], tensors[-len(op.inputs) :]
        return tuple(op.backward(hood, grads, inputs, kept, wanted))

    @staticmethod
    def backward(ctx: Any, *grad2: Tensor | None) -> Any:
        args = (ctx.op, ctx.hood, ctx.needs_input_grad[4:], *grad2, *ctx.saved_tensors)
        return (None, None, None, None, *_DoubleBackward.apply(*args))  # type: ignore[no-untyped-call]


class _DoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, hood: Neighbourhood, wanted: Sequence[bool], *tensors: Any) -> Any:
        ctx.name, n = op.name, len(op.inputs)
        return tuple(op.double_backward(hood, tensors[:n], tensors[n:-n], tensors[-n:], wanted))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise third_derivative(ctx.name)


def third_derivative(name: str) -> RuntimeError:
    return RuntimeError(f"{name}: third derivatives are not implemented; the ladder ends at the second")


# --- operators for torch.compile -------------------------------------------------------------------------------------

_GRAPH = "Tensor row_ptr, Tensor index, Tensor col_ptr, Tensor col_index, Tensor col_edge, float cutoff"
_N_GRAPH = 6
_library = torch.library.Library("mdgnn", "FRAGMENT")


def _flat(hood: Neighbourhood) -> tuple[Any, ...]:
    rows, columns, cutoff = hood
    return rows.row_ptr, rows.index, columns.row_ptr, columns.index, columns.edge, cutoff


def _hood(flat: Sequence[Any]) -> Neighbourhood:
    return Neighbourhood(Rows(*flat[:2]), Rows(*flat[2:5]), flat[5])


def _tensors(names: Sequence[str], optional: bool = False) -> str:
    return "".join(f"Tensor{'?' * optional} {name}, " for name in names)


def _results(n: int) -> str:
    return f"({', '.join(['Tensor'] * n)})"


def _present(found: Optionals, like: Tensor) -> tuple[Tensor, ...]:
    """Operators return tensors: an empty one stands for what nobody asked for."""
    return tuple(like.new_empty(0) if t is None else t for t in found)


def _one_or_all(found: Tensors) -> Any:
    """An operator with one result returns no tuple."""
    return found[0] if len(found) == 1 else tuple(found)


def _register(op: Op) -> None:
    """The three operators of a ladder and their shapes: n inputs, m outputs, k kept."""
    name, n, m, k = op.name, len(op.inputs), op.n_outputs, op.n_kept
    tensors, given = _tensors(op.inputs), _tensors([f"grad_{o}" for o in range(m)])
    twice, kept = _tensors([f"grad2_{x}" for x in op.inputs], optional=True), _tensors([f"kept_{o}" for o in range(k)])
    _library.define(f"{name}({tensors}{_GRAPH}) -> {_results(m + k)}")
    _library.define(f"{name}_backward({given}{kept}{tensors}{_GRAPH}, bool[] wanted) -> {_results(n)}")
    _library.define(f"{name}_double_backward({twice}{given}{tensors}{_GRAPH}, bool[] wanted) -> {_results(n + m)}")

    def forward(*args: Any) -> Any:
        return _one_or_all(op.forward(_hood(args[n:]), args[:n], [True] * n))

    def backward(*args: Any) -> Any:
        grads, kept, inputs, rest = args[:m], args[m : m + k], args[m + k :][:n], args[m + k + n :]
        return _present(op.backward(_hood(rest[:-1]), grads, inputs, kept, rest[-1]), args[0])

    def double_backward(*args: Any) -> Any:
        found = op.double_backward(_hood(args[m + 2 * n : -1]), args[:n], args[n : n + m], args[n + m :][:n], args[-1])
        return _present(found, args[n])

    for key in ("CPU", "CUDA"):
        _library.impl(name, forward, key)
        _library.impl(f"{name}_backward", backward, key)
        _library.impl(f"{name}_double_backward", double_backward, key)

    def shapes(*args: Any) -> Any:
        return _one_or_all([args[0].new_empty(s) for s in op.shapes(args[n].shape[0] - 1, args[:n])])

    def like(*args: Any) -> Any:
        """What a result has the shape of is among the arguments, which end with what is wanted of them."""
        wanted, tensors = args[-1], args[: -_N_GRAPH - 1][-len(args[-1]) :]
        return tuple(t.new_empty(t.shape if w else 0) for t, w in zip(tensors, wanted, strict=True))

    torch.library.register_fake(f"mdgnn::{name}", shapes)
    torch.library.register_fake(f"mdgnn::{name}_backward", like)
    torch.library.register_fake(f"mdgnn::{name}_double_backward", like)

    _register_derivatives(op)


def _register_derivatives(op: Op) -> None:
    name, n, m, k = op.name, len(op.inputs), op.n_outputs, op.n_kept
    operators = torch.ops.mdgnn

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.cutoff = inputs[-1]
        kept = () if k == 0 else output[m:]
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(*kept, *inputs[:-1])

    def differentiate(ctx: Any, *grads: Tensor) -> Any:
        wanted = list(ctx.needs_input_grad[:n])
        found = getattr(operators, f"{name}_backward")(*grads[:m], *ctx.saved_tensors, ctx.cutoff, wanted)
        return (*(g if w else None for g, w in zip(found, wanted, strict=True)), *[None] * _N_GRAPH)

    def save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        *tensors, ctx.cutoff, ctx.wanted = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[:m], *tensors[m + k :])

    def differentiate_twice(ctx: Any, *grad2: Tensor | None) -> Any:
        grad2 = tuple(g if w else None for g, w in zip(grad2, ctx.wanted, strict=True))
        wanted = [*ctx.needs_input_grad[:m], *ctx.needs_input_grad[m + k : m + k + n]]
        if all(g is None for g in grad2):
            return (None,) * (m + k + n + _N_GRAPH + 1)
        args = (*grad2, *ctx.saved_tensors, ctx.cutoff, wanted)
        found = getattr(operators, f"{name}_double_backward")(*args)
        found = [g if w else None for g, w in zip(found, wanted, strict=True)]
        return (*found[:m], *[None] * k, *found[m:], *[None] * (_N_GRAPH + 1))

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise third_derivative(name)

    torch.library.register_autograd(f"mdgnn::{name}", differentiate, setup_context=save)
    torch.library.register_autograd(f"mdgnn::{name}_backward", differentiate_twice, setup_context=save_backward)
    torch.library.register_autograd(f"mdgnn::{name}_double_backward", refuse)
