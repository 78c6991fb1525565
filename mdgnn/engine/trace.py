"""How a model becomes a program: it runs on stand-ins for its arrays, which note each operation that they take part in.

Torch's functions hand stand-ins to the table at the end of this file (the protocol ``__torch_function__``). What does
not depend on the structure, such as tables, is worked out as always and becomes a weight. So a model is written once,
and a new one that is made of the same operations needs nothing here.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn.engine.program import (
    Array,
    Elements,
    Energies,
    Joined,
    Linear,
    Numbers,
    OfElements,
    Polar,
    Program,
    UnsupportedError,
    Vectors,
    Weighted,
    handlers,
)
from mdgnn.nn import shifted_softplus
from mdgnn.ops import RadialTable, cfconv, concat_message_table, painn_message, polar, silu
from mdgnn.potential import Potential


def trace(model: Potential) -> Program:
    """Write down what a model does.

    Raises
    ------
    UnsupportedError
        If it does something that the engine has no instruction for.
    """
    program = Program(model.dtype, model.cutoff)
    try:
        with torch.no_grad():
            energies = model.atomic_energies(_Graph(program), Vectors())  # type: ignore[arg-type]
    except (TypeError, AttributeError) as error:
        raise UnsupportedError(f"the engine cannot run this {type(model).__name__}: {error}") from error
    if not isinstance(energies, Energies):
        raise UnsupportedError("expected energies of atoms from a network, scaled and shifted by element")
    program.energies, program.element_of = energies.network.number, energies.element_of.tolist()
    program.scale, program.shift = energies.scale.tolist(), energies.shift.tolist()
    return program


class _Graph:
    """The model may hand on the edges of atoms, not look into them."""

    neighbours = sent = by_sender = by_receiver = None

    def __init__(self, program: Program):
        self.atomic_numbers = Numbers(program)


def _index_select(table: Tensor, dim: int, index: Any) -> Any:
    if isinstance(index, Numbers):
        return Elements(index.program, table)
    return OfElements(table, index.element_of) if isinstance(index, Elements) else NotImplemented


def _embedding(elements: Any, weight: Tensor, *options: Any, **more: Any) -> Any:
    if not isinstance(elements, Elements):
        return NotImplemented
    return elements.program.add("embed", [], [(1, weight.shape[1])], (weight,))[0]


def _addcmul(shift: Any, network: Any, scale: Any) -> Any:
    if not (isinstance(shift, OfElements) and isinstance(scale, OfElements) and isinstance(network, Array)):
        return NotImplemented
    return Energies(network, scale.numbers, shift.numbers, shift.element_of)


def _linear(x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    parts = x.parts if isinstance(x, Joined) else [x]
    return Linear(parts, list(weight.split([p.cols for p in parts], dim=1))).plus(bias)


def _addmm(start: Any, x: Any, weight: Tensor) -> Any:
    if not (isinstance(start, Weighted) and isinstance(x, Array)):
        return NotImplemented
    first = start.linear()
    return Linear([x, *first.arrays], [weight.t(), *first.weights]).plus(None)


def _concat_message_table(ends: Array, table: RadialTable, r: Polar, *edges: Any) -> tuple[Array, Array]:
    width = ends.cols // 2
    shapes = [(1, width), (1, 1), (1, width)]
    out, s, _ = ends.program.add("concat_message_table", [ends], shapes, (table.coefficients,))
    return out, s


def _cfconv(x: Array, table: RadialTable, r: Polar, *edges: Any) -> Array:
    return x.program.add("cfconv", [x], [(1, x.cols)], (table.coefficients,))[0]


def _painn_message(x: Array, v: Array, table: RadialTable, r: Polar, unit: Polar, *edges: Any) -> Any:
    return tuple(x.program.add("painn_message", [x, v], [(1, v.cols), (3, v.cols)], (table.coefficients,)))


_HANDLERS: dict[Any, Callable[..., Any]] = {
    Tensor.index_select: _index_select,
    F.embedding: _embedding,
    torch.addcmul: _addcmul,
    F.linear: _linear,
    torch.addmm: _addmm,
    torch.cat: lambda parts, dim: Joined(list(parts)),
    silu: lambda x: x.then("silu"),
    shifted_softplus: lambda x: x.then("shifted_softplus"),
    polar: lambda vectors, directions=True: (Polar(), Polar() if directions else None),
    concat_message_table: _concat_message_table,
    cfconv: _cfconv,
    painn_message: _painn_message,
}
handlers.update(_HANDLERS)
