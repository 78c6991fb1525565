"""Sums, means, norms and products of matrices."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.capture import CHANNEL, ROW, Capture, Captured
from mdgnn.engine.operations.arguments import converted, dims_of, floating, like
from mdgnn.engine.operations.elementwise import add, composed, multiply, product_of, scaled, unary
from mdgnn.engine.operations.shapes import permute, squeeze, unsqueeze


def sum_over(capture: Capture, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Captured:
    floating(capture, x)
    if dtype not in (None, x.dtype):
        raise capture.refusal(f"sums in {dtype}")
    dims, node = dims_of(x, dim), x.node
    for axis in (a for d in dims for a in x.axes[d]):
        if axis == ROW:
            raise capture.refusal(f"sums over {node.space}s")
        node = capture.algebra.sum(node, axis)
    axes = [() if d in dims else names for d, names in enumerate(x.axes)]
    return like(x, node, tuple(names for d, names in enumerate(axes) if keepdim or d not in dims))


def frobenius(
    capture: Capture, x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Captured:
    return norm(capture, x, 2 if p in ("fro", None) else p, dim, keepdim, dtype)


def mean(capture: Capture, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Captured:
    count = math.prod(x.shape[d] for d in dims_of(x, dim))
    out: Captured = scaled(capture, sum_over(capture, x, dim, keepdim, dtype), 1 / count)
    return out


def norm(capture: Capture, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Captured:
    """The derivative of zero length is zero, as torch's: that of what is clamped."""
    if ord != 2:
        raise capture.refusal(f"a norm of order {ord}")
    squares = sum_over(capture, unary("square")(capture, x), dim, keepdim, dtype)
    return composed(("clamp_min", torch.finfo(x.dtype).tiny), ("sqrt",))(capture, squares)


def matmul(capture: Capture, a: Any, other: Any) -> Captured:
    """Of matrices, or stacks of them: over the last dimension of a and the last but one of b."""
    b = other
    if b.ndim == 1:
        return squeeze(capture, matmul(capture, a, b[:, None]), -1)
    if a.ndim == 1:
        return squeeze(capture, matmul(capture, a[None], b), -2)
    if isinstance(a, Captured) and isinstance(b, Captured):
        a, b = unsqueeze(capture, a, -1), unsqueeze(capture, b, -3)
        return sum_over(capture, multiply(capture, a, b), -2)
    x, weight = (a, b.mT) if isinstance(a, Captured) else (b, a)  # weight (..., outputs, inputs)
    if weight.ndim > 2:
        if not bool((weight == weight[:1]).all()):
            raise capture.refusal("products with another matrix for each atom")
        weight = weight[0]
    along = x.ndim - 1 if x is a else x.ndim - 2
    if x.shape[along] != weight.shape[1]:
        raise capture.refusal(f"products of {x.shape[along]} features with a matrix for {weight.shape[1]}")
    floating(capture, x)
    if x.axes[along] not in ((), (CHANNEL,)) or any(CHANNEL in x.axes[d] for d in range(x.ndim) if d != along):
        raise capture.refusal("products of matrices that do not sum over the channels of an array")
    dtype = torch.promote_types(x.dtype, weight.dtype)
    axes = [*x.axes]
    axes[along] = (CHANNEL,)
    return capture.tensor(capture.algebra.linear(converted(x, dtype), capture.constant(weight)), tuple(axes), dtype)


def linear(capture: Capture, x: Any, weight: Any, bias: Any = None) -> Captured:
    out = matmul(capture, x, weight.mT)
    return out if bias is None else add(capture, out, bias)


def einsum(capture: Capture, equation: str, *operands: Any) -> Captured:
    """Of two arrays: a product that is broadcast, then a sum; a product of matrices where one is constant."""
    tensors = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    given, arrow, result = equation.replace(" ", "").partition("->")
    names = given.split(",")
    letters = "".join(names)
    if "." in letters or not arrow or len(names) > 2 or any(len(set(n)) < len(n) for n in (*names, result)):
        raise capture.refusal(f"einsum {equation!r}")
    summed = [c for c in dict.fromkeys(letters) if c not in result]
    if len(tensors) == 1:
        out, order = tensors[0], list(names[0])
    else:
        (a, of_a), (b, of_b) = sorted(zip(tensors, names, strict=True), key=lambda t: not isinstance(t[0], Captured))
        shared = [c for c in summed if c in of_a and c in of_b]
        new = [c for c in of_b if c not in of_a]
        if not isinstance(b, Captured) and len(shared) == 1 and len(new) <= 1 and len(of_b) == len(new) + 1:
            b = b.permute([of_b.index(c) for c in (*shared, *new)])
            rest = [c for c in of_a if c not in shared]
            a = permute(capture, a, [of_a.index(c) for c in (*rest, *shared)])
            out, order = matmul(capture, a, b), [*rest, *new]
            summed = [c for c in summed if c not in shared]
        else:
            order = list(dict.fromkeys(of_a + of_b))
            out = multiply(capture, *(_spread(x, of, order) for x, of in ((a, of_a), (b, of_b))))
    if summed:
        out = sum_over(capture, out, [order.index(c) for c in summed])
        order = [c for c in order if c not in summed]
    return permute(capture, out, [order.index(c) for c in result])


def _spread(x: Tensor, names: str, order: Sequence[str]) -> Tensor:
    """With a dimension for each letter."""
    x = x.permute([names.index(c) for c in order if c in names])
    return x[tuple(slice(None) if c in names else None for c in order)]


def add_product(capture: Capture, x: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Captured:
    """addmm and its like."""
    product = product_of(capture, matmul, torch.matmul, a, b)
    return add(capture, product if alpha == 1 else scaled(capture, product, alpha), scaled(capture, x, beta))
