"""How a model becomes a program: it runs on stand-ins for its arrays, which note each operation that they take part in.

Torch's functions hand stand-ins to the table at the end of this file (the protocol ``__torch_function__``). What does
not depend on the structure, such as tables, is worked out as always and becomes a weight. So a model is written once,
and a new one that is made of the same operations needs nothing here.
"""

import traceback
from collections.abc import Callable
from pathlib import Path
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
from mdgnn.engine.simplify import simplify
from mdgnn.nn import shifted_softplus
from mdgnn.ops import TabulatedFilter, cfconv, concat_message_table, painn_message, polar, silu
from mdgnn.potential import Potential


def trace(model: Potential) -> Program:
    """Write down what a model does.

    Raises
    ------
    UnsupportedError
        If it does something that the engine has no instruction for, or has learnt no energies.
    """
    heads: Any = getattr(model, "heads", None)
    if heads is not None and not heads.energy:
        raise UnsupportedError(f"the engine cannot run this {type(model).__name__}: the model has learnt no energies")
    program = Program(model.dtype, model.cutoff)
    try:
        with torch.no_grad():
            energies = model.atomic_energies(_Graph(program), Vectors())  # type: ignore[arg-type]
    except AttributeError as error:  # of a stand-in
        reason = f"it has no instruction for {error.name!r} of a model's arrays ({_line_of(error)})"
        raise UnsupportedError(f"the engine cannot run this {type(model).__name__}: {reason}") from error
    except (TypeError, ValueError, IndexError, RuntimeError) as error:  # UnsupportedError is a TypeError
        raise UnsupportedError(f"the engine cannot run this {type(model).__name__}: {error}") from error
    if not isinstance(energies, Energies):
        raise UnsupportedError(
            f"the engine cannot run this {type(model).__name__}: its energies are not scaled by element"
        )
    program.energies, program.element_of = energies.network.number, energies.element_of.tolist()
    program.scale, program.shift = energies.scale.tolist(), energies.shift.tolist()
    simplify(program)
    return program


def _line_of(error: Exception) -> str:
    """Where the model asked for what there is not."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/torch/" not in Path(f.filename).as_posix()]
    of_model = [f for f in frames if Path(f.filename).parent.name not in ("engine", "ops")] or frames
    return f"{Path(of_model[-1].filename).name}, line {of_model[-1].lineno}: {of_model[-1].line}"


class _Graph:
    """The model may hand on the edges of atoms, not look into them."""

    edges = object()

    def __init__(self, program: Program):
        self.atomic_numbers = Numbers(program)


def _index_select(table: Tensor, dim: int, index: Any) -> Any:
    if isinstance(index, Numbers):
        if index.program.elements is not None and index.program.elements is not table:
            raise UnsupportedError("the engine takes one numbering of elements")
        index.program.elements = table
        return Elements(index.program, table)
    return OfElements(table, index.element_of) if isinstance(index, Elements) else NotImplemented


def _embedding(
    elements: Any, weight: Tensor, padding_idx: Any = None, max_norm: Any = None, *rest: Any, **more: Any
) -> Any:
    if not isinstance(elements, Elements) or max_norm is not None:
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


def _cat(parts: list[Any], dim: int = 0) -> Any:
    good = all(isinstance(p, Array) and dim in (-1, len(p.shape) - 1) for p in parts)
    return Joined(list(parts)) if good else NotImplemented


def _message(
    code: str, inputs: list[Array], shapes: list[tuple[int, int]], filter: Any, edges: Any, unit: Any = None
) -> Any:
    if not isinstance(filter, TabulatedFilter):
        raise UnsupportedError("it has no instruction for filters that are no tables")
    (table, r), program = filter, inputs[0].program
    along = isinstance(r, Polar) and r.what == "lengths" and edges is _Graph.edges
    if not along or not (unit is None or (isinstance(unit, Polar) and unit.what == "directions")):
        raise UnsupportedError("the engine sends messages along the edges of the graph")
    if table.cutoff != program.cutoff:
        raise UnsupportedError(
            f"the engine takes tables up to the model's cutoff, {program.cutoff}, not {table.cutoff}"
        )
    return program.add(code, inputs, shapes, (table.coefficients,))


def _concat_message_table(ends: Array, filter: Any, edges: Any) -> Any:
    width = ends.cols // 2
    return tuple(_message("concat_message_table", [ends], [(1, width), (1, 1), (1, width)], filter, edges)[:2])


def _cfconv(x: Array, filter: Any, edges: Any) -> Any:
    return _message("cfconv", [x], [(1, x.cols)], filter, edges)[0]


def _painn_message(x: Array, v: Array, filter: Any, unit: Any, edges: Any) -> Any:
    return tuple(_message("painn_message", [x, v], [(1, v.cols), (3, v.cols)], filter, edges, unit))


def _polar(vectors: Any, directions: bool = True) -> Any:
    if not isinstance(vectors, Vectors):
        return NotImplemented
    return Polar("lengths"), Polar("directions") if directions else None


_HANDLERS: dict[Any, Callable[..., Any]] = {
    Tensor.index_select: _index_select,
    F.embedding: _embedding,
    torch.addcmul: _addcmul,
    F.linear: _linear,
    torch.addmm: _addmm,
    torch.cat: _cat,
    silu: lambda x: x.then("silu"),
    shifted_softplus: lambda x: x.then("shifted_softplus"),
    polar: _polar,
    concat_message_table: _concat_message_table,
    cfconv: _cfconv,
    painn_message: _painn_message,
}
handlers.update(_HANDLERS)
