"""Parts of arrays by index, and rows of tables by element."""

from typing import Any

import torch
from torch import Tensor

from mdgnn.engine.capture import CHANNEL, COMPONENT, Capture, Captured
from mdgnn.engine.operations.shapes import gather, part_of, select, unsqueeze


def _lookup(capture: Capture, table: Any, index: Any) -> Captured:
    """Rows of a table, by atomic number or by element."""
    if not isinstance(index, Captured) or index.node.op not in ("atomic_numbers", "element"):
        raise capture.refusal("rows of arrays by other numbers than atomic numbers and elements")
    if isinstance(table, Captured):
        raise capture.refusal("rows of an array of atoms")
    table = table.detach()
    if index.node.op == "atomic_numbers":
        element_of = torch.arange(len(table)) if table.is_floating_point() else table
        known = capture.element_of
        if known is not None and (known.shape != element_of.shape or not torch.equal(known, element_of)):
            raise capture.refusal("more than one numbering of elements")
        capture.element_of = element_of
    if not table.is_floating_point():
        if index.node.op == "element" or table.ndim != 1:
            raise capture.refusal("numbers of elements of elements")
        return capture.tensor(capture.algebra.node("element", (index.node,), (1, 1)), index.axes, table.dtype)
    assert capture.element_of is not None
    n = int(capture.element_of.max()) + 1
    if len(table) < n or table.ndim > 3:
        raise capture.refusal(f"a table of shape {tuple(table.shape)} for {n} elements")
    components, channels = (1, 1, *table.shape[1:])[-2:]
    node = capture.algebra.known(capture.constant(table)[:n].double().reshape(-1, components, channels), "atom")
    axes = ((COMPONENT,), (CHANNEL,)) if table.ndim == 3 else ((CHANNEL,),)[: table.ndim - 1]
    return capture.tensor(node, (*index.axes, *axes), table.dtype)


def getitem(capture: Capture, x: Any, index: Any) -> Captured:
    """Basic indexing, and rows of tables."""
    places = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(p, Captured) for p in places):
        if len(places) > 1 and any(p != slice(None) for p in places[1:]):
            raise capture.refusal("an array indexed by several arrays")
        return _lookup(capture, x, places[0])
    taken = sum(p is not None and p is not Ellipsis for p in places)
    at = next((k for k, p in enumerate(places) if p is Ellipsis), len(places))
    places[at : at + 1] = [slice(None)] * (x.ndim - taken)
    dim = 0
    for p in places:
        if p is None:
            x = unsqueeze(capture, x, dim)
        elif isinstance(p, slice):
            indices = range(x.shape[dim])[p]
            step = indices.step
            x = (
                part_of(capture, x, dim, p.indices(x.shape[dim])[0], len(indices))
                if step == 1
                else gather(capture, x, dim, list(indices))
            )
        elif isinstance(p, int) and not isinstance(p, bool):
            x = select(capture, x, dim, p)
            continue
        elif isinstance(p, (list, Tensor)) and torch.as_tensor(p).ndim == 1 and torch.as_tensor(p).dtype == torch.int64:
            x = gather(capture, x, dim, torch.as_tensor(p).tolist())
        else:
            raise capture.refusal("an array indexed by arrays")
        dim += 1
    out: Captured = x
    return out


def index_select(capture: Capture, table: Any, dim: int, index: Any) -> Captured:
    if isinstance(table, Captured) and not isinstance(index, Captured):
        return gather(capture, table, dim % table.ndim, index.tolist())
    if dim not in (0, -table.ndim):
        raise capture.refusal("rows of a table that are not its first dimension")
    return _lookup(capture, table, index)


def embedding(
    capture: Capture, index: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *rest: Any, **others: Any
) -> Captured:
    if max_norm is not None:
        raise capture.refusal("embedding with a greatest norm, which changes weights")
    return _lookup(capture, weight, index)
