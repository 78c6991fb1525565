"""What a model does with the edges of the graph: lengths and directions, and messages along them."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.algebra import Node
from mdgnn.engine.capture import CHANNEL, COMPONENT, ROW, Capture, Captured, model_line, told
from mdgnn.engine.program import UnsupportedError
from mdgnn.ops import polar
from mdgnn.ops.cfconv import CFCONV
from mdgnn.ops.concat_message_table import CONCAT_MESSAGE_TABLE
from mdgnn.ops.declaration import Array, Op, fits, shape_of
from mdgnn.ops.painn_message import PAINN_MESSAGE

# Those that the engine has an instruction for. How they are captured follows from the declarations: the inputs of N
# rows are arrays of atoms, a filter is a table at the lengths of the graph's edges, and `unit` their directions.
MESSAGES: dict[str, Op] = {op.name: op for op in (CFCONV, CONCAT_MESSAGE_TABLE, PAINN_MESSAGE)}


def features_of(op: Op) -> list[Array]:
    """The inputs that are arrays of atoms, (N, C) or (N, K, C)."""
    return [array for array in op.inputs if array.shape.startswith("N ")]


def result_shapes(op: Op, shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(components, channels) of what a message makes of features of these shapes; [] where they do not fit."""
    sizes = {"N": 0}
    for array, shape in zip(features_of(op), shapes, strict=True):
        if not fits(array, (0, *shape) if has_components(array) else (0, shape[1]), sizes):
            return []
    return [(1, *shape_of(out, sizes)[1:])[-2:] for out in op.outputs]


def has_components(array: Array) -> bool:
    return len(array.shape.split()) == 3


class CapturedEdges:
    """The edges of the graph. Models hand them on, and cannot look into them."""

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError(f"it has no instruction for {name!r} of graph.edges ({told(model_line())})")


class CapturedGraph:
    """The graph of a run."""

    edges = CapturedEdges()

    def __init__(self, capture: Capture, dtype: torch.dtype):
        self.n_atoms, self.n_edges = capture.rows["atom"], capture.rows["edge"]
        numbers = capture.algebra.node("atomic_numbers", (), (1, 1), space="atom")
        self.atomic_numbers = capture.tensor(numbers, ((ROW,),), torch.int64)
        vectors = capture.algebra.node("edge_vectors", (), (3, 1), space="edge")
        self.vectors = capture.tensor(vectors, ((ROW,), (COMPONENT,)), dtype)

    def __getattr__(self, name: str) -> Any:
        raise UnsupportedError(f"it has no instruction for 'graph.{name}' ({told(model_line())})")


def _polar(capture: Capture, vectors: Any, directions: bool = True) -> Any:
    if vectors.node.op != "edge_vectors" or vectors.axes != ((ROW,), (COMPONENT,)):
        raise capture.refusal("lengths of other vectors than those of edges")
    length = capture.algebra.node("edge_lengths", (), (1, 1), space="edge")
    r = capture.tensor(length, ((ROW,),), vectors.dtype)
    if not directions:
        return r, None
    direction = capture.algebra.node("edge_directions", (), (3, 1), space="edge")
    return r, capture.tensor(direction, ((ROW,), (COMPONENT,)), vectors.dtype)


def _axes(array: Array) -> tuple[tuple[str, ...], ...]:
    return ((ROW,), (COMPONENT,), (CHANNEL,)) if has_components(array) else ((ROW,), (CHANNEL,))


def _features(capture: Capture, x: Any, array: Array) -> Node:
    """The node of a tensor that is declared as such an array."""
    expected = _axes(array)
    if not isinstance(x, Captured):
        raise capture.refusal("messages of constant arrays")
    if len(x.axes) != len(expected) or any(a not in ((), e) for a, e in zip(x.axes, expected, strict=True)):
        raise capture.refusal(f"messages of arrays of shape {tuple(x.shape)}")
    return x.node


def _is(x: Any, op: str) -> bool:
    return isinstance(x, Captured) and x.node.op == op


def _message(op: Op) -> Callable[..., Any]:
    """What captures it."""
    signature = inspect.signature(op.function)

    def captured(capture: Capture, *args: Any, **options: Any) -> Any:
        given = signature.bind(*args, **options).arguments
        if isinstance(given["filter"], Tensor):
            raise capture.refusal(f"{op.name} with a filter that is not a table")
        table, r = given["filter"]
        along = given["edges"] is CapturedGraph.edges and _is(r, "edge_lengths")
        if not along or ("unit" in given and not _is(given["unit"], "edge_directions")):
            raise capture.refusal(f"{op.name} that does not go along the edges of the graph")
        inputs = [_features(capture, given[array.name], array) for array in features_of(op)]
        shapes = result_shapes(op, [x.shape for x in inputs])
        if not shapes:
            got = ", ".join(str(tuple(given[array.name].shape)) for array in features_of(op))
            raise capture.refusal(f"{op.name} of arrays of shapes {got}")
        dtype = given[features_of(op)[0].name].dtype
        nodes = capture.algebra.message(op.name, inputs, shapes, table)
        results = tuple(capture.tensor(x, _axes(out), dtype) for x, out in zip(nodes, op.outputs, strict=True))
        return results if len(results) > 1 else results[0]

    return captured


GRAPH_OPS: dict[Any, Callable[..., Any]] = {
    polar: _polar,
    **{op.function: _message(op) for op in MESSAGES.values()},
}
