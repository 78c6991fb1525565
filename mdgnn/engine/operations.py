"""What torch's functions are in the algebra of programs: the table at the end has a row for each.

Element-wise operations of `mdgnn.engine.algebra.ELEMENTWISE` need no row: torch's functions of the same name become
ours. Functions are found under their names in ``torch``, ``torch.Tensor``, ``torch.nn.functional`` and
``torch.linalg``; those that change a tensor in place follow from those that do not.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn.engine.algebra import ELEMENTWISE, Node
from mdgnn.engine.capture import CHANNEL, COMPONENT, ROW, Axes, Capture, Captured
from mdgnn.engine.messages import GRAPH_OPS
from mdgnn.nn import shifted_softplus
from mdgnn.ops import silu


def apply(capture: Capture, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The result of one of torch's functions of tensors of which some are captured.

    Raises
    ------
    UnsupportedError
        Where there is no row for it, or the row does not take these arguments.
    """
    name, is_property = name_of(function)
    if name in SHAPES_AND_TYPES:
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **kwargs)
    if name in NUMBERS_DECIDE:
        raise capture.refusal(f"{name}: numbers that are known only when a program runs decide what the model does")
    operation = PROPERTIES.get(name) if is_property else FUNCTIONS.get(function)
    if operation is None:
        raise capture.refusal(name)
    if "input" in kwargs:
        args = (kwargs.pop("input"), *args)
    in_place = kwargs.pop("inplace", False)
    try:
        out = operation(capture, *args, **kwargs)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:  # raised by the call itself
            raise capture.refusal(f"{name} of these arguments") from error
        raise
    return _in_place(capture, out, args[0], name) if in_place else out


def name_of(function: Any) -> tuple[str, bool]:
    """Of a function, or of the property of tensors that it gets."""
    name = getattr(function, "__name__", str(function))
    if name == "__get__":
        return function.__self__.__name__, True
    return name, False


def _changed(operation: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The operation in place."""

    def apply_in_place(capture: Capture, target: Any, *args: Any, **kwargs: Any) -> Captured:
        return _in_place(capture, operation(capture, target, *args, **kwargs), target, name)

    return apply_in_place


def _in_place(capture: Capture, out: Captured, target: Any, name: str) -> Captured:
    if not isinstance(target, Captured):
        raise capture.refusal(f"{name}: changes in place of a constant array")
    if target.shared():
        raise capture.refusal(f"{name}: changes in place of an array of which there are views")
    if out.shape != target.shape or out.dtype != target.dtype:
        raise capture.refusal(f"{name} of shapes {tuple(target.shape)} and {tuple(out.shape)}")
    target.node, target.axes = out.node, out.axes
    return target


# --- arguments -------------------------------------------------------------------------------------------------------


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


def _free_axis(capture: Capture, axes: Axes) -> str:
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
                axes[d] = (_free_axis(capture, tuple(axes)),)
                sizes[axes[d][0]] = n
    flat = [a for names in axes for a in names]
    if len(set(flat)) < len(flat):
        raise capture.refusal("products of every atom, component or channel with every other")
    dtype = captured[0].dtype
    for x in tensors:
        dtype = torch.promote_types(dtype, x.dtype)
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
    c = c.detach().double()[(None,) * (len(axes) - c.ndim)]
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


# --- element by element ----------------------------------------------------------------------------------------------


def _unary(op: str, *numbers: float) -> Callable[..., Captured]:
    def apply_unary(capture: Capture, x: Any) -> Captured:
        floating(capture, x)
        return like(x, capture.algebra.unary(op, x.node, *numbers))

    return apply_unary


def _binary(op: str) -> Callable[..., Captured]:
    def apply_binary(capture: Capture, x: Any, other: Any, *, alpha: Any = 1, rounding_mode: Any = None) -> Captured:
        if rounding_mode is not None:
            raise capture.refusal("a division that rounds")
        if alpha != 1:
            other = _scaled(capture, other, alpha)
        (a, b), axes, dtype = aligned(capture, x, other)
        return capture.tensor(capture.algebra.binary(op, a, b), axes, dtype)

    return apply_binary


_add, _subtract, _multiply, _divide = map(_binary, ("add", "subtract", "multiply", "divide"))


def _scaled(capture: Capture, x: Any, factor: Any) -> Any:
    if not isinstance(x, Captured):
        return x * factor
    floating(capture, x)
    return like(x, capture.algebra.unary("scale", x.node, float(factor)))


def _composed(*steps: tuple[Any, ...]) -> Callable[..., Captured]:
    """Element-wise operations one after the other, each (op, numbers ...)."""

    def apply_steps(capture: Capture, x: Captured) -> Captured:
        for op, *numbers in steps:
            x = _unary(op, *numbers)(capture, x)
        return x

    return apply_steps




def _swapped(operation: Callable[..., Captured]) -> Callable[..., Captured]:
    def apply_swapped(capture: Capture, x: Any, other: Any, **kwargs: Any) -> Captured:
        return operation(capture, other, x, **kwargs)

    return apply_swapped


def _power(capture: Capture, x: Any, exponent: Any) -> Captured:
    if not isinstance(x, Captured):
        return _composed(("scale", math.log(a_number(capture, x, "powers"))), ("exp",))(capture, exponent)
    return _unary("power", a_number(capture, exponent, "powers"))(capture, x)


def _clamp(capture: Capture, x: Any, min: Any = None, max: Any = None) -> Captured:
    if min is not None:
        x = _unary("clamp_min", a_number(capture, min, "clamp"))(capture, x)
    if max is not None:
        limit = -a_number(capture, max, "clamp")
        x = _composed(("scale", -1.0), ("clamp_min", limit), ("scale", -1.0))(capture, x)
    return x


def _maximum(capture: Capture, x: Any, other: Any) -> Captured:
    return _clamp(capture, x, min=other) if isinstance(x, Captured) else _clamp(capture, other, min=x)


def _minimum(capture: Capture, x: Any, other: Any) -> Captured:
    return _clamp(capture, x, max=other) if isinstance(x, Captured) else _clamp(capture, other, max=x)


def _softplus(capture: Capture, x: Any, beta: Any = 1, threshold: Any = 20) -> Captured:
    """The straight line beyond the threshold is the function, to rounding."""
    return _composed(("scale", float(beta)), ("softplus",), ("scale", 1 / float(beta)))(capture, x)


def _leaky_relu(capture: Capture, x: Any, negative_slope: Any = 0.01) -> Captured:
    negative = _composed(("scale", -1.0), ("clamp_min", 0.0), ("scale", float(negative_slope)))(capture, x)
    return _subtract(capture, _unary("clamp_min", 0.0)(capture, x), negative)


def _addcmul(capture: Capture, x: Any, a: Any, b: Any, value: Any = 1) -> Captured:
    return _add(capture, x, _product_of(capture, _multiply, torch.mul, a, b), alpha=value)


def _addcdiv(capture: Capture, x: Any, a: Any, b: Any, value: Any = 1) -> Captured:
    return _add(capture, x, _product_of(capture, _divide, torch.div, a, b), alpha=value)


def _product_of(capture: Capture, ours: Any, theirs: Any, a: Any, b: Any) -> Any:
    return ours(capture, a, b) if isinstance(a, Captured) or isinstance(b, Captured) else theirs(a, b)


def _lerp(capture: Capture, x: Any, end: Any, weight: Any) -> Captured:
    return _add(capture, x, _multiply(capture, end - x, weight))


def _dropout(capture: Capture, x: Any, p: float = 0.5, training: bool = True) -> Captured:
    if training and p > 0:
        raise capture.refusal("dropout in training")
    return _same(capture, x)


def _to(capture: Capture, x: Any, *args: Any, dtype: Any = None, device: Any = None, **others: Any) -> Captured:
    for given in args:
        if isinstance(given, Tensor):
            dtype, device = given.dtype, given.device
        elif isinstance(given, torch.dtype):
            dtype = given
        elif isinstance(given, (str, torch.device)):
            device = given
    if device is not None and torch.device(device).type != "cpu":
        raise capture.refusal(f"arrays on {device}")
    return _convert(capture, x, dtype or x.dtype) if isinstance(x, Captured) else x.to(dtype)


def _convert(capture: Capture, x: Any, dtype: torch.dtype) -> Captured:
    if not (x.dtype.is_floating_point and dtype.is_floating_point) and x.dtype != dtype:
        raise capture.refusal(f"a change of {x.dtype} to {dtype}")
    return capture.tensor(converted(x, dtype), x.axes, dtype)


# --- sums and products -----------------------------------------------------------------------------------------------


def _dims(x: Tensor, dim: Any) -> list[int]:
    dims = range(x.ndim) if dim is None or dim == [] else [dim] if isinstance(dim, int) else dim
    return [d % x.ndim for d in dims]


def _sum(capture: Capture, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Captured:
    floating(capture, x)
    if dtype not in (None, x.dtype):
        raise capture.refusal(f"sums in {dtype}")
    dims, node = _dims(x, dim), x.node
    for axis in (a for d in dims for a in x.axes[d]):
        if axis == ROW:
            raise capture.refusal(f"sums over {node.space}s")
        node = capture.algebra.sum(node, axis)
    axes = [() if d in dims else names for d, names in enumerate(x.axes)]
    return like(x, node, tuple(names for d, names in enumerate(axes) if keepdim or d not in dims))


def _frobenius(
    capture: Capture, x: Any, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Captured:
    return _norm(capture, x, 2 if p in ("fro", None) else p, dim, keepdim, dtype)


def _mean(capture: Capture, x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Captured:
    count = math.prod(x.shape[d] for d in _dims(x, dim))
    return _scaled(capture, _sum(capture, x, dim, keepdim, dtype), 1 / count)


def _norm(
    capture: Capture, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Captured:
    """The derivative of zero length is zero, as torch's: that of what is clamped."""
    if ord != 2:
        raise capture.refusal(f"a norm of order {ord}")
    squares = _sum(capture, _unary("square")(capture, x), dim, keepdim, dtype)
    return _composed(("clamp_min", torch.finfo(x.dtype).tiny), ("sqrt",))(capture, squares)


def _matmul(capture: Capture, a: Any, other: Any) -> Captured:
    """Of matrices, or stacks of them: over the last dimension of a and the last but one of b."""
    b = other
    if b.ndim == 1:
        return _squeeze(capture, _matmul(capture, a, b[:, None]), -1)
    if a.ndim == 1:
        return _squeeze(capture, _matmul(capture, a[None], b), -2)
    if isinstance(a, Captured) and isinstance(b, Captured):
        a, b = _unsqueeze(capture, a, -1), _unsqueeze(capture, b, -3)
        return _sum(capture, _multiply(capture, a, b), -2)
    x, weight = (a, b.mT) if isinstance(a, Captured) else (b, a)  # weight (..., outputs, inputs)
    if weight.ndim > 2:
        if not bool((weight == weight[:1]).all()):
            raise capture.refusal("products with another matrix for each atom")
        weight = weight[0]
    along = x.ndim - 1 if x is a else x.ndim - 2
    floating(capture, x)
    if x.axes[along] not in ((), (CHANNEL,)) or any(CHANNEL in x.axes[d] for d in range(x.ndim) if d != along):
        raise capture.refusal("products of matrices that do not sum over the channels of an array")
    dtype = torch.promote_types(x.dtype, weight.dtype)
    axes = [*x.axes]
    axes[along] = (CHANNEL,)
    return capture.tensor(capture.algebra.linear(converted(x, dtype), weight.detach()), tuple(axes), dtype)


def _linear(capture: Capture, x: Any, weight: Any, bias: Any = None) -> Captured:
    out = _matmul(capture, x, weight.mT)
    return out if bias is None else _add(capture, out, bias)


def _einsum(capture: Capture, equation: str, *operands: Any) -> Captured:
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
            a = _permute(capture, a, [of_a.index(c) for c in (*rest, *shared)])
            out, order = _matmul(capture, a, b), [*rest, *new]
            summed = [c for c in summed if c not in shared]
        else:
            order = list(dict.fromkeys(of_a + of_b))
            out = _multiply(capture, *(_spread(x, of, order) for x, of in ((a, of_a), (b, of_b))))
    if summed:
        out = _sum(capture, out, [order.index(c) for c in summed])
        order = [c for c in order if c not in summed]
    return _permute(capture, out, [order.index(c) for c in result])


def _spread(x: Tensor, names: str, order: Sequence[str]) -> Tensor:
    """With a dimension for each letter."""
    x = x.permute([names.index(c) for c in order if c in names])
    return x[tuple(slice(None) if c in names else None for c in order)]


def _add_product(capture: Capture, x: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Captured:
    """addmm and its like."""
    product = _product_of(capture, _matmul, torch.matmul, a, b)
    return _add(capture, product if alpha == 1 else _scaled(capture, product, alpha), _scaled(capture, x, beta))


# --- shapes ----------------------------------------------------------------------------------------------------------


def _integers(given: Sequence[Any]) -> list[int]:
    """Sizes or dimensions, which torch takes one by one or in a list."""
    return list(given[0] if len(given) == 1 and isinstance(given[0], (list, tuple)) else given)


def _view(capture: Capture, x: Any, *shape: Any) -> Captured:
    size = _integers(shape)
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


def _flatten(capture: Capture, x: Any, start_dim: int = 0, end_dim: int = -1) -> Captured:
    first, last = start_dim % x.ndim, end_dim % x.ndim
    return _view(capture, x, [*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]])


def _unflatten(capture: Capture, x: Any, dim: int, sizes: Sequence[int]) -> Captured:
    return _view(capture, x, [*x.shape[: dim % x.ndim], *sizes, *x.shape[dim % x.ndim + 1 :]])


def _repeat(capture: Capture, x: Any, *repeats: Any) -> Captured:
    counts = _integers(repeats)
    shape = [1] * (len(counts) - x.ndim) + list(x.shape)
    if any(n > 1 and count != 1 for n, count in zip(shape, counts, strict=True)):
        raise capture.refusal("an array repeated along one of its axes")
    return _expand(capture, x, [n * count for n, count in zip(shape, counts, strict=True)])


def _expand(capture: Capture, x: Any, *sizes: Any) -> Captured:
    size = _integers(sizes)
    axes: list[tuple[str, ...]] = [()] * (len(size) - x.ndim) + list(x.axes)
    shape, new = [1] * (len(size) - x.ndim) + list(x.shape), list(axes)
    along = {COMPONENT: x.node.components, CHANNEL: x.node.channels}
    for d in reversed(range(len(size))):
        if size[d] not in (-1, shape[d]):
            new[d] = (_free_axis(capture, tuple(new)),)
            along[new[d][0]] = size[d]
    return like(x, capture.algebra.copy(x.node, (along[COMPONENT], along[CHANNEL])), tuple(new), alias=True)


def _permute(capture: Capture, x: Any, *dims: Any) -> Captured:
    return like(x, x.node, tuple(x.axes[d] for d in _integers(dims)), alias=True)


def _transpose(capture: Capture, x: Any, dim0: int, dim1: int) -> Captured:
    order = list(range(x.ndim))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(capture, x, order)


def _reversed(capture: Capture, x: Any) -> Captured:
    """Of matrices, the transpose."""
    return _permute(capture, x, list(range(x.ndim))[::-1])


def _unsqueeze(capture: Capture, x: Any, dim: int) -> Captured:
    at = dim % (x.ndim + 1)
    return like(x, x.node, (*x.axes[:at], (), *x.axes[at:]), alias=True)


def _squeeze(capture: Capture, x: Any, dim: Any = None) -> Captured:
    dims = _dims(x, dim)
    return like(x, x.node, tuple(n for d, n in enumerate(x.axes) if d not in dims or x.shape[d] > 1), alias=True)


def _range(capture: Capture, x: Captured, dim: int, first: int, number: int) -> Captured:
    """Part of a dimension."""
    if number == x.shape[dim]:
        return like(x, x.node, alias=True)
    ranges = {COMPONENT: (0, x.node.components), CHANNEL: (0, x.node.channels)}
    if len(x.axes[dim]) != 1 or x.axes[dim][0] not in ranges or number == 0:
        raise capture.refusal(f"a part of the {'s and '.join(x.axes[dim])}s of an array")
    ranges[x.axes[dim][0]] = (first, number)
    return like(x, capture.algebra.slice(x.node, ranges[COMPONENT], ranges[CHANNEL]), alias=True)


def _narrow(capture: Capture, x: Any, dim: int, start: int, length: int) -> Captured:
    return _range(capture, x, dim % x.ndim, start % x.shape[dim], length)


def _getitem(capture: Capture, x: Any, index: Any) -> Captured:
    """Basic indexing, and rows of tables."""
    places = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(p, Captured) for p in places):
        if len(places) > 1 and any(p != slice(None) for p in places[1:]):
            raise capture.refusal("an array indexed by several arrays")
        return _lookup(capture, x, places[0])
    taken = sum(p is not None and p is not Ellipsis for p in places)
    at = next((k for k, p in enumerate(places) if p is Ellipsis), len(places))
    places[at : at + 1] = [slice(None)] * (x.ndim - taken)
    dim = 0
    for p in places:
        if p is None:
            x = _unsqueeze(capture, x, dim)
        elif isinstance(p, slice):
            indices = range(x.shape[dim])[p]
            step = indices.step
            x = _range(capture, x, dim, p.indices(x.shape[dim])[0], len(indices)) if step == 1 else _gather(
                capture, x, dim, list(indices)
            )
        elif isinstance(p, int) and not isinstance(p, bool):
            x = _select(capture, x, dim, p)
            continue
        elif isinstance(p, (list, Tensor)) and torch.as_tensor(p).ndim == 1 and torch.as_tensor(p).dtype == torch.int64:
            x = _gather(capture, x, dim, torch.as_tensor(p).tolist())
        else:
            raise capture.refusal("an array indexed by arrays")
        dim += 1
    return x


def _gather(capture: Capture, x: Captured, dim: int, indices: list[int]) -> Captured:
    """Some channels, in any order: by a product with zeros and ones."""
    if x.axes[dim] != (CHANNEL,) or not indices:
        raise capture.refusal(f"some of the {'s and '.join(x.axes[dim])}s of an array")
    weight = torch.eye(x.node.channels, dtype=torch.float64)[indices]
    return like(x, capture.algebra.linear(x.node, weight))


def _select(capture: Capture, x: Any, dim: int, index: int) -> Captured:
    part = _range(capture, x, dim % x.ndim, index % x.shape[dim], 1)
    return _squeeze(capture, part, dim)


def _split(capture: Capture, x: Any, split_size: Any, dim: int = 0) -> tuple[Captured, ...]:
    dim, n = dim % x.ndim, x.shape[dim]
    one = isinstance(split_size, int)
    sizes = [min(split_size, n - first) for first in range(0, n, split_size)] if one else list(split_size)
    return tuple(_range(capture, x, dim, sum(sizes[:k]), size) for k, size in enumerate(sizes))


def _chunk(capture: Capture, x: Any, chunks: int, dim: int = 0) -> tuple[Captured, ...]:
    return _split(capture, x, -(-x.shape[dim] // chunks), dim)


def _tensor_split(capture: Capture, x: Any, indices_or_sections: Any, dim: int = 0) -> tuple[Captured, ...]:
    n, sections = x.shape[dim], indices_or_sections
    if isinstance(sections, int):
        return _split(capture, x, [n // sections + (k < n % sections) for k in range(sections)], dim)
    ends = [0, *sections, n]
    return _split(capture, x, [b - a for a, b in zip(ends[:-1], ends[1:], strict=True)], dim)


def _unbind(capture: Capture, x: Any, dim: int = 0) -> tuple[Captured, ...]:
    return tuple(_select(capture, x, dim, k) for k in range(x.shape[dim]))


def _cat(capture: Capture, tensors: Any, dim: int = 0) -> Captured:
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


def _stack(capture: Capture, tensors: Any, dim: int = 0) -> Captured:
    at = dim % (tensors[0].ndim + 1)
    return _cat(capture, [x.unsqueeze(at) for x in tensors], at)


def _same(capture: Capture, x: Any, **others: Any) -> Captured:
    return like(x, x.node)


def _alias(capture: Capture, x: Any, **others: Any) -> Captured:
    return like(x, x.node, alias=True)


# --- constants and elements ------------------------------------------------------------------------------------------


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


def _new(fill: float | None) -> Callable[..., Tensor]:
    def make(capture: Capture, x: Any, *size: Any, dtype: Any = None, **others: Any) -> Tensor:
        if fill is None:
            size, value = size[0], others.get("fill_value", size[-1])
            return _filled(capture, x, a_number(capture, value, "arrays filled"), size, dtype)
        return _filled(capture, x, fill, _integers(size), dtype)

    return make


def _like(fill: float | None) -> Callable[..., Captured]:
    def make(capture: Capture, x: Any, fill_value: Any = None, *, dtype: Any = None, **others: Any) -> Captured:
        number = a_number(capture, fill_value, "arrays filled") if fill is None else fill
        node = capture.algebra.known(torch.full((1, *x.node.shape), number, dtype=torch.float64), x.node.space)
        return capture.tensor(node, x.axes, dtype or x.dtype)

    return make


def _copy(capture: Capture, x: Any, src: Any, non_blocking: bool = False) -> Captured:
    """What x becomes in place; broadcast."""
    source = src
    return _add(capture, _like(0.0)(capture, x), source)


def _lookup(capture: Capture, table: Any, index: Any) -> Captured:
    """Rows of a table, by atomic number or by element."""
    if not isinstance(index, Captured) or index.node.op not in ("atomic_numbers", "element"):
        raise capture.refusal("rows of arrays by other numbers than atomic numbers and elements")
    if isinstance(table, Captured):
        raise capture.refusal("rows of an array of atoms")
    table = table.detach()
    if index.node.op == "atomic_numbers":
        element_of = torch.arange(len(table)) if table.is_floating_point() else table
        known = capture.element_of
        if known is not None and (known.shape != element_of.shape or not torch.equal(known, element_of)):
            raise capture.refusal("more than one numbering of elements")
        capture.element_of = element_of
    if not table.is_floating_point():
        if index.node.op == "element" or table.ndim != 1:
            raise capture.refusal("numbers of elements of elements")
        return capture.tensor(capture.algebra.node("element", (index.node,), (1, 1)), index.axes, table.dtype)
    assert capture.element_of is not None
    n = int(capture.element_of.max()) + 1
    if len(table) < n or table.ndim > 3:
        raise capture.refusal(f"a table of shape {tuple(table.shape)} for {n} elements")
    components, channels = (1, 1, *table.shape[1:])[-2:]
    node = capture.algebra.known(table[:n].double().reshape(-1, components, channels), "atom")
    axes = ((COMPONENT,), (CHANNEL,)) if table.ndim == 3 else ((CHANNEL,),)[: table.ndim - 1]
    return capture.tensor(node, (*index.axes, *axes), table.dtype)


def _index_select(capture: Capture, table: Any, dim: int, index: Any) -> Captured:
    if isinstance(table, Captured) and not isinstance(index, Captured):
        return _gather(capture, table, dim % table.ndim, index.tolist())
    if dim not in (0, -table.ndim):
        raise capture.refusal("rows of a table that are not its first dimension")
    return _lookup(capture, table, index)


def _embedding(
    capture: Capture, index: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *rest: Any, **others: Any
) -> Captured:
    if max_norm is not None:
        raise capture.refusal("embedding with a greatest norm, which changes weights")
    return _lookup(capture, weight, index)


# --- the table -------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[..., Any]] = {
    **{name: _unary(name) for name in ELEMENTWISE},
    "__neg__ neg negative": _unary("scale", -1.0),
    "__pow__ pow": _power,
    "__rdiv__ __rtruediv__": _swapped(_divide),
    "__rmatmul__": _swapped(_matmul),
    "__rpow__": _swapped(_power),
    "__rsub__ rsub": _swapped(_subtract),
    "__getitem__": _getitem,
    "add": _add,
    "addcdiv": _addcdiv,
    "addcmul": _addcmul,
    "addmm baddbmm": _add_product,
    "cat concat concatenate": _cat,
    "chunk": _chunk,
    "clamp clip": _clamp,
    "clamp_max": lambda capture, x, max: _clamp(capture, x, max=max),
    "clamp_min": lambda capture, x, min: _clamp(capture, x, min=min),
    "clone contiguous": _same,
    "copy": _copy,
    "detach": _alias,
    "div divide true_divide": _divide,
    "double": lambda capture, x: _convert(capture, x, torch.float64),
    "dropout": _dropout,
    "einsum": _einsum,
    "embedding": _embedding,
    "exp2": _composed(("scale", math.log(2)), ("exp",)),
    "expand broadcast_to": _expand,
    "expand_as": lambda capture, x, other: _expand(capture, x, list(other.shape)),
    "expm1": _composed(("exp",), ("add_constant", -1.0)),
    "fill full_like": _like(None),
    "flatten": _flatten,
    "float": lambda capture, x: _convert(capture, x, torch.float32),
    "hardtanh": lambda capture, x, min_val=-1.0, max_val=1.0: _clamp(capture, x, min_val, max_val),
    "index_select": _index_select,
    "leaky_relu": _leaky_relu,
    "lerp": _lerp,
    "linear": _linear,
    "log10": _composed(("log",), ("scale", 1 / math.log(10))),
    "log1p": _composed(("add_constant", 1.0), ("log",)),
    "log2": _composed(("log",), ("scale", 1 / math.log(2))),
    "logsigmoid": _composed(("scale", -1.0), ("softplus",), ("scale", -1.0)),
    "matmul mm bmm mv": _matmul,
    "maximum": _maximum,
    "mean": _mean,
    "minimum": _minimum,
    "mul multiply": _multiply,
    "narrow": _narrow,
    "new_full": _new(None),
    "new_ones": _new(1.0),
    "new_zeros": _new(0.0),
    "norm": _frobenius,
    "ones_like": _like(1.0),
    "permute": _permute,
    "relu": _unary("clamp_min", 0.0),
    "relu6": lambda capture, x: _clamp(capture, x, 0.0, 6.0),
    "repeat": _repeat,
    "rsqrt": _unary("power", -0.5),
    "select": _select,
    "softplus": _softplus,
    "split split_with_sizes": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "sub subtract": _subtract,
    "sum": _sum,
    "t": _reversed,
    "tensor_split": _tensor_split,
    "to type_as": _to,
    "transpose swapaxes swapdims": _transpose,
    "unbind": _unbind,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
    "vector_norm": _norm,
    "view reshape": _view,
    "view_as reshape_as": lambda capture, x, other: _view(capture, x, list(other.shape)),
    "zero zeros_like": _like(0.0),
}
PROPERTIES: dict[str, Callable[..., Any]] = {
    "T": _reversed,
    "mT": lambda capture, x: _transpose(capture, x, -1, -2),
    "data": _alias,
}
# What a model may ask of a tensor: the same for all structures, or a number of atoms or edges.
SHAPES_AND_TYPES = frozenset(
    "__len__ device dim dtype element_size is_contiguous is_cpu is_cuda is_floating_point is_inference is_leaf layout "
    "ndim ndimension numel requires_grad shape size".split()
)
NUMBERS_DECIDE = frozenset("__bool__ __float__ __int__ __index__ item equal allclose tolist numpy __array__".split())


def _by_function() -> dict[Any, Callable[..., Any]]:
    """Torch's functions, and ours."""
    own = {silu: _unary("silu"), shifted_softplus: _unary("shifted_softplus")}
    found: dict[Any, Callable[..., Any]] = {**GRAPH_OPS, **own}
    for names, operation in OPERATIONS.items():
        for name in names.split():
            for home in (torch, Tensor, F):
                if hasattr(home, name):
                    found[getattr(home, name)] = operation
            if hasattr(Tensor, name + "_") and not name.startswith("__"):
                found[getattr(Tensor, name + "_")] = _changed(operation, name + "_")
    for name in ("norm", "vector_norm"):
        found[getattr(torch.linalg, name)] = _norm
    return found


FUNCTIONS = _by_function()
