"""Fewer operations for the same results: linear layers joined, sums and products of one pass.

Rules look at a node and at those of its inputs that nobody else takes; they are applied until none fits.
"""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from mdgnn.engine.algebra import Algebra, Node


def reachable(*roots: Node) -> list[Node]:
    """What nodes are made of, inputs before what takes them."""
    order: list[Node] = []
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(x, False) for x in reversed(node.inputs)]
    return order


def fuse(algebra: Algebra, roots: Sequence[Node], exact: bool = False) -> list[Node]:
    """The roots of a graph of the same values, which share what they did.

    Parameters
    ----------
    exact : bool
        Weights stay what they are: none is the product or the sum of others.
    """
    while True:
        fused = _pass(algebra, roots, exact)
        if all(x is y for x, y in zip(fused, roots, strict=True)):
            return fused
        roots = fused


def _pass(algebra: Algebra, roots: Sequence[Node], exact: bool) -> list[Node]:
    order = reachable(*roots)
    uses = Counter(id(x) for node in order for x in node.inputs)
    uses.update(id(root) for root in roots)
    new: dict[int, Node] = {}
    for node in order:
        inputs = tuple(new[id(x)] for x in node.inputs)
        once = [uses[id(x)] == 1 for x in node.inputs]
        result = _fused(algebra, node, inputs, once, exact)
        if result is None:
            unchanged = all(x is y for x, y in zip(inputs, node.inputs, strict=True))
            result = node if unchanged else _with(algebra, node, inputs)
        new[id(node)] = result
    return [new[id(root)] for root in roots]


def _with(algebra: Algebra, node: Node, inputs: Sequence[Node], weights: Sequence[Tensor] | None = None) -> Node:
    weights = node.weights if weights is None else weights
    attributes = {"numbers": node.numbers, "weights": tuple(weights), "value": node.value, "table": node.table}
    made = algebra.node(node.op, inputs, node.shape, space=node.space, **attributes)
    made.line = node.line
    return made


def _fused(algebra: Algebra, node: Node, inputs: Sequence[Node], once: Sequence[bool], exact: bool) -> Node | None:
    """What takes the place of a node, if anything."""
    x = inputs[0] if inputs else None
    if x is None:
        return None
    alone = once[0]
    if node.op in ("sum_components", "sum_channels") and alone:
        return _sum_of_products(algebra, node, x)
    if node.op == "add":
        return _sum(algebra, node, inputs, once)
    if node.op == "linear":
        return None if exact else _layer_upon_layer(algebra, node, inputs, once)
    if x.op == "linear" and alone:
        return _after_linear(algebra, node, x, exact)
    return None


def _sum_of_products(algebra: Algebra, node: Node, x: Node) -> Node | None:
    if node.op == "sum_channels" and x.op == "multiply_weight" and x.inputs[0].channels == x.channels:
        return algebra.node("linear", x.inputs, node.shape, weights=(x.weights[0][None],))
    if node.op == "sum_components" and x.op in ("multiply", "square"):
        a, b = x.inputs * 2 if x.op == "square" else x.inputs
        if a.shape == b.shape == x.shape:
            return algebra.node("dot", (a, b), node.shape)
    return None


def _after_linear(algebra: Algebra, node: Node, x: Node, exact: bool) -> Node | None:
    """A bias, or a factor of the outputs."""
    layers, bias = parts_of(x)
    if node.op in ("add_weight", "add_constant") and x.components == 1 and not (exact and bias is not None):
        more = node.weights[0] if node.weights else torch.full((x.channels,), node.numbers[0], dtype=torch.float64)
        return _with(algebra, x, x.inputs, (*layers, more if bias is None else bias.double() + more.double()))
    if node.op in ("scale", "multiply_weight") and node.shape == x.shape and not exact:
        factor = torch.tensor(node.numbers, dtype=torch.float64) if node.numbers else node.weights[0].double()
        weights = [factor[:, None] * w.double() for w in layers] + ([] if bias is None else [factor * bias.double()])
        return _with(algebra, x, x.inputs, weights)
    return None


def parts_of(linear: Node) -> tuple[list[Tensor], Tensor | None]:
    """Weights of the inputs, and the bias."""
    n = len(linear.inputs)
    return list(linear.weights[:n]), linear.weights[n] if len(linear.weights) > n else None


def _sum(algebra: Algebra, node: Node, inputs: Sequence[Node], once: Sequence[bool]) -> Node | None:
    """Of sums, one sum; of linear layers, one layer."""
    first = inputs[0]
    same = all(x.shape == node.shape for x in (*inputs, *first.inputs))
    if first.op == "add" and once[0] and same:
        return algebra.node("add", (*first.inputs, *inputs[1:]), node.shape)
    layers = [x for x, alone in zip(inputs, once, strict=True) if alone and _is_layer(x) and x.shape == node.shape]
    if len(layers) < 2 or not any(x.op == "linear" for x in layers):
        return None
    joined = _joined(algebra, layers)
    rest = [x for x in inputs if not any(x is layer for layer in layers)]
    return algebra.node("add", (*rest, joined), node.shape) if rest else joined


def _is_layer(x: Node) -> bool:
    """A column times weights is one, too."""
    return x.op == "linear" or (x.op == "multiply_weight" and x.inputs[0].channels == 1)


def _joined(algebra: Algebra, layers: Sequence[Node]) -> Node:
    inputs: list[Node] = []
    weights: list[Tensor] = []
    bias: Tensor | None = None
    for x in layers:
        of, more = ([x.weights[0][:, None]], None) if x.op == "multiply_weight" else parts_of(x)
        inputs += x.inputs
        weights += of
        if more is not None:
            bias = more if bias is None else bias.double() + more.double()
    return algebra.node("linear", inputs, layers[0].shape, weights=(*weights, *([] if bias is None else [bias])))


def _layer_upon_layer(algebra: Algebra, node: Node, inputs: Sequence[Node], once: Sequence[bool]) -> Node | None:
    """One layer where that takes fewer multiplications."""
    outer, bias = parts_of(node)
    for at, (x, alone) in enumerate(zip(inputs, once, strict=True)):
        if not alone or x.op not in ("linear", "scale"):
            continue
        inner, inner_bias = parts_of(x) if x.op == "linear" else ([], None)
        w = outer[at].double()
        products = [w * x.numbers[0]] if x.op == "scale" else [w @ u.double() for u in inner]
        if sum(p.numel() for p in products) > w.numel() + sum(u.numel() for u in inner):
            continue
        if inner_bias is not None:
            more = w @ inner_bias.double()
            bias = more if bias is None else bias.double() + more
        weights = [*outer[:at], *products, *outer[at + 1 :], *([] if bias is None else [bias])]
        return _with(algebra, node, (*inputs[:at], *x.inputs, *inputs[at + 1 :]), weights)
    return None
