"""Arrays of one number."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.capture import CHANNEL, COMPONENT, ROW, Capture, Captured
from mdgnn.engine.operations.arguments import a_number
from mdgnn.engine.operations.elementwise import add
from mdgnn.engine.operations.shapes import integers


def _filled(capture: Capture, x: Captured, fill: float, size: Sequence[int], dtype: Any) -> Tensor:
    spaces = [space for space, n in capture.rows.items() if size and size[0] == n]
    if not spaces:
        return torch.full(tuple(size), fill, dtype=dtype or x.dtype)
    if len(size) > 3:
        raise capture.refusal(f"an array of shape {tuple(size)}")
    components, channels = (1, 1, *size[1:])[-2:]
    node = capture.algebra.known(torch.full((1, components, channels), fill, dtype=torch.float64), spaces[0])
    axes = ((ROW,), (COMPONENT,), (CHANNEL,)) if len(size) == 3 else ((ROW,), (CHANNEL,))[: len(size)]
    return capture.tensor(node, axes, dtype or x.dtype)


def new_filled(fill: float | None) -> Callable[..., Tensor]:
    def make(capture: Capture, x: Any, *size: Any, dtype: Any = None, **others: Any) -> Tensor:
        if fill is None:
            size, value = size[0], others.get("fill_value", size[-1])
            return _filled(capture, x, a_number(capture, value, "arrays filled"), size, dtype)
        return _filled(capture, x, fill, integers(size), dtype)

    return make


def filled_like(fill: float | None) -> Callable[..., Captured]:
    def make(capture: Capture, x: Any, fill_value: Any = None, *, dtype: Any = None, **others: Any) -> Captured:
        number = a_number(capture, fill_value, "arrays filled") if fill is None else fill
        node = capture.algebra.known(torch.full((1, *x.node.shape), number, dtype=torch.float64), x.node.space)
        return capture.tensor(node, x.axes, dtype or x.dtype)

    return make


def copy(capture: Capture, x: Any, src: Any, non_blocking: bool = False) -> Captured:
    """What x becomes in place; broadcast."""
    return add(capture, filled_like(0.0)(capture, x), src)
