"""What an op declares, and what follows from it: checks, autograd, operators for torch.compile, tests, documentation.

An op is a reference in plain torch and three functions of tensors that record no graph: forward, backward, double
backward. Eager autograd calls them through `torch.autograd.Function`, at less than half of the overhead of operators;
torch.compile sees operators of the same names in ``torch.ops.mdgnn``. A third derivative is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.examples import Example
from mdgnn.ops.static import check_graph, flatten, symbols

Tensors = Sequence[Tensor]
Optionals = Sequence[Tensor | None]
Flags = Sequence[bool]

FLOATS = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Array:
    """An input or a result of an op.

    Attributes
    ----------
    name : str
    shape : str
        Sizes with a space between: numbers, symbols, and such as ``3F``, ``2H`` or ``H+1``. N and E are the atoms and
        edges of `EdgeRows`, R the rows of `Rows`; the first array that has another symbol gives its size. "..." is any.
    dtype : torch.dtype, optional
        Default: that of the first input, float32 or float64.
    optional : bool
        An input that may be None.
    differentiable : bool
    present : callable, optional
        (static, inputs) -> whether a result is there; otherwise it is None.
    """

    name: str
    shape: str
    dtype: torch.dtype | None = None
    optional: bool = False
    differentiable: bool = True
    present: Callable[[Any, Any], bool] | None = None


@cache
def _sizes(shape: str) -> tuple[tuple[int, str | None, int], ...] | None:
    """Of each axis the factor, the symbol and what is added: "3F", "H+1", "4"."""
    return None if shape == "..." else tuple(_size(text) for text in shape.split())


def _size(text: str) -> tuple[int, str | None, int]:
    parts = re.fullmatch(r"(\d*)([A-Z]?)(?:\+(\d+))?", text)
    if not parts or not text:
        raise ValueError(f"expected a size such as N, 3F, H+1 or 4, got {text!r}")
    factor, symbol, more = parts.groups()
    return (int(factor or 1), symbol, int(more or 0)) if symbol else (0, None, int(factor))


@dataclass(frozen=True)
class Op:
    """The declaration of an op.

    Arrays come and go in the order of `inputs` and `outputs`; `static` is a NamedTuple of what is no differentiable
    array: edges or rows, numbers, words.

    Attributes
    ----------
    name, formula : str
        `formula` is the row of the documentation.
    function, reference : callable
        What users call, and the specification in plain torch, which takes the same arguments.
    arguments : callable
        (static, *inputs) -> the arguments of both.
    static : type
        The NamedTuple; its fields are `EdgeRows`, `Rows`, `Rows | None`, float, int, bool or str.
    inputs, outputs, saved : tuple of Array
        `saved`: what the forward returns beside its outputs for the backward.
    forward : callable
        (static, inputs, needs_grad) -> outputs, then saved.
    backward : callable
        (static, grads, inputs, saved, needs_grad) -> a gradient for each input, or None.
    double_backward : callable
        (static, grad2, grads, inputs, needs_grad) -> the gradient of <grad2, backward(...)> for each of grads and of
        inputs, or None; grad2 has one entry an input, None where nothing multiplies it.
    example : callable
        `Example` -> static and inputs, for tests and benchmarks.
    options : tuple of dict
        The variants that `example` has, each tested.
    max_derivatives : callable
        static -> the number of derivatives, where it is not two.
    check : callable, optional
        (static, inputs): raises ValueError for what shapes do not say.
    devices : tuple of str
        Those with a kernel; on others, and under torch.compile unless CUDA is among them, the reference runs.
    partial_grads : bool
        Gradients of outputs that nothing depends on come as None instead of zeros.
    source : str
        Where the formula was published.
    """

    name: str
    formula: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    arguments: Callable[..., tuple[Any, ...]]
    static: type[Any]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    forward: Callable[[Any, Any, Flags], Optionals]
    backward: Callable[[Any, Any, Any, Any, Flags], Optionals]
    double_backward: Callable[[Any, Any, Any, Any, Flags], Optionals]
    example: Callable[[Example], tuple[Any, tuple[Tensor | None, ...]]]
    saved: tuple[Array, ...] = ()
    options: tuple[dict[str, Any], ...] = ({},)
    max_derivatives: Callable[[Any], int] = lambda static: 2
    check: Callable[[Any, Any], None] | None = None
    devices: tuple[str, ...] = ("cpu", "cuda")
    partial_grads: bool = False
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "_accepts", _acceptor(self.inputs, symbols(self.static)))

    _accepts: Callable[..., bool] = field(init=False, repr=False, compare=False)

    @property
    def has_operators(self) -> bool:
        """Whether torch.compile sees operators; otherwise the reference, which it can fuse."""
        return "cuda" in self.devices

    def __call__(self, static: Any, *inputs: Tensor | None) -> tuple[Any, ...]:
        """The outputs; None for those that are absent.

        Raises
        ------
        ValueError
            If a shape, dtype or device does not fit.
        """
        if torch.compiler.is_compiling():
            return self._compiled(static, inputs)
        self.check_arguments(static, inputs)
        if not self.has_operators and not inputs[0].is_cpu:  # type: ignore[union-attr]
            return as_tuple(self.reference(*self.arguments(static, *inputs)))
        if torch.is_grad_enabled() and any([x is not None and x.requires_grad for x in inputs]):  # noqa: C419 (faster)
            return _Forward.apply(self, static, *inputs)  # type: ignore[no-any-return, no-untyped-call]
        return tuple(self.forward(static, inputs, [False] * len(inputs))[: len(self.outputs)])

    def _compiled(self, static: Any, inputs: Optionals) -> tuple[Any, ...]:
        if not self.has_operators:
            return as_tuple(self.reference(*self.arguments(static, *inputs)))
        found = as_tuple(getattr(torch.ops.mdgnn, self.name)(*inputs, *flatten(static)))
        present = (o.present is None or o.present(static, inputs) for o in self.outputs)
        return tuple(t if there else None for t, there in zip(found[: len(self.outputs)], present, strict=True))

    def check_arguments(self, static: Any, inputs: Optionals) -> None:
        """Raise ValueError unless shapes, dtypes and devices fit; one sentence."""
        device, sizes = check_graph(static)
        if not self._accepts(sizes, device, *inputs):
            _refuse(self, device, dict(sizes), inputs)
        if self.check is not None:
            self.check(static, inputs)


def _refuse(op: Op, device: torch.device | None, sizes: dict[str, int], inputs: Optionals) -> None:
    """The sentence about the first array that does not fit."""
    first = inputs[0]
    if not isinstance(first, Tensor) or first.dtype not in FLOATS:
        got = first.dtype if isinstance(first, Tensor) else type(first).__name__
        raise ValueError(f"expected {op.inputs[0].name} in float32 or float64, got {got}")
    device = device or first.device
    for array, tensor in zip(op.inputs, inputs, strict=True):
        dtype = array.dtype or first.dtype
        absent = tensor is None and array.optional
        good = absent or (isinstance(tensor, Tensor) and tensor.dtype is dtype and tensor.device == device)
        if not good or (tensor is not None and not fits(array, tensor.shape, sizes)):
            raise ValueError(_sentence(array, tensor, sizes, dtype, device))
    raise AssertionError(f"{op.name}: arguments that fit were refused")


def _acceptor(inputs: Sequence[Array], given: str) -> Callable[..., bool]:
    """(sizes of the graph, its device, arrays) -> whether all fit, as `fits` says.

    Python is generated, as `namedtuple` does: loops over axes would take as long as a kernel of 13 atoms.
    """
    names = [f"x{k}" for k in range(len(inputs))]
    lines = [
        f"def accepts(sizes, device, {', '.join(names)}):",
        " try:",
        "  dtype = x0.dtype",
        "  device = device or x0.device",
    ]
    lines.append("  if dtype is not float32 and dtype is not float64: return False")
    known = set(given)
    for name, array in zip(names, inputs, strict=True):
        tests = [
            f"{name}.dtype is {'dtype' if array.dtype is None else str(array.dtype).split('.')[1]}",
            f"{name}.device == device",
        ]
        sizes, new = _sizes(array.shape), list[str]()
        if sizes is not None:
            tests.append(f"len(shape) == {len(sizes)}")
            for axis, (factor, symbol, more) in enumerate(sizes):
                if symbol is None:
                    tests.append(f"shape[{axis}] == {more}")
                elif symbol in known:
                    tests.append(f"shape[{axis}] == {factor} * {symbol} + {more}")
                else:
                    known.add(symbol)
                    new.append(f"{symbol} = (shape[{axis}] - {more}) // {factor}")
                    tests.append(f"shape[{axis}] >= {more} and (shape[{axis}] - {more}) % {factor} == 0")
        lines += [f"  if {name} is not None:" if array.optional else "  if True:"]
        lines += [
            f"   shape = {name}.shape",
            f"   if not ({' and '.join(tests)}): return False",
            *(f"   {line}" for line in new),
        ]
    lines += [" except AttributeError: return False", " return True"]
    lines[2:2] = [f"  {symbol} = sizes[{symbol!r}]" for symbol in given]
    namespace = {"float32": torch.float32, "float64": torch.float64}
    exec("\n".join(lines), namespace)
    accepts: Callable[..., bool] = namespace["accepts"]  # type: ignore[assignment]
    return accepts


def fits(array: Array, shape: Sequence[int], sizes: dict[str, int]) -> bool:
    """Whether a shape is the declared one; what it tells of new symbols goes into `sizes`."""
    declared = _sizes(array.shape)
    if declared is None:
        return True
    if len(shape) != len(declared):
        return False
    for (factor, symbol, more), size in zip(declared, shape, strict=True):
        if symbol is None:
            good = size == more
        elif symbol in sizes:
            good = size == factor * sizes[symbol] + more
        else:
            sizes[symbol] = (size - more) // factor
            good = size >= more and factor * sizes[symbol] + more == size
            if not good:
                del sizes[symbol]
        if not good:
            return False
    return True


def _sentence(array: Array, tensor: Any, sizes: dict[str, int], dtype: torch.dtype, device: torch.device) -> str:
    def text(size: tuple[int, str | None, int]) -> str:
        factor, symbol, more = size
        if symbol is None or symbol in sizes:
            return str(factor * sizes.get(symbol, 0) + more if symbol else more)
        return (f"{factor} " if factor > 1 else "") + symbol + (f" + {more}" if more else "")

    declared = _sizes(array.shape)
    shape = "any shape" if declared is None else f"shape ({', '.join(map(text, declared))}{',' * (len(declared) == 1)})"
    got = describe(tensor) if isinstance(tensor, Tensor) else type(tensor).__name__
    return f"expected {array.name} of {shape} {dtype} on {device}, got {got}"


def describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


def shape_of(array: Array, sizes: dict[str, Any]) -> tuple[Any, ...]:
    """The shape of a result, from the sizes that the inputs gave."""
    declared = _sizes(array.shape) or ()
    return tuple(more if symbol is None else factor * sizes[symbol] + more for factor, symbol, more in declared)


def as_tuple(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def table_of_ops(ops: Sequence[Op]) -> str:
    """The ops as a table in Markdown: what each computes, of which arrays, where it has kernels, and its source."""

    def arrays(given: Sequence[Array]) -> str:
        return ", ".join(f"`{a.name}` ({a.shape.replace(' ', ', ')})" + "?" * a.optional for a in given)

    lines = ["| Op | Computes | Inputs | Results | Kernels | Source |", "|---|---|---|---|---|---|"]
    for op in ops:
        devices = ", ".join({"cpu": "CPU", "cuda": "CUDA"}[d] for d in op.devices)
        formula = op.formula.replace("|", "\\|")
        cells = (f"`{op.name}`", f"`{formula}`", arrays(op.inputs), arrays(op.outputs), devices, op.source)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


# --- what the three functions of an op share -------------------------------------------------------------------------


def contiguous(tensors: Optionals) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def empty_like(tensors: Optionals, needs_grad: Flags) -> list[Tensor | None]:
    return [torch.empty_like(t) if w and t is not None else None for t, w in zip(tensors, needs_grad, strict=True)]


def plus(a: Optionals, b: Optionals) -> list[Tensor | None]:
    """Sums of what `a` has; None in `b` adds nothing."""
    return [x if x is None or y is None else x + y for x, y in zip(a, b, strict=True)]


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, static: Any, *inputs: Tensor) -> Any:
        ctx.op, ctx.static = op, static
        ctx.set_materialize_grads(not op.partial_grads)
        found = op.forward(static, inputs, ctx.needs_input_grad[2:])
        n = len(op.outputs)
        ctx.save_for_backward(*inputs, *found[n:])
        return tuple(found[:n])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        op, saved, needs_grad = ctx.op, ctx.saved_tensors, ctx.needs_input_grad[2:]
        n = len(op.inputs)
        inputs, saved = saved[:n], saved[n:]
        if op.partial_grads and all(g is None for g in grads):
            return (None,) * (n + 2)
        if torch.is_grad_enabled():
            found = _Backward.apply(op, ctx.static, needs_grad, saved, *grads, *inputs)  # type: ignore[no-untyped-call]
        else:
            found = op.backward(ctx.static, grads, inputs, saved, needs_grad)
        return (None, None, *found)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, static: Any, needs_grad: Flags, saved: Optionals, *tensors: Tensor) -> Any:
        ctx.op, ctx.static = op, static
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        n = len(op.inputs)
        return tuple(op.backward(static, tensors[:-n], tensors[-n:], saved, needs_grad))

    @staticmethod
    def backward(ctx: Any, *grad2: Tensor | None) -> Any:
        if all(g is None for g in grad2):
            return (None,) * len(ctx.needs_input_grad)
        args = (ctx.op, ctx.static, ctx.needs_input_grad[4:], *grad2, *ctx.saved_tensors)
        return (None, None, None, None, *_DoubleBackward.apply(*args))  # type: ignore[no-untyped-call]


class _DoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Op, static: Any, needs_grad: Flags, *tensors: Any) -> Any:
        ctx.name, n = op.name, len(op.inputs)
        return tuple(op.double_backward(static, tensors[:n], tensors[n:-n], tensors[-n:], needs_grad))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise third_derivative(ctx.name)


def third_derivative(name: str) -> RuntimeError:
    return RuntimeError(f"{name}: third derivatives are not implemented; the ladder ends at the second")
