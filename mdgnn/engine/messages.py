"""What a model does with the edges of the graph: lengths and directions, and messages along them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.algebra import Node
from mdgnn.engine.capture import CHANNEL, COMPONENT, ROW, Capture, Captured, model_line, told
from mdgnn.engine.unsupported import UnsupportedError
from mdgnn.ops import cfconv, concat_message_table, painn_message, polar

# Messages: the shapes (components, channels) of what they make of their inputs.
MESSAGES: dict[str, Callable[..., list[tuple[int, int]]]] = {
    "concat_message_table": lambda ends: [(1, ends.channels // 2), (1, 1)],
    "cfconv": lambda x: [x.shape],
    "painn_message": lambda x, v: [(1, v.channels), v.shape],
}


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


def _features(capture: Capture, x: Any, components: bool = False) -> Node:
    """The node of a tensor that is (N, C), or (N, K, C)."""
    expected = ((ROW,), (COMPONENT,), (CHANNEL,)) if components else ((ROW,), (CHANNEL,))
    if not isinstance(x, Captured):
        raise capture.refusal("messages of constant arrays")
    if len(x.axes) != len(expected) or any(a not in ((), e) for a, e in zip(x.axes, expected, strict=True)):
        raise capture.refusal(f"messages of arrays of shape {tuple(x.shape)}")
    return x.node


def _message(
    op: str, capture: Capture, inputs: Sequence[Node], filter: Any, edges: Any, unit: Any = None
) -> list[Node]:
    """`filter`: a table and the distances at which it is asked."""
    if isinstance(filter, Tensor):
        raise capture.refusal(f"{op} with a filter that is not a table")
    table, r = filter
    along = edges is CapturedGraph.edges and _is(r, "edge_lengths") and (unit is None or _is(unit, "edge_directions"))
    if not along:
        raise capture.refusal(f"{op} that does not go along the edges of the graph")
    return capture.algebra.message(op, inputs, MESSAGES[op](*inputs), table)


def _is(x: Any, op: str) -> bool:
    return isinstance(x, Captured) and x.node.op == op


def _concat_message_table(capture: Capture, ends: Any, filter: Any, edges: Any) -> Any:
    outs = _message("concat_message_table", capture, [_features(capture, ends)], filter, edges)
    return tuple(capture.tensor(out, ((ROW,), (CHANNEL,)), ends.dtype) for out in outs)


def _cfconv(capture: Capture, x: Any, filter: Any, edges: Any) -> Any:
    (out,) = _message("cfconv", capture, [_features(capture, x)], filter, edges)
    return capture.tensor(out, x.axes, x.dtype)


def _painn_message(capture: Capture, x: Any, v: Any, filter: Any, unit: Any, edges: Any) -> Any:
    ds, dv = _message(
        "painn_message", capture, [_features(capture, x), _features(capture, v, True)], filter, edges, unit
    )
    vectors = capture.tensor(dv, ((ROW,), (COMPONENT,), (CHANNEL,)), x.dtype)
    return capture.tensor(ds, ((ROW,), (CHANNEL,)), x.dtype), vectors


GRAPH_OPS: dict[Any, Callable[..., Any]] = {
    polar: _polar,
    concat_message_table: _concat_message_table,
    cfconv: _cfconv,
    painn_message: _painn_message,
}
