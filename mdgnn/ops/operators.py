"""Operators of ``torch.ops.mdgnn`` for torch.compile, made from the declaration of an op."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.declaration import Array, Op, Optionals, as_tuple, fits, shape_of, third_derivative
from mdgnn.ops.static import schema, sizes_of, unflatten

_library = torch.library.Library("mdgnn", "FRAGMENT")


def _present(computed: Optionals, among: Sequence[Any]) -> Any:
    """Operators return tensors: an empty one stands for what is absent; one result is no tuple."""
    like = next(t for t in among if isinstance(t, Tensor))
    results = tuple(like.new_empty(0) if t is None else t for t in computed)
    return results[0] if len(results) == 1 else results


def _arrays(arrays: Sequence[Array], prefix: str = "", optional: bool = False) -> list[str]:
    return [f"Tensor{'?' * (optional or a.optional)} {prefix}{a.name}" for a in arrays]


def register(op: Op) -> None:
    """The three operators of an op, their shapes and derivatives: n inputs, m outputs, k saved."""
    if not op.has_operators:
        return
    name, n, m, k = op.name, len(op.inputs), len(op.outputs), len(op.saved)
    static = [f"{kind} {argument}" for kind, argument in schema(op.static)]
    inputs, saved = _arrays(op.inputs), _arrays(op.saved, "saved_")
    grads, grad2 = _arrays(op.outputs, "grad_", op.partial_grads), _arrays(op.inputs, "grad2_", optional=True)

    def define(suffix: str, arguments: list[str], n_results: int) -> None:
        results = ", ".join(["Tensor"] * n_results)
        _library.define(f"{name}{suffix}({', '.join(arguments)}) -> ({results})")

    flags = ["bool[] needs_grad"]
    define("", [*inputs, *static], m + k)
    define("_backward", [*grads, *saved, *inputs, *static, *flags], n)
    define("_double_backward", [*grad2, *grads, *inputs, *static, *flags], m + n)

    def forward(*args: Any) -> Any:
        given, inputs = unflatten(op.static, args[n:]), args[:n]
        op.check_arguments(given, inputs)  # what torch.compile traced past: kernels would read beyond arrays
        return _present(op.forward(given, inputs, [x is not None for x in inputs]), args)

    def backward(*args: Any) -> Any:
        grads, saved, inputs, rest = args[:m], args[m : m + k], args[m + k :][:n], args[m + k + n : -1]
        return _present(op.backward(unflatten(op.static, rest), grads, inputs, saved, args[-1]), args)

    def double_backward(*args: Any) -> Any:
        grad2, grads, inputs, rest = args[:n], args[n : n + m], args[n + m :][:n], args[m + 2 * n : -1]
        return _present(op.double_backward(unflatten(op.static, rest), grad2, grads, inputs, args[-1]), args)

    for key in ("CPU", "CUDA"):
        _library.impl(name, forward, key)
        _library.impl(f"{name}_backward", backward, key)
        _library.impl(f"{name}_double_backward", double_backward, key)

    def shapes(*args: Any) -> Any:
        inputs, given = args[:n], unflatten(op.static, args[n:])
        sizes = sizes_of(given)
        for array, tensor in zip(op.inputs, inputs, strict=True):
            if tensor is not None:
                fits(array, tensor.shape, sizes)

        def of(array: Array) -> Tensor:
            first: Tensor = inputs[0]
            absent = array.present is not None and not array.present(given, inputs)
            shape, dtype = ((0,), None) if absent else (shape_of(array, sizes), array.dtype)
            return torch.empty(shape, dtype=dtype or first.dtype, device=first.device)

        return _present([of(a) for a in (*op.outputs, *op.saved)], inputs)

    def like(*args: Any) -> Any:
        """What a result has the shape of is among the arguments."""
        needs_grad = args[-1]
        tensors = args[: -len(static) - 1][-len(needs_grad) :]
        first = next(t for t in args if isinstance(t, Tensor))
        computed = [
            t.new_empty(t.shape) if w and t is not None else first.new_empty(0)
            for t, w in zip(tensors, needs_grad, strict=True)
        ]
        return _present(computed, args)

    torch.library.register_fake(f"mdgnn::{name}", shapes)
    torch.library.register_fake(f"mdgnn::{name}_backward", like)
    torch.library.register_fake(f"mdgnn::{name}_double_backward", like)
    _register_derivatives(op)


def _register_derivatives(op: Op) -> None:
    name, n, m, k, operators = op.name, len(op.inputs), len(op.outputs), len(op.saved), torch.ops.mdgnn
    is_tensor = [kind.startswith("Tensor") for kind, _ in schema(op.static)]
    n_static = len(is_tensor)

    def save_arguments(ctx: Any, tensors: Sequence[Any], static: Sequence[Any]) -> None:
        ctx.numbers = [value for value, tensor in zip(static, is_tensor, strict=True) if not tensor]
        ctx.save_for_backward(*tensors, *(t for t, tensor in zip(static, is_tensor, strict=True) if tensor))

    def restored(ctx: Any, n_tensors: int) -> tuple[tuple[Any, ...], list[Any]]:
        tensors, numbers = iter(ctx.saved_tensors[n_tensors:]), iter(ctx.numbers)
        return ctx.saved_tensors[:n_tensors], [next(tensors if tensor else numbers) for tensor in is_tensor]

    def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        saved = () if k == 0 else output[m:]
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(not op.partial_grads)
        ctx.absent = [
            o.present is not None and not o.present(unflatten(op.static, inputs[n:]), inputs[:n]) for o in op.outputs
        ]
        save_arguments(ctx, (*saved, *inputs[:n]), inputs[n:])

    def differentiate(ctx: Any, *grads: Tensor | None) -> Any:
        needs_grad = list(ctx.needs_input_grad[:n])
        grads = tuple(None if absent else g for g, absent in zip(grads[:m], ctx.absent, strict=True))
        if op.partial_grads and all(g is None for g in grads):
            return (None,) * (n + n_static)
        tensors, static = restored(ctx, k + n)
        computed = as_tuple(getattr(operators, f"{name}_backward")(*grads, *tensors, *static, needs_grad))
        return (*(g if w else None for g, w in zip(computed, needs_grad, strict=True)), *[None] * n_static)

    def save_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.needs = inputs[-1]
        ctx.set_materialize_grads(False)
        save_arguments(ctx, (*inputs[:m], *inputs[m + k :][:n]), inputs[m + k + n : -1])

    def double_backward(ctx: Any, *grad2: Tensor | None) -> Any:
        grad2 = tuple(g if w else None for g, w in zip(grad2, ctx.needs, strict=True))
        needs_grad = [*ctx.needs_input_grad[:m], *ctx.needs_input_grad[m + k : m + k + n]]
        if all(g is None for g in grad2):
            return (None,) * (m + k + n + n_static + 1)
        tensors, static = restored(ctx, m + n)
        computed = as_tuple(getattr(operators, f"{name}_double_backward")(*grad2, *tensors, *static, needs_grad))
        computed = tuple(g if w else None for g, w in zip(computed, needs_grad, strict=True))
        return (*computed[:m], *[None] * k, *computed[m:], *[None] * (n_static + 1))

    def refuse(ctx: Any, *grads: Any) -> Any:
        raise third_derivative(name)

    torch.library.register_autograd(f"mdgnn::{name}", differentiate, setup_context=save)
    torch.library.register_autograd(f"mdgnn::{name}_backward", double_backward, setup_context=save_backward)
    torch.library.register_autograd(f"mdgnn::{name}_double_backward", refuse)
