"""What ops take beside arrays: NamedTuples of edges, rows, numbers and words, as operators of torch see them."""

from collections.abc import Sequence
from typing import Any

import torch

from mdgnn.ops.csr import EdgeRows, Rows

_NUMBERS = {float: "float", int: "int", bool: "bool", str: "str"}
_EDGES = ("row_ptr", "index", "columns_row_ptr", "columns_index", "columns_edge")
_ROWS = ("row_ptr", "index", "edge")


def _kinds(static: type[Any]) -> tuple[str, ...]:
    """ "edges", "rows", "rows?", or the type of an operator's number, for each field of a NamedTuple."""
    names = {EdgeRows: "edges", Rows: "rows", Rows | None: "rows?"} | _NUMBERS
    return tuple(names[kind] for kind in static.__annotations__.values())


def graph_of(static: type[Any]) -> tuple[int, type[EdgeRows] | type[Rows]] | None:
    """Which field of a NamedTuple is the graph that gives sizes, the first, and what it is; if there is one."""
    for k, kind in enumerate(static.__annotations__.values()):
        if kind in (EdgeRows, Rows):
            return k, kind
    return None


def symbols(static: type[Any]) -> str:
    """The sizes that `sizes_of` will give."""
    graph = graph_of(static)
    return "" if graph is None else "NE" if graph[1] is EdgeRows else "R"


def schema(static: type[Any]) -> list[tuple[str, str]]:
    """Type and name of each argument that `flatten` makes."""
    arguments: list[tuple[str, str]] = []
    for name, kind in zip(static.__annotations__, _kinds(static), strict=True):
        if kind == "edges":
            arguments += [("Tensor", f"{name}_{part}") for part in _EDGES]
        elif kind.startswith("rows"):
            arguments += [
                ("Tensor" if kind == "rows" and part == "row_ptr" else "Tensor?", f"{name}_{part}") for part in _ROWS
            ]
        else:
            arguments.append((kind, name))
    return arguments


def flatten(static: Any) -> list[Any]:
    """The fields as an operator takes them."""
    flat: list[Any] = []
    for value in static:
        if isinstance(value, EdgeRows):
            rows, columns = value.by_receiver, value.by_sender
            flat += [rows.row_ptr, rows.index, columns.row_ptr, columns.index, columns.edge]
        elif isinstance(value, Rows):
            flat += [value.row_ptr, value.index, value.edge]
        else:
            flat += [None, None, None] if value is None else [value]
    return flat


def unflatten(static: type[Any], flat: Sequence[Any]) -> Any:
    """The NamedTuple that `flatten` was given."""
    fields: list[Any] = []
    flat = list(flat)
    for kind in _kinds(static):
        if kind == "edges":
            fields.append(EdgeRows(Rows(*flat[:2]), Rows(*flat[2:5])))
            flat = flat[5:]
        elif kind.startswith("rows"):
            fields.append(None if flat[0] is None else Rows(*flat[:3]))
            flat = flat[3:]
        else:
            fields.append(flat.pop(0))
    return static(*fields)


def sizes_of(static: Any) -> dict[str, Any]:
    """The sizes that the first graph among the fields gives: N atoms and E edges, or R rows."""
    for given in static:
        if isinstance(given, EdgeRows):
            return {"N": given.by_receiver.row_ptr.shape[0] - 1, "E": given.n_edges}
        if isinstance(given, Rows):
            return {"R": given.row_ptr.shape[0] - 1}
    return {}


def check_graph(static: Any) -> tuple[torch.device | None, dict[str, int]]:
    """The device and the sizes of the graph among the fields, whose own arrays are checked."""
    graph = graph_of(type(static))
    if graph is None:
        return None, {}
    place, kind = graph
    if not isinstance(given := static[place], kind):
        raise ValueError(f"expected {static._fields[place]} as {kind.__name__}, got {type(given).__name__}")
    device, *sizes = given.checked
    return device, dict(zip(symbols(type(static)), sizes, strict=True))
