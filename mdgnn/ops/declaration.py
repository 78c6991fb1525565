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
from torch.autograd import Function

from mdgnn.ops.csr import EdgeRows, Rows
from mdgnn.ops.examples import Example
from mdgnn.ops.static import check_fields, check_graph, flatten, graph_of, symbols

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
        check_fields(self.static)
        object.__setattr__(self, "_accepts", _acceptor(self))
        object.__setattr__(self, "_autograd", _autograd_function(self))

    _accepts: Callable[..., bool] = field(init=False, repr=False, compare=False)
    _autograd: type[Function] = field(init=False, repr=False, compare=False)

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
        if not inputs[0].is_cpu and not self.has_operators:  # type: ignore[union-attr]
            given = [None if x is None else x.contiguous() for x in inputs]  # the same bits for any strides
            return as_tuple(self.reference(*self.arguments(static, *given)))
        if torch.is_grad_enabled():
            for x in inputs:
                if x is not None and x.requires_grad:
                    return self._autograd.apply(static, *inputs)  # type: ignore[no-any-return]
        return tuple(self.forward(static, inputs, (False,) * len(inputs))[: len(self.outputs)])

    def _compiled(self, static: Any, inputs: Optionals) -> tuple[Any, ...]:
        if not self.has_operators:
            return as_tuple(self.reference(*self.arguments(static, *inputs)))
        results = as_tuple(getattr(torch.ops.mdgnn, self.name)(*inputs, *flatten(static)))
        present = (o.present is None or o.present(static, inputs) for o in self.outputs)
        return tuple(t if there else None for t, there in zip(results[: len(self.outputs)], present, strict=True))

    def check_arguments(self, static: Any, inputs: Optionals) -> None:
        """Raise ValueError unless shapes, dtypes and devices fit; one sentence."""
        if not self._accepts(static, *inputs):
            _refuse(self, static, inputs)
        if self.check is not None:
            try:
                self.check(static, inputs)
            except AttributeError:  # of what stands for rows and is none
                check_graph(static)
                raise


def _refuse(op: Op, static: Any, inputs: Optionals) -> None:
    """The sentence about the first array that does not fit."""
    (device, sizes), first = check_graph(static), inputs[0]
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


def _acceptor(op: Op) -> Callable[..., bool]:
    """(static, arrays) -> whether all arrays fit, as `fits` says; what a graph says of itself is raised.

    Raises ValueError where an array that may be None is the first of a size that later ones have.

    Python is generated, as `namedtuple` does: loops over axes would take as long as a kernel of 13 atoms.
    """
    names, known, perhaps = [f"x{k}" for k in range(len(op.inputs))], symbols(op.static), ""
    lines = [
        f"def accepts(static, {', '.join(names)}):",
        " try:",
        "  dtype = x0.dtype",
        "  if dtype is not float32 and dtype is not float64: return False",
    ]
    graph = graph_of(op.static)
    if graph is None:
        lines.append("  device = x0.device")
    else:
        place, kind = graph
        lines += [
            f"  if not isinstance(static[{place}], {kind.__name__}): return False",
            f"  device, {', '.join(known)} = static[{place}].checked",
        ]
    for name, array in zip(names, op.inputs, strict=True):
        tests = _tests(array, name, known)
        new = "".join(symbol for _, symbol, _ in _sizes(array.shape) or () if symbol and symbol not in known)
        for symbol in new:
            if symbol in perhaps:
                raise ValueError(
                    f"{op.name}, {array.name}: the size {symbol} is first that of an array which may be None; "
                    "expected an input before it that has the size and may not"
                )
        if array.optional:
            lines += [f"  if {name} is not None:", *(f" {line}" for line in tests)]
            perhaps += new
        else:
            lines += tests
            known += new
    lines += [" except AttributeError: return False", " return True"]
    namespace = {"float32": torch.float32, "float64": torch.float64, "EdgeRows": EdgeRows, "Rows": Rows}
    exec("\n".join(lines), namespace)
    accepts: Callable[..., bool] = namespace["accepts"]  # type: ignore[assignment]
    return accepts


def _tests(array: Array, name: str, known: str) -> list[str]:
    """The lines about one array: new symbols take their values from its shape, which must then be the declared one."""
    dtype, sizes = "dtype" if array.dtype is None else str(array.dtype).removeprefix("torch."), _sizes(array.shape)
    lines, wrong = list[str](), [f"{name}.device != device"]
    if name != "x0":  # which gives the dtype
        wrong.append(f"{name}.dtype is not {dtype}")
    if sizes is not None:
        lines.append(f"  shape = {name}.shape")
        new = {symbol: axis for axis, (_, symbol, _) in reversed([*enumerate(sizes)]) if symbol and symbol not in known}
        if new:
            lines.append(f"  if len(shape) != {len(sizes)}: return False")
        for symbol, axis in new.items():
            factor, _, more = sizes[axis]
            lines.append(f"  {symbol} = (shape[{axis}] - {more}) // {factor}")
            if more:
                wrong.append(f"{symbol} < 0")
        wrong.append(f"shape != ({''.join(f'{_of_size(*size)}, ' for size in sizes)})")
    return [*lines, f"  if {' or '.join(wrong)}: return False"]


def _of_size(factor: int, symbol: str | None, more: int) -> str:
    """ "3 * F", "H + 1", "4"."""
    if symbol is None:
        return str(more)
    return (f"{factor} * " if factor > 1 else "") + symbol + (f" + {more}" if more else "")


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


def as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


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


def _autograd_function(op: Op) -> type[Function]:
    """The function of (static, *inputs) for eager autograd: classes of the op's own, which pass nothing they know."""
    n, m, partial, saves = len(op.inputs), len(op.outputs), op.partial_grads, bool(op.saved)

    class Forward(Function):
        @staticmethod
        def forward(ctx: Any, static: Any, *inputs: Tensor) -> Any:
            ctx.static = static
            if partial:
                ctx.set_materialize_grads(False)
            results = op.forward(static, inputs, ctx.needs_input_grad[1:])
            if saves:
                ctx.save_for_backward(*inputs, *results[m:])
                return tuple(results[:m])
            ctx.save_for_backward(*inputs)
            return tuple(results)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            if partial and grads[0] is None and _all_none(grads):
                return (None,) * (1 + n)
            inputs: Optionals = ctx.saved_tensors
            saved: Optionals = ()
            if saves:
                inputs, saved = inputs[:n], inputs[n:]
            needs_grad = gradients_asked_for(ctx, 1, inputs)
            if torch.is_grad_enabled():
                return None, *Backward.apply(ctx.static, saved, needs_grad, *grads, *inputs)  # type: ignore[no-untyped-call]
            return None, *op.backward(ctx.static, grads, inputs, saved, needs_grad)

    class Backward(Function):
        @staticmethod
        def forward(ctx: Any, static: Any, saved: Optionals, needs_grad: Flags, *tensors: Tensor) -> Any:
            ctx.static = static
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*tensors)
            return tuple(op.backward(static, tensors[:m], tensors[m:], saved, needs_grad))

        @staticmethod
        def backward(ctx: Any, *grad2: Tensor | None) -> Any:
            if grad2[0] is None and _all_none(grad2):
                return (None,) * (3 + m + n)
            static, tensors = ctx.static, ctx.saved_tensors
            needs_grad = gradients_asked_for(ctx, 3, tensors)
            if torch.is_grad_enabled():
                results = DoubleBackward.apply(static, needs_grad, *grad2, *tensors)  # type: ignore[no-untyped-call]
            else:
                results = op.double_backward(static, grad2, tensors[:m], tensors[m:], needs_grad)
            return None, None, None, *results

    class DoubleBackward(Function):
        @staticmethod
        def forward(ctx: Any, static: Any, needs_grad: Flags, *tensors: Any) -> Any:
            grad2, grads, inputs = tensors[:n], tensors[n:-n], tensors[-n:]
            return tuple(op.double_backward(static, grad2, grads, inputs, needs_grad))

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise third_derivative(op.name)

    for function, suffix in ((Forward, ""), (Backward, "_backward"), (DoubleBackward, "_double_backward")):
        # Which torch's sentences name.
        function._backward_cls.__name__ = f"{op.name}{suffix}"
    return Forward


def gradients_asked_for(ctx: Any, n_first: int, tensors: Optionals) -> Flags:
    """Of which tensors, the arguments behind the first few, this pass over the graph wants the gradient.

    `needs_input_grad` says which have one: in a pass that forces are asked of, those of all weights would be computed
    and dropped. The engine knows; nodes stand in the order of the arguments that are tensors.
    """
    flags: Flags = ctx.needs_input_grad[n_first:]
    if sum(flags) < 2:
        return flags
    nodes = iter(ctx.next_functions)
    return tuple(t is not None and _will_run(next(nodes)[0]) for t in tensors)


def _will_run(node: Any) -> bool:
    """Whether the engine will come to a node of the graph, or to where a tensor has none."""
    try:
        return node is not None and torch._C._will_engine_execute_node(node)
    except RuntimeError:  # of a leaf whose gradient `torch.autograd.grad` is to return
        return True


def _all_none(tensors: Optionals) -> bool:
    for t in tensors:  # noqa: SIM110  (half the time of a generator)
        if t is not None:
            return False
    return True


def third_derivative(name: str) -> RuntimeError:
    return RuntimeError(f"{name}: third derivatives are not implemented; the ladder ends at the second")
