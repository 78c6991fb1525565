"""Views, parts and columns put together: what costs nothing, or a copy."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch

from mdgnn.engine.capture import CHANNEL, COMPONENT, Capture, Captured
from mdgnn.engine.operations.arguments import constant, converted, dims_of, floating, free_axis, like


def integers(given: Sequence[Any]) -> list[int]:
    """Sizes or dimensions, which torch takes one by one or in a list."""
    return list(given[0] if len(given) == 1 and isinstance(given[0], (list, tuple)) else given)


def view(capture: Capture, x: Any, *shape: Any) -> Captured:
    size = integers(shape)
    if not all(isinstance(n, int) for n in size):
        raise capture.refusal("the view of an array as another type")
    rest = -math.prod(size)
    size = [x.numel() // rest if n == -1 else n for n in size]
    factors = [a for names in x.axes for a in names]
    axes: list[tuple[str, ...]] = []
    for n in size:
        names: tuple[str, ...] = ()
        while factors and math.prod(capture.size(x.node, a) for a in (*names, factors[0])) <= n > 1:
            names = (*names, factors.pop(0))
        if math.prod(capture.size(x.node, a) for a in names) != n:
            raise capture.refusal(f"the view {tuple(size)} of an array {tuple(x.shape)}")
        axes.append(names)
    return like(x, x.node, tuple(axes), alias=True)


def flatten(capture: Capture, x: Any, start_dim: int = 0, end_dim: int = -1) -> Captured:
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return view(capture, x, [*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]])


def unflatten(capture: Capture, x: Any, dim: int, sizes: Sequence[int]) -> Captured:
    return view(capture, x, [*x.shape[: dim % x.ndim], *sizes, *x.shape[dim % x.ndim + 1 :]])


def repeat(capture: Capture, x: Any, *repeats: Any) -> Captured:
    counts = integers(repeats)
    shape = [1] * (len(counts) - x.ndim) + list(x.shape)
    if any(n > 1 and count != 1 for n, count in zip(shape, counts, strict=True)):
        raise capture.refusal("an array repeated along one of its axes")
    return expand(capture, x, [n * count for n, count in zip(shape, counts, strict=True)])


def expand(capture: Capture, x: Any, *sizes: Any) -> Captured:
    size = integers(sizes)
    axes: list[tuple[str, ...]] = [()] * (len(size) - x.ndim) + list(x.axes)
    shape, new = [1] * (len(size) - x.ndim) + list(x.shape), list(axes)
    along = {COMPONENT: x.node.components, CHANNEL: x.node.channels}
    for d in reversed(range(len(size))):
        if size[d] not in (-1, shape[d]):
            new[d] = (free_axis(capture, tuple(new)),)
            along[new[d][0]] = size[d]
    return like(x, capture.algebra.copy(x.node, (along[COMPONENT], along[CHANNEL])), tuple(new), alias=True)


def permute(capture: Capture, x: Any, *dims: Any) -> Captured:
    return like(x, x.node, tuple(x.axes[d] for d in integers(dims)), alias=True)


def transpose(capture: Capture, x: Any, dim0: int, dim1: int) -> Captured:
    order = list(range(x.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permute(capture, x, order)


def transposed(capture: Capture, x: Any) -> Captured:
    """Of matrices, the transpose."""
    return permute(capture, x, list(range(x.ndim))[::-1])


def unsqueeze(capture: Capture, x: Any, dim: int) -> Captured:
    at = dim % (x.ndim + 1)
    return like(x, x.node, (*x.axes[:at], (), *x.axes[at:]), alias=True)


def squeeze(capture: Capture, x: Any, dim: Any = None) -> Captured:
    dims = dims_of(x, dim)
    return like(x, x.node, tuple(n for d, n in enumerate(x.axes) if d not in dims or x.shape[d] > 1), alias=True)


def part_of(capture: Capture, x: Captured, dim: int, first: int, number: int) -> Captured:
    """Part of a dimension."""
    if number == x.shape[dim]:
        return like(x, x.node, alias=True)
    ranges = {COMPONENT: (0, x.node.components), CHANNEL: (0, x.node.channels)}
    if len(x.axes[dim]) != 1 or x.axes[dim][0] not in ranges or number == 0:
        raise capture.refusal(f"a part of the {'s and '.join(x.axes[dim])}s of an array")
    ranges[x.axes[dim][0]] = (first, number)
    return like(x, capture.algebra.slice(x.node, ranges[COMPONENT], ranges[CHANNEL]), alias=True)


def narrow(capture: Capture, x: Any, dim: int, start: int, length: int) -> Captured:
    n = x.shape[dim]
    if length < 0 or not -n <= start <= n or (start + n if start < 0 else start) + length > n:
        raise capture.refusal(f"narrow from {start} by {length} where there are {n}")
    return part_of(capture, x, dim % x.ndim, start % n, length)


def gather(capture: Capture, x: Captured, dim: int, indices: list[int]) -> Captured:
    """Some channels, in any order: by a product with zeros and ones."""
    if x.axes[dim] != (CHANNEL,) or not indices:
        raise capture.refusal(f"some of the {'s and '.join(x.axes[dim])}s of an array")
    weight = torch.eye(x.node.channels, dtype=torch.float64)[indices]
    return like(x, capture.algebra.linear(x.node, weight))


def select(capture: Capture, x: Any, dim: int, index: int) -> Captured:
    n = x.shape[dim]
    if not -n <= index < n:
        raise capture.refusal(f"index {index} where there are {n}")
    part = part_of(capture, x, dim % x.ndim, index % n, 1)
    return squeeze(capture, part, dim)


def split(capture: Capture, x: Any, split_size: Any, dim: int = 0) -> tuple[Captured, ...]:
    dim, n = dim % x.ndim, x.shape[dim]
    one = isinstance(split_size, int)
    sizes = [min(split_size, n - first) for first in range(0, n, split_size)] if one else list(split_size)
    if sum(sizes) != n or min(sizes, default=0) < 0:
        raise capture.refusal(f"split into {sizes} where there are {n}")
    return tuple(part_of(capture, x, dim, sum(sizes[:k]), size) for k, size in enumerate(sizes))


def chunk(capture: Capture, x: Any, chunks: int, dim: int = 0) -> tuple[Captured, ...]:
    return split(capture, x, -(-x.shape[dim] // chunks), dim)


def tensor_split(capture: Capture, x: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Captured, ...]:
    n, sections = x.shape[dim], indices_or_sections
    if isinstance(sections, int):
        return split(capture, x, [n // sections + (k < n % sections) for k in range(sections)], dim)
    parts = [slice(a, b).indices(n)[:2] for a, b in pairwise([0, *sections, n])]  # torch clamps them, too
    return tuple(part_of(capture, x, dim % x.ndim, a, max(b - a, 0)) for a, b in parts)


def unbind(capture: Capture, x: Any, dim: int = 0) -> tuple[Captured, ...]:
    return tuple(select(capture, x, dim, k) for k in range(x.shape[dim]))


def cat(capture: Capture, tensors: Any, dim: int = 0) -> Captured:
    captured = [x for x in tensors if isinstance(x, Captured)]
    first, at = captured[0], dim % captured[0].ndim
    axes: list[tuple[str, ...]] = [()] * first.ndim
    sizes: dict[str, int] = {}
    dtype = first.dtype
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
    for x in captured:
        floating(capture, x)
        for d, names in enumerate(x.axes):
            if axes[d] and names and axes[d] != names:
                raise capture.refusal(f"arrays whose dimensions are {'s, '.join(axes[d] + names)}s")
            axes[d] = axes[d] or names
        sizes.update({a: capture.size(x.node, a) for names in x.axes for a in names})
    if axes[at] not in ((), (CHANNEL,)) or (not axes[at] and any(CHANNEL in names for names in axes)):
        raise capture.refusal("arrays put together along another axis than their channels")
    axes[at] = (CHANNEL,)
    space = first.node.space
    nodes = [
        converted(x, dtype)
        if isinstance(x, Captured)
        else constant(capture, x, tuple(axes), {**sizes, CHANNEL: x.shape[at]}, space)
        for x in tensors
    ]
    return capture.tensor(capture.algebra.cat(nodes), tuple(axes), dtype)


def stack(capture: Capture, tensors: Any, dim: int = 0) -> Captured:
    at = dim % (tensors[0].ndim + 1)
    return cat(capture, [x.unsqueeze(at) for x in tensors], at)
