"""What ops take beside arrays: NamedTuples of edges, rows, numbers and words, as operators of torch see them."""

from collections.abc import Sequence
from typing import Any, ForwardRef

import torch

from mdgnn.ops.csr import EdgeRows, Rows

_FROM_A_GRAPH = {EdgeRows: "graph.edges", Rows: "graph.edges_by_receiver"}
_NUMBERS = {float: "float", int: "int", bool: "bool", str: "str"}
_EDGES = ("row_ptr", "index", "columns_row_ptr", "columns_index", "columns_edge")
_ROWS = ("row_ptr", "index", "edge")


_KINDS: dict[Any, str] = {EdgeRows: "edges", Rows: "rows", Rows | None: "rows?"} | _NUMBERS


def _kinds(static: type[Any]) -> tuple[str, ...]:
    """ "edges", "rows", "rows?", or the type of an operator's number, for each field of a NamedTuple."""
    return tuple(_KINDS[kind] for kind in static.__annotations__.values())


def check_fields(static: type[Any]) -> None:
    """Raise TypeError for a field of another kind."""
    for name, kind in static.__annotations__.items():
        if kind not in _KINDS:
            got = getattr(kind, "__name__", repr(kind))
            if isinstance(kind, ForwardRef):
                got = f"{kind.__forward_arg__!r} in quotes, or by 'from __future__ import annotations'"
            raise TypeError(
                f"{static.__name__}.{name}: expected EdgeRows, Rows, Rows | None, float, int, bool or str, got {got}"
            )


def graph_of(static: type[Any]) -> tuple[int, type[EdgeRows] | type[Rows]] | None:
    """Which field of a NamedTuple is the graph that gives sizes, the first, and what it is; if there is one."""
    for k, kind in enumerate(static.__annotations__.values()):
        if kind in (EdgeRows, Rows):
            return k, kind
    return None


def graphs_of(static: type[Any]) -> list[tuple[int, type[EdgeRows] | type[Rows], bool]]:
    """Which fields are graphs, what they are, and whether they may be None."""
    kinds = {"edges": (EdgeRows, False), "rows": (Rows, False), "rows?": (Rows, True)}
    return [(place, *kinds[kind]) for place, kind in enumerate(_kinds(static)) if kind in kinds]


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


def check_kind(name: str, given: Any, kind: type[EdgeRows] | type[Rows]) -> None:
    """Raise ValueError unless what stands for edges or rows are some."""
    if not isinstance(given, kind):
        raise ValueError(
            f"expected {name} as {kind.__name__}, such as {_FROM_A_GRAPH[kind]}, got {type(given).__name__}"
        )


def check_graph(static: Any) -> tuple[torch.device | None, dict[str, int]]:
    """The device and the sizes of the graph among the fields, whose own arrays are checked."""
    for place, kind, optional in graphs_of(type(static)):
        if not (optional and static[place] is None):
            check_kind(static._fields[place], static[place], kind)
    graph = graph_of(type(static))
    if graph is None:
        return None, {}
    device, *sizes = static[graph[0]].checked
    return device, dict(zip(symbols(type(static)), sizes, strict=True))
