"""How a model becomes a graph of operations: it runs on tensors that hold no numbers but say what made them.

Torch hands each of its functions of a `Captured` tensor, and our ops hand themselves, to the table of
`mdgnn.engine.operations` (the protocol ``__torch_function__``). What does not depend on the structure, such as weights,
never comes here: torch works it out. A tensor's dimensions are named after the axes of the array that it shows, so that
views, transposes and ``[:, None]`` cost nothing.

Below, at ATen's operations, there would be fewer names to know. But the first operation of a Python tensor there makes
torch import its distributed tensors and sympy, which takes a second.

The model runs twice, with two numbers of atoms and edges. What differs depends on them, and is refused.
"""

import linecache
import math
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.algebra import Algebra, Node
from mdgnn.engine.program import content
from mdgnn.engine.unsupported import UnsupportedError

ROW, COMPONENT, CHANNEL = "row", "component", "channel"
Axes = tuple[tuple[str, ...], ...]  # of each dimension: none where the size is 1, several where they are flattened
SIZES = ({"atom": 211, "edge": 1009}, {"atom": 223, "edge": 1013})  # of the two runs: primes that no layer has


class Capture:
    """One run of a model, or of the function of a table.

    Parameters
    ----------
    rows : dict
        The number of rows in each space.
    apply : callable
        (capture, function, args, kwargs) -> the result of a function of captured tensors.
    """

    def __init__(self, rows: dict[str, int], apply: Callable[..., Any]):
        self.rows, self.apply = rows, apply
        self.algebra = Algebra(model_line, told)
        self.element_of: Tensor | None = None  # by atomic number, once an atom's element has been asked for
        self._constants: dict[Any, tuple[Tensor, Tensor]] = {}  # each with its copy

    def tensor(self, node: Node, axes: Axes, dtype: torch.dtype, alias: "Captured | None" = None) -> "Captured":
        """Names of axes of size 1 are left out."""
        axes = tuple(tuple(a for a in names if self.size(node, a) > 1) for names in axes)
        return Captured(self, node, axes, dtype, alias)

    def constant(self, tensor: Tensor) -> Tensor:
        """A copy, which stays what the tensor is now; the same one for as long as nothing changes it."""
        tensor = tensor.detach()
        if tensor.is_inference():  # whose changes torch does not count
            return tensor.clone()
        key = tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor._version
        return self._constants.setdefault(key, (tensor, tensor.clone()))[1]

    def size(self, node: Node, axis: str) -> int:
        return {ROW: self.rows[node.space], COMPONENT: node.components, CHANNEL: node.channels}[axis]

    def refusal(self, what: str) -> UnsupportedError:
        return self.algebra.refusal(what)


class Captured(Tensor):
    """A tensor without numbers.

    Attributes
    ----------
    capture : Capture
    node : Node
    axes : tuple of tuples
        The axes of the node that each dimension runs over.
    """

    capture: Capture
    node: Node
    axes: Axes
    sharers: "list[weakref.ref[Captured]]"
    shape_and_dtype: tuple[torch.Size, torch.dtype]
    # Torch's own would come by way of `__torch_function__`.
    shape = property(lambda self: self.shape_and_dtype[0])
    ndim = property(lambda self: len(self.axes))
    dtype = property(lambda self: self.shape_and_dtype[1])

    @staticmethod
    def __new__(cls, capture: Capture, node: Node, axes: Axes, dtype: torch.dtype, alias: "Captured | None") -> Any:
        shape = [math.prod(capture.size(node, a) for a in names) for names in axes]
        made = Tensor._make_wrapper_subclass(cls, shape, dtype=dtype)
        made.capture, made.node, made.axes = capture, node, axes
        made.shape_and_dtype = torch.Size(shape), dtype
        made.sharers = [] if alias is None else alias.sharers  # of memory, if there were any
        made.sharers.append(weakref.ref(made))
        return made

    def __init__(self, *args: Any):
        super().__init__()

    def __repr__(self, **others: Any) -> str:  # type: ignore[override]
        return f"Captured({self.node.op}, shape={tuple(self.shape)})"

    def shared(self) -> bool:
        """Whether a change in place would be seen by other tensors."""
        return sum(other() is not None for other in self.sharers) > 1

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        capture = first_captured([*args, *kwargs.values()]).capture
        return capture.apply(capture, function, args, kwargs)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Of functions that torch does not hand over."""
        raise first_captured([*args, *(kwargs or {}).values()]).capture.refusal(str(function))


def first_captured(values: Sequence[Any]) -> "Captured":
    for x in values:
        if isinstance(x, Captured):
            return x
        if isinstance(x, (list, tuple)) and any(isinstance(y, Captured) for y in x):
            return first_captured(x)
    raise UnsupportedError("it has no instruction for this operation")


def model_line() -> tuple[str, int]:
    """File and line that run now, of the first frame outside of torch and of what models are made of."""
    frame: Any = sys._getframe(1)
    place = frame.f_code.co_filename, frame.f_lineno
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_MODELS):
        place = frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return place if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def line_of(error: BaseException) -> tuple[str, int]:
    """As `model_line`, of what an error passed."""
    places, trace = list[tuple[str, int]](), error.__traceback__
    while trace is not None:
        places.append((trace.tb_frame.f_code.co_filename, trace.tb_lineno))
        trace = trace.tb_next
    of_models = [place for place in places if not place[0].startswith(_NOT_MODELS)]
    return (of_models or places)[-1]


_OURS = tuple(str(Path(__file__).parents[1] / name) + os.sep for name in ("engine", "ops", "nn", "_internal"))
_NOT_MODELS = (str(Path(torch.__file__).parent) + os.sep, *_OURS, "<")


def told(line: tuple[str, int]) -> str:
    """A line for a sentence."""
    filename, number = line
    return f"{Path(filename).name}, line {number}: {linecache.getline(filename, number).strip()}"


def run_at_two_sizes(
    run: Callable[[Capture], list[Captured]], apply: Callable[..., Any]
) -> tuple[Capture, list[Captured]]:
    """The second of two runs of different numbers of atoms and edges, which are the same operations.

    Raises
    ------
    UnsupportedError
        For an operation that is refused, or that depends on the numbers of atoms and edges.
    """
    first, second = (Capture(rows, apply) for rows in SIZES)
    outs = _run(run, first), _run(run, second)
    nodes = first.algebra.nodes, second.algebra.nodes
    number = [{id(node): k for k, node in enumerate(of)} for of in nodes]
    for a, b in zip(*nodes, strict=False):
        places = [[n[id(x)] for x in node.inputs] for n, node in zip(number, (a, b), strict=True)]
        same = (a.op, a.shape, a.numbers, places[0]) == (b.op, b.shape, b.numbers, places[1])
        values = zip((a.value, *a.weights), (b.value, *b.weights), strict=True) if same else ()
        if not same or not all(_equal(x, y) for x, y in values):
            raise _differs(b)
    if len(nodes[0]) != len(nodes[1]):
        raise _differs(max(nodes, key=len)[min(map(len, nodes))])
    for one, other in zip(*outs, strict=True):
        if number[0][id(one.node)] != number[1][id(other.node)]:
            raise _differs(other.node)
    return second, outs[1]


def _equal(x: Tensor | None, y: Tensor | None) -> bool:
    """Bit by bit: numbers that are none equal themselves, too."""
    return x is y or (x is not None and y is not None and content(x) == content(y))


def _differs(node: Node) -> UnsupportedError:
    what = "what depends on the number of atoms or edges"
    return UnsupportedError(f"it has no instruction for {what} ({told(node.line)})")


def _run(run: Callable[[Capture], list[Captured]], capture: Capture) -> list[Captured]:
    """The first refusal is raised, whatever became of it: Python tries ``x = x + y`` where ``x += y`` is refused."""
    try:
        with torch.no_grad():
            out = run(capture)
    except Exception:
        if capture.algebra.refused is None:
            raise
    if capture.algebra.refused is not None:
        raise capture.algebra.refused
    return out
