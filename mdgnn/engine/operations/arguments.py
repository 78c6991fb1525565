"""Arguments of torch's functions as nodes: numbers, constants and captured tensors, broadcast against each other."""

import math
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.algebra import Node
from mdgnn.engine.capture import CHANNEL, COMPONENT, ROW, Axes, Capture, Captured


def number_of(x: Any) -> float | None:
    """Of a number, or a tensor that holds one."""
    if isinstance(x, (int, float)) and not isinstance(x, bool):
        return float(x)
    if isinstance(x, Tensor) and not isinstance(x, Captured) and x.ndim == 0:
        return float(x)
    return None


def a_number(capture: Capture, x: Any, name: str) -> float:
    number = number_of(x)
    if number is None:
        raise capture.refusal(f"{name} with arrays")
    return number


def like(x: Captured, node: Node, axes: Axes | None = None, alias: bool = False) -> Captured:
    return x.capture.tensor(node, x.axes if axes is None else axes, x.dtype, x if alias else None)


def floating(capture: Capture, x: Captured) -> None:
    if not x.dtype.is_floating_point:
        raise capture.refusal(f"arithmetic with an array of {x.node.op.replace('_', ' ')}s")


def free_axis(capture: Capture, axes: Axes) -> str:
    used = {a for names in axes for a in names}
    for axis in (CHANNEL, COMPONENT):
        if axis not in used:
            return axis
    raise capture.refusal("arrays with more axes than atoms, components and channels")


def aligned(capture: Capture, *args: Any) -> tuple[list[Node], Axes, torch.dtype]:
    """Nodes of arguments that torch would broadcast, what axes their result has, and its dtype."""
    tensors = [x for x in args if isinstance(x, Tensor) and x.ndim > 0]
    captured = [x for x in tensors if isinstance(x, Captured)]
    for x in captured:
        floating(capture, x)
    ndim = max(x.ndim for x in tensors)
    axes: list[tuple[str, ...]] = [()] * ndim
    sizes: dict[str, int] = {}
    for x in captured:
        for d, names in enumerate(x.axes, ndim - x.ndim):
            if axes[d] and names and axes[d] != names:
                raise capture.refusal(f"arrays whose dimensions are {'s, '.join(axes[d] + names)}s")
            axes[d] = axes[d] or names
        sizes.update({a: capture.size(x.node, a) for names in x.axes for a in names})
    constants = [x for x in tensors if not isinstance(x, Captured)]
    for c in constants:
        for d, n in enumerate(c.shape, ndim - c.ndim):
            if n > 1 and not axes[d]:
                axes[d] = (free_axis(capture, tuple(axes)),)
                sizes[axes[d][0]] = n
    flat = [a for names in axes for a in names]
    if len(set(flat)) < len(flat):
        raise capture.refusal("products of every atom, component or channel with every other")
    dtype = captured[0].dtype
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    space = captured[0].node.space
    nodes = []
    for x in args:
        if isinstance(x, Captured):
            nodes.append(converted(x, dtype))
        elif (number := number_of(x)) is not None:
            nodes.append(capture.algebra.known(torch.full((1, 1, 1), number, dtype=torch.float64), space))
        else:
            nodes.append(constant(capture, x, tuple(axes), sizes, space))
    return nodes, tuple(axes), dtype


def converted(x: Captured, dtype: torch.dtype) -> Node:
    """Of another precision; a program has one."""
    if x.dtype == dtype or x.node.value is not None:
        return x.node
    return x.capture.algebra.node("convert", (x.node,), x.node.shape)


def constant(capture: Capture, c: Tensor, axes: Axes, sizes: dict[str, int], space: str) -> Node:
    """A constant tensor, of the result's axes where it is not of size 1; the same for every row."""
    c = capture.constant(c).double()[(None,) * (len(axes) - c.ndim)]
    names: list[str] = []
    shape: list[int] = []
    for n, of in zip(c.shape, axes, strict=True):
        if n > 1:
            if n != math.prod(sizes[a] for a in of):
                raise capture.refusal(f"a constant of shape {tuple(c.shape)} beside {'s, '.join(of)}s of another size")
            names += of
            shape += [sizes[a] for a in of]
    c = c.reshape(shape)
    for axis in (ROW, COMPONENT, CHANNEL):
        if axis not in names:
            names.append(axis)
            c = c[..., None]
    c = c.permute([names.index(axis) for axis in (ROW, COMPONENT, CHANNEL)])
    if len(c) > 1 and not bool((c == c[:1]).all()):
        raise capture.refusal("a constant that differs from atom to atom")
    return capture.algebra.known(c[:1], space)


def dims_of(x: Tensor, dim: Any) -> list[int]:
    dims = range(x.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return [d % x.ndim for d in dims]


def same(capture: Capture, x: Any, **others: Any) -> Captured:
    return like(x, x.node)


def alias(capture: Capture, x: Any, **others: Any) -> Captured:
    return like(x, x.node, alias=True)
