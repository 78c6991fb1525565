"""A program for the engine, and the stand-ins for arrays that write it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class UnsupportedError(TypeError):
    """A model does what the engine has no instruction for; the message names it."""


class Instruction(NamedTuple):
    """See csrc/engine/program.hpp."""

    code: str
    inputs: list[int]
    outputs: list[int]
    weights: list[int]
    constant: float


class Program:
    """Arrays of atoms, instructions and weights.

    Attributes
    ----------
    values : list of (blocks, cols, base, first)
        Arrays (N, cols), or with 3 blocks (N, 3, cols); those with a base are columns of another one.
    instructions : list of Instruction
    weights : list of Tensor
        In the model's dtype.
    energies : int
        The array (N, 1) of the network's energies.
    scale, shift : list of float
        Of each element: an atom's energy is ``scale * network + shift``.
    element_of : list of int
        An element by atomic number; -1 where the model knows none.
    cutoff : float
    """

    def __init__(self, dtype: torch.dtype, cutoff: float):
        self.dtype, self.cutoff = dtype, cutoff
        self.values: list[tuple[int, int, int, int]] = []
        self.instructions: list[Instruction] = []
        self.weights: list[Tensor] = []
        self.energies = -1
        self.scale: list[float] = []
        self.shift: list[float] = []
        self.element_of: list[int] = []
        self.elements: Tensor | None = None  # the same, as the model has it

    def add(
        self,
        code: str,
        inputs: "list[Array]",
        shapes: list[tuple[int, int]],
        weights: tuple[Tensor, ...] = (),
        constant: float = 0.0,
    ) -> "list[Array]":
        """One more instruction; its outputs, of (blocks, cols) each."""
        if any(x.program is not self for x in inputs):
            raise UnsupportedError("the engine cannot take arrays of another call of the model")
        first = len(self.weights)
        self.weights += [w.detach().to("cpu", self.dtype).contiguous().clone() for w in weights]
        outputs = [self.value(*shape) for shape in shapes]
        numbers = [x.number for x in inputs], [x.number for x in outputs], list(range(first, len(self.weights)))
        self.instructions.append(Instruction(code, *numbers, constant))
        return outputs

    def value(self, blocks: int, cols: int, base: int = -1, first: int = 0) -> "Array":
        self.values.append((blocks, cols, base, first))
        return Array(self, len(self.values) - 1)


handlers: dict[Any, Callable[..., Any]] = {}  # what functions do with stand-ins; `mdgnn.engine.trace` fills it

# --- stand-ins -------------------------------------------------------------------------------------------------------


class Traced:
    """What torch's functions, and ours, hand to `handlers`."""

    device = torch.device("cpu")
    __hash__ = object.__hash__

    def _refuse(self, other: Any) -> Any:
        """Changes in place would not be seen through other names, and comparisons would be of the stand-ins."""
        raise UnsupportedError("the engine has no instruction for comparisons and for changes in place")

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __iadd__ = __isub__ = __imul__ = __itruediv__ = _refuse

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        handler = handlers.get(func)
        found = NotImplemented if handler is None else handler(*args, **(kwargs or {}))
        if found is NotImplemented:
            raise UnsupportedError(
                f"the engine has no instruction for {getattr(func, '__name__', func)} of these arguments"
            )
        return found


class Numbers(Traced):
    """Atomic numbers (N,)."""

    def __init__(self, program: Program):
        self.program = program


class Elements(Traced):
    """Rows of the embedding (N,)."""

    def __init__(self, program: Program, element_of: Tensor):
        self.program, self.element_of = program, element_of


class OfElements(Traced):
    """A number for each element, by atom (N,)."""

    def __init__(self, numbers: Tensor, element_of: Tensor):
        self.numbers, self.element_of = numbers, element_of


class Vectors(Traced):
    """Edge vectors (E, 3)."""


class Polar(Traced):
    """Lengths (E,) or directions (E, 3) of edge vectors."""

    def __init__(self, what: str):
        self.what = what


class Energies(Traced):
    def __init__(self, network: "Array", scale: Tensor, shift: Tensor, element_of: Tensor):
        self.network, self.scale, self.shift, self.element_of = network, scale, shift, element_of


class _Many:
    """How many atoms there are is not known while a model is traced."""

    def __repr__(self) -> str:
        return "N"


_MANY = _Many()


class Array(Traced):
    """An array of atoms, (N, cols) or (N, 3, cols)."""

    def __init__(self, program: Program, number: int):
        self.program, self.number = program, number
        self.blocks, self.cols, self.base, self.first = program.values[number]

    @property
    def shape(self) -> tuple[Any, ...]:
        """The number of atoms is one that nothing can be computed with."""
        return (_MANY, self.cols) if self.blocks == 1 else (_MANY, self.blocks, self.cols)

    @property
    def dtype(self) -> torch.dtype:
        return self.program.dtype

    def then(self, code: str, *others: "Array", blocks: int = 0, constant: float = 0.0) -> "Array":
        """The result, of this array's shape or with other `blocks`, of an instruction without weights."""
        shape = (blocks or self.blocks, self.cols)
        return self.program.add(code, [self, *others], [shape], constant=constant)[0]

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Array) and (self.blocks, self.cols) == (other.blocks, other.cols):
            return self.then("add", other)
        number = isinstance(other, (float, int)) and not isinstance(other, bool)
        return Raised(self, float(other)) if number else NotImplemented

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Array) and (self.blocks, self.cols) == (other.blocks, other.cols):
            return Product(self, other) if self.blocks == 3 else self.then("multiply", other)
        if isinstance(other, Tensor) and self.blocks == 1 and other.ndim <= 2:
            return Weighted(self, other)
        return NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        other = other.array.then("plus", constant=other.constant) if isinstance(other, Raised) else other
        if isinstance(other, Array) and other.cols == 1 and other.blocks == self.blocks:
            return self.then("divide", other)
        return NotImplemented

    def clamp(self, min: float) -> "Array":
        return self.then("at_least", constant=float(min))

    def __getitem__(self, key: Any) -> Any:
        if self.blocks == 1 and key == (slice(None), None):
            return ForVectors(self)
        raise UnsupportedError(f"the engine has no instruction for the part {key} of an array")

    def chunk(self, n: int, dim: int) -> "list[Array]":
        size = self.cols // n
        if size * n != self.cols or dim != len(self.shape) - 1 or self.base != -1:
            raise UnsupportedError("the engine takes chunks of the same size, of the last dimension")
        return [self.program.value(self.blocks, size, self.number, k * size) for k in range(n)]

    def squeeze(self, dim: int) -> "Array":
        if self.cols != 1 or dim not in (1, -1):
            raise UnsupportedError("the engine squeezes the columns of (N, 1) alone")
        return self

    def new_zeros(self, *shape: Any) -> "Array":
        if len(shape) not in (2, 3) or shape[0] is not _MANY or not all(isinstance(n, int) for n in shape[1:]):
            raise UnsupportedError("the engine makes zeros of shapes (N, C) and (N, 3, C)")
        blocks = 1 if len(shape) == 2 else shape[1]
        return self.program.add("zeros", [], [(blocks, shape[-1])])[0]


class Joined(Traced):
    """Columns of several arrays, for a Linear."""

    def __init__(self, parts: list[Array]):
        self.parts = parts


class Raised(Traced):
    """An array plus a number, for a root or as a divisor."""

    def __init__(self, array: Array, constant: float):
        self.array, self.constant = array, constant

    def sqrt(self) -> Array:
        return self.array.then("root", constant=self.constant)


class Product(Traced):
    """Of vectors, for a sum over their components."""

    def __init__(self, a: Array, b: Array):
        self.a, self.b = a, b

    def sum(self, dim: int) -> Array:
        if dim != 1:
            raise UnsupportedError("the engine sums products of vectors over their components")
        return self.a.then("dot", self.b, blocks=1)


class ForVectors(Traced):
    """An array that multiplies the vectors of its atom."""

    def __init__(self, array: Array):
        self.array = array

    def __mul__(self, other: Any) -> Any:
        if isinstance(other, Array) and other.blocks == 3:
            return other.program.add("scale_vectors", [self.array, other], [(3, other.cols)])[0]
        return NotImplemented


class Weighted(Traced):
    """(N, 1) or (N, C) times a row of weights: to be added to a product, or summed."""

    def __init__(self, array: Array, weights: Tensor):
        self.array, self.weights = array, weights.reshape(-1)

    def sum(self, dim: int, keepdim: bool = False) -> "Linear":
        if dim != 1 or not keepdim:
            raise UnsupportedError("the engine sums products with weights over columns")
        return Linear([self.array], [self.weights.expand(self.array.cols)[None]])

    def linear(self) -> "Linear":
        if self.array.cols != 1:
            raise UnsupportedError("the engine has no instruction for columns times weights")
        return Linear([self.array], [self.weights[:, None]])


class Linear(Traced):
    """Products with weights (outputs, inputs), still without a bias."""

    def __init__(self, arrays: list[Array], weights: list[Tensor]):
        self.arrays, self.weights = arrays, weights

    def plus(self, bias: Tensor | None) -> Array:
        shape = (self.arrays[0].blocks, len(self.weights[0]))
        rest = () if bias is None else (bias.reshape(-1),)
        return self.arrays[0].program.add("linear", self.arrays, [shape], (*self.weights, *rest))[0]

    def __add__(self, other: Any) -> Any:
        return self.plus(other) if isinstance(other, Tensor) else NotImplemented
