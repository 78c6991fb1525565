"""Torch's functions of each element."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.capture import Capture, Captured
from mdgnn.engine.operations.arguments import a_number, alias, aligned, converted, floating, like, same


def unary(op: str, *numbers: float) -> Callable[..., Captured]:
    def apply_unary(capture: Capture, x: Any) -> Captured:
        floating(capture, x)
        return like(x, capture.algebra.unary(op, x.node, *numbers))

    return apply_unary


def _binary(op: str) -> Callable[..., Captured]:
    def apply_binary(capture: Capture, x: Any, other: Any, *, alpha: Any = 1, rounding_mode: Any = None) -> Captured:
        if rounding_mode is not None:
            raise capture.refusal("a division that rounds")
        if alpha != 1:
            other = scaled(capture, other, alpha)
        (a, b), axes, dtype = aligned(capture, x, other)
        return capture.tensor(capture.algebra.binary(op, a, b), axes, dtype)

    return apply_binary


add, subtract, multiply, divide = map(_binary, ("add", "subtract", "multiply", "divide"))


def scaled(capture: Capture, x: Any, factor: Any) -> Any:
    if not isinstance(x, Captured):
        return x * factor
    floating(capture, x)
    return like(x, capture.algebra.unary("scale", x.node, float(factor)))


def composed(*steps: tuple[Any, ...]) -> Callable[..., Captured]:
    """Element-wise operations one after the other, each (op, numbers ...)."""

    def apply_steps(capture: Capture, x: Captured) -> Captured:
        for op, *numbers in steps:
            x = unary(op, *numbers)(capture, x)
        return x

    return apply_steps


def swapped(operation: Callable[..., Captured]) -> Callable[..., Captured]:
    def apply_swapped(capture: Capture, x: Any, other: Any, **kwargs: Any) -> Captured:
        return operation(capture, other, x, **kwargs)

    return apply_swapped


def power(capture: Capture, x: Any, exponent: Any) -> Captured:
    if not isinstance(x, Captured):
        return composed(("scale", math.log(a_number(capture, x, "powers"))), ("exp",))(capture, exponent)
    return unary("power", a_number(capture, exponent, "powers"))(capture, x)


def clamp(capture: Capture, x: Any, min: Any = None, max: Any = None) -> Captured:
    if min is not None:
        x = unary("clamp_min", a_number(capture, min, "clamp"))(capture, x)
    if max is not None:
        limit = -a_number(capture, max, "clamp")
        x = composed(("scale", -1.0), ("clamp_min", limit), ("scale", -1.0))(capture, x)
    return same(capture, x)


def _greater(sign: float) -> Callable[..., Captured]:
    """``b + (d + sign |d|) / 2`` with d = a - b: as torch's, half of the slope goes to each of equals."""

    def apply_greater(capture: Capture, x: Any, other: Any) -> Captured:
        difference = subtract(capture, x, other)
        size = composed(("abs",), ("scale", sign))(capture, difference)
        return add(capture, other, scaled(capture, add(capture, difference, size), 0.5))

    return apply_greater


maximum, minimum = _greater(1.0), _greater(-1.0)


def softplus(capture: Capture, x: Any, beta: Any = 1, threshold: Any = 20) -> Captured:
    """The function itself; torch takes a straight line beyond the threshold, which is 2e-9 less at 20."""
    if threshold < 20:
        raise capture.refusal(f"softplus with a threshold of {threshold}")
    return composed(("scale", float(beta)), ("softplus",), ("scale", 1 / float(beta)))(capture, x)


def leaky_relu(capture: Capture, x: Any, negative_slope: Any = 0.01) -> Captured:
    """As torch's, at 0 it has the slope for negative numbers."""
    positive = composed(("relu",), ("scale", 1 - float(negative_slope)))(capture, x)
    return add(capture, positive, scaled(capture, x, negative_slope))


def hardtanh(capture: Capture, x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Captured:
    """As torch's, it has no slope at its ends, where that of clamp is 1."""
    low, high = float(min_val), float(max_val)
    from_low = composed(("add_constant", -low), ("relu",))(capture, x)
    return composed(("scale", -1.0), ("add_constant", high - low), ("relu",), ("scale", -1.0), ("add_constant", high))(
        capture, from_low
    )


def addcmul(capture: Capture, x: Any, a: Any, b: Any, value: Any = 1) -> Captured:
    return add(capture, x, product_of(capture, multiply, torch.mul, a, b), alpha=value)


def addcdiv(capture: Capture, x: Any, a: Any, b: Any, value: Any = 1) -> Captured:
    return add(capture, x, product_of(capture, divide, torch.div, a, b), alpha=value)


def product_of(capture: Capture, ours: Any, theirs: Any, a: Any, b: Any) -> Any:
    return ours(capture, a, b) if isinstance(a, Captured) or isinstance(b, Captured) else theirs(a, b)


def lerp(capture: Capture, x: Any, end: Any, weight: Any) -> Captured:
    return add(capture, x, multiply(capture, end - x, weight))


def dropout(capture: Capture, x: Any, p: float = 0.5, training: bool = True) -> Captured:
    if training and p > 0:
        raise capture.refusal("dropout in training")
    return alias(capture, x)


def convert_to(capture: Capture, x: Any, *args: Any, dtype: Any = None, device: Any = None, **others: Any) -> Captured:
    for given in args:
        if isinstance(given, Tensor):
            dtype, device = given.dtype, given.device
        elif isinstance(given, torch.dtype):
            dtype = given
        elif isinstance(given, (str, torch.device)):
            device = given
    if device is not None and torch.device(device).type != "cpu":
        raise capture.refusal(f"arrays on {device}")
    return convert(capture, x, dtype or x.dtype) if isinstance(x, Captured) else x.to(dtype)


def convert(capture: Capture, x: Any, dtype: torch.dtype) -> Captured:
    if x.dtype == dtype:
        return alias(capture, x)
    if not (x.dtype.is_floating_point and dtype.is_floating_point):
        raise capture.refusal(f"a change of {x.dtype} to {dtype}")
    return capture.tensor(converted(x, dtype), x.axes, dtype)
