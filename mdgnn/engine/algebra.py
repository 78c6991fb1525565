"""The algebra of programs: arrays as nodes of a graph of operations, simplified while it is written.

A node is an array of shape (row, component, channel), a row for each atom or edge, or a value that is known
beforehand: the same for all rows, or one for each element. Operations of known values are worked out at once, in
float64; equal operations are one node.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn.engine.unsupported import UnsupportedError
from mdgnn.ops.dual import sigmoid

LOG2 = math.log(2)

# Element-wise operations of the engine: what they are in torch, with their numbers. A new one is one row here and one
# in csrc/engine; of torch's operations the one of the same name becomes it.
ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "scale": torch.mul,
    "add_constant": torch.add,
    "clamp_min": torch.clamp_min,
    "relu": torch.relu,
    "power": torch.pow,
    "reciprocal": torch.reciprocal,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "exp": torch.exp,
    "log": torch.log,
    "expm1": torch.expm1,
    "log1p": torch.log1p,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": sigmoid,
    "silu": F.silu,
    "softplus": lambda x: -F.logsigmoid(-x),
    "shifted_softplus": lambda x: -F.logsigmoid(-x) - LOG2,
    "abs": torch.abs,
}
BINARY: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
}


@dataclass(eq=False)
class Node:
    """An array, or a part of one, and the operation that makes it.

    Attributes
    ----------
    op : str
        Of the program's operations; "cat" (columns of several arrays) and "slice" stand for arrays that may never be
        made, "known" for a value.
    space : "atom" or "edge"
    components, channels : int
    numbers : tuple of float
    weights : tuple of Tensor
    value : (1 or elements, components, channels) float64, of a known one
    table : RadialTable, of a message
    line : (str, int)
        The model's file and line, for sentences.
    """

    op: str
    inputs: "tuple[Node, ...]"
    space: str
    components: int
    channels: int
    numbers: tuple[float, ...] = ()
    weights: tuple[Tensor, ...] = ()
    value: Tensor | None = None
    table: Any = None
    line: tuple[str, int] = ("", 0)

    @property
    def shape(self) -> tuple[int, int]:
        return self.components, self.channels

    @property
    def number(self) -> float | None:
        """Of a value that is one finite number everywhere; others are weights, since JSON has none of them."""
        if self.value is None:
            return None
        first = self.value.reshape(-1)[0]
        return float(first) if math.isfinite(first) and bool((self.value == first).all()) else None


@dataclass
class Algebra:
    """Writes nodes.

    Attributes
    ----------
    line : callable
        Says in which file and line the model is.
    told : callable
        What sentences say of that.
    nodes : list of Node
        In the order of their making.
    refused : UnsupportedError or None
        The first.
    """

    line: Callable[[], tuple[str, int]]
    told: Callable[[tuple[str, int]], str]
    nodes: list[Node] = field(default_factory=list)
    refused: UnsupportedError | None = None
    _made: dict[Any, Node] = field(default_factory=dict)

    # --- nodes ---

    def node(self, op: str, inputs: Sequence[Node], shape: tuple[int, int], **attributes: Any) -> Node:
        """One more operation, or the same that is there already."""
        inputs = [self.computed(x) for x in inputs]
        spaces = {x.space for x in inputs} | ({attributes.pop("space")} if "space" in attributes else set())
        if len(spaces) != 1:
            raise self.refusal(f"{op} of atoms with edges")
        made = Node(op, tuple(inputs), spaces.pop(), *shape, **attributes, line=self.line())
        weights = tuple((w.data_ptr(), w.shape, w.stride(), w.dtype) for w in made.weights)
        key = (op, tuple(map(id, inputs)), made.space, shape, made.numbers, weights, id(made.table))
        if op not in ("known", "input") and key in self._made:
            return self._made[key]
        self._made[key] = made
        self.nodes.append(made)
        return made

    def known(self, value: Tensor, space: str) -> Node:
        """A value (1 or elements, components, channels)."""
        if len(value) > 1 and bool((value == value[:1]).all()):
            value = value[:1]
        shape = (value.shape[1], value.shape[2])
        return self.node("known", (), shape, value=value.double(), space=space)

    def refusal(self, what: str, node: Node | None = None) -> UnsupportedError:
        """It names the line of a node, or the one that runs now."""
        error = UnsupportedError(f"it has no instruction for {what} ({self.told(node.line if node else self.line())})")
        self.refused = self.refused or error
        return error

    # --- element by element ---

    def unary(self, op: str, x: Node, *numbers: float) -> Node:
        """`ELEMENTWISE`."""
        if x.value is not None:
            return self.known(ELEMENTWISE[op](x.value, *numbers), x.space)
        if x.op == "copy":
            return self.copy(self.unary(op, x.inputs[0], *numbers), x.shape)
        if op in ("scale", "add_constant") and x.op == op:
            (before,) = x.numbers
            numbers = (before * numbers[0] if op == "scale" else before + numbers[0],)
            x = x.inputs[0]
        if numbers == {"scale": (1.0,), "add_constant": (0.0,), "power": (1.0,)}.get(op):
            return x
        if op == "add_constant" and x.op == "softplus" and abs(numbers[0] + LOG2) < 1e-15:
            return self.unary("shifted_softplus", x.inputs[0])
        if op == "power" and numbers[0] in (2.0, 0.5, -1.0):
            return self.unary({2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}[numbers[0]], x)
        if op == "log" and (y := _one_plus_exp(x)) is not None:
            return self.unary("softplus", y)
        if op == "log1p" and x.op == "exp":
            return self.unary("softplus", x.inputs[0])
        if op == "reciprocal" and (y := _one_plus_exp(x)) is not None:
            return self.unary("sigmoid", self.unary("scale", y, -1.0))
        return self.node(op, (x,), x.shape, numbers=tuple(numbers))

    def binary(self, op: str, x: Node, y: Node) -> Node:
        """`BINARY`, with components and channels broadcast."""
        shape = self._broadcast(op, x, y)
        if x.value is not None and y.value is not None:
            return self.known(BINARY[op](x.value, y.value), x.space)
        if x.value is not None:
            return self._known_first(op, x, y, shape)
        if y.value is not None:
            return self._known_second(op, x, y, shape)
        a, b = (z.inputs[0] if z.op == "copy" else z for z in (x, y))
        out = self._of_computed(op, a, b, self._broadcast(op, a, b))
        return self.copy(out, shape)

    def _broadcast(self, op: str, x: Node, y: Node) -> tuple[int, int]:
        for a, b in zip(x.shape, y.shape, strict=True):
            if a != b and 1 not in (a, b):
                raise self.refusal(f"{op} of arrays (N, {x.components}, {x.channels}) and (N, {y.components}, ...)")
        return max(x.components, y.components), max(x.channels, y.channels)

    def _of_computed(self, op: str, x: Node, y: Node, shape: tuple[int, int]) -> Node:
        if op == "multiply":
            for a, b in ((x, y), (y, x)):
                if b.op == "sigmoid" and b.inputs[0] is a:
                    return self.unary("silu", a)
            if x is y:
                return self.unary("square", x)
        if op == "divide" and (z := _one_plus_exp(y)) is not None and self.unary("scale", z, -1.0) is x:
            return self.unary("silu", x)
        return self.node(op, (x, y), shape)

    def _known_first(self, op: str, x: Node, y: Node, shape: tuple[int, int]) -> Node:
        if op in ("add", "multiply"):
            return self._known_second(op, y, x, shape)
        if op == "subtract":
            return self._known_second("add", self.unary("scale", y, -1.0), x, shape)
        return self._known_second("multiply", self.unary("reciprocal", y), x, shape)

    def _known_second(self, op: str, x: Node, y: Node, shape: tuple[int, int]) -> Node:
        """x is computed, y known."""
        assert y.value is not None
        if op == "subtract":
            return self._known_second("add", x, self.known(-y.value, y.space), shape)
        if op == "divide":
            return self._known_second("multiply", x, self.known(1 / y.value, y.space), shape)
        if (number := y.number) is not None:
            return self.copy(self.unary("add_constant" if op == "add" else "scale", x, number), shape)
        if len(y.value) == 1 and y.components == 1:
            weight = y.value.reshape(-1)
            if op == "add":
                x = self.copy(x, (x.components, shape[1]))
                return self.node("add_weight", (x,), shape, weights=(weight,))
            return self.node("multiply_weight", (x,), shape, weights=(weight,))
        return self._of_computed(op, x, self.computed(y), shape)

    def copy(self, x: Node, shape: tuple[int, int]) -> Node:
        """Components and channels repeated."""
        if x.shape == shape:
            return x
        if x.value is not None:
            return self.known(x.value.expand(-1, *shape), x.space)
        x = x.inputs[0] if x.op == "copy" else x
        return self.node("copy", (x,), shape)

    # --- sums and products ---

    def sum(self, x: Node, axis: str) -> Node:
        """Over "component" or "channel"."""
        at = 1 if axis == "component" else 2
        shape = (1, x.channels) if at == 1 else (x.components, 1)
        if x.value is not None:
            return self.known(x.value.sum(at, keepdim=True), x.space)
        return x if x.shape == shape else self.node(f"sum_{axis}s", (x,), shape)

    def linear(self, x: Node, weight: Tensor) -> Node:
        """``x W^T`` of each component; weight (outputs, inputs)."""
        if x.value is not None:
            return self.known(x.value @ weight.double().T, x.space)
        parts = x.inputs if x.op == "cat" else (x,)
        weights = weight.split([p.channels for p in parts], dim=1)
        shape = (x.components, weight.shape[0])
        return self.node("linear", parts, shape, weights=weights)

    # --- parts ---

    def slice(self, x: Node, components: tuple[int, int], channels: tuple[int, int]) -> Node:
        """Ranges of components and channels, each (first, number)."""
        (k, n_components), (c, n_channels) = components, channels
        shape = (n_components, n_channels)
        if shape == x.shape:
            return x
        if x.value is not None:
            return self.known(x.value[:, k : k + n_components, c : c + n_channels], x.space)
        if x.op == "copy":
            (y,) = x.inputs
            k, n_components = (0, 1) if y.components == 1 else (k, n_components)
            c, n_channels = (0, 1) if y.channels == 1 else (c, n_channels)
            return self.copy(self.slice(y, (k, n_components), (c, n_channels)), shape)
        if x.op == "slice":
            return self.slice(x.inputs[0], (k + int(x.numbers[0]), n_components), (c + int(x.numbers[1]), n_channels))
        if x.op == "cat":
            return self._slice_of_cat(x, components, channels)
        return self.node("slice", (x,), shape, numbers=(float(k), float(c)))

    def _slice_of_cat(self, x: Node, components: tuple[int, int], channels: tuple[int, int]) -> Node:
        parts, start, (first, number) = [], 0, channels
        for part in x.inputs:
            begin, end = max(first, start) - start, min(first + number, start + part.channels) - start
            if begin < end:
                parts.append(self.slice(part, components, (begin, end - begin)))
            start += part.channels
        return self.cat(parts)

    def cat(self, parts: Sequence[Node]) -> Node:
        """Channels of several arrays side by side."""
        if len({p.components for p in parts}) > 1:
            raise self.refusal("columns of arrays with other numbers of components")
        flat = [q for p in parts for q in (p.inputs if p.op == "cat" else (p,))]
        if all(p.value is not None for p in flat):
            n = max(len(p.value) for p in flat)  # type: ignore[arg-type]
            return self.known(torch.cat([p.value.expand(n, -1, -1) for p in flat], dim=2), flat[0].space)  # type: ignore[union-attr]
        if len(flat) == 1:
            return flat[0]
        return self.node("cat", flat, (flat[0].components, sum(p.channels for p in flat)))

    def message(self, op: str, inputs: Sequence[Node], shapes: Sequence[tuple[int, int]], table: Any) -> list[Node]:
        """What a message along the edges of the graph makes of its inputs, arrays of these shapes."""
        message = self.node(op, inputs, (0, 0), table=table)
        return [self.node("output", (message,), shape, numbers=(float(k),)) for k, shape in enumerate(shapes)]

    def computed(self, x: Node) -> Node:
        """An array of atoms or edges, made of a known value where it must be."""
        if x.value is None:
            return x
        shape = x.shape
        if x.number == 0:
            return self.node("zeros", (), shape, space=x.space)
        if x.space == "atom" and x.components == 1:
            weight = x.value[:, 0]
            return self.node("embed", (), shape, space="atom", weights=(weight,))
        if len(x.value) == 1 and x.components == 1:
            zeros = self.node("zeros", (), shape, space=x.space)
            return self.node("add_weight", (zeros,), shape, weights=(x.value[0, 0],))
        raise self.refusal(f"constants with {x.components} components")


def _one_plus_exp(x: Node) -> Node | None:
    """y, where x is 1 + exp(y)."""
    good = x.op == "add_constant" and x.numbers == (1.0,) and x.inputs[0].op == "exp"
    return x.inputs[0].inputs[0] if good else None
