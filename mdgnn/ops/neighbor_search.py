"""The kernels behind `neighbors`, as a torch operator without derivative.

It returns row_ptr, senders, shifts, receivers, vectors, distances, reverse; what `letters` does not ask for is empty.
"""

from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdgnn import _C
from mdgnn.ops.declaration import describe
from mdgnn.ops.kernels import kernels_for
from mdgnn.threads import get_num_threads

ORDER = "pjSiDdr"  # of what the operator returns, by letter
_NO_LIMIT = 2**63 - 1


LETTERS = {"receivers": "i", "vectors": "D", "distances": "d", "reverse": "r"}  # of what is made on request


class Query(NamedTuple):
    """What is searched, in the order of the operator's arguments."""

    positions: Tensor
    cell: Tensor
    pbc: Tensor
    first_atom: Tensor | None
    letters: str
    cutoff: float
    self_interaction: bool
    half: bool
    narrow: bool  # makes senders, receivers and reverse int32


def search(query: Query) -> list[Tensor]:
    """Run the kernels of the positions' device."""
    if torch.compiler.is_compiling():
        return torch.ops.mdgnn.neighbors(*query)  # type: ignore[no-any-return]
    return (_on_cpu if query.positions.device.type == "cpu" else _on_gpu)(*query)


def names_of(want: Collection[str], known: Collection[str]) -> set[str]:
    """The names as a set; raises a ValueError for one that is not known."""
    names = set(want)
    if isinstance(want, str) or not names <= set(known):
        raise ValueError(f"expected names out of {', '.join(known)}, got {want!r}")
    return names


def check_structures(positions: Tensor, cell: Tensor, pbc: Tensor, first_atom: Tensor | None) -> None:
    """Raise a ValueError for shapes, dtypes or devices that do not fit."""
    if positions.ndim != 2 or positions.shape[1] != 3 or positions.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected positions of shape (N, 3) in float32 or float64, got {describe(positions)}")
    n = 0 if first_atom is None else first_atom.shape[0] - 1
    batch = () if first_atom is None else (n,)
    for name, tensor, shape, dtype in (
        ("cell", cell, (*batch, 3, 3), positions.dtype),
        ("pbc", pbc, (*batch, 3), torch.bool),
        ("first_atom", first_atom, (n + 1,), torch.int64),
    ):
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype != dtype or tensor.device != positions.device:
            raise ValueError(
                f"expected {name} of shape {tuple(shape)} {dtype} on {positions.device}, got {describe(tensor)}"
            )


def require_rising(first_atom: Tensor | None, n_atoms: int) -> None:
    """Raise a ValueError if `first_atom` cannot be one; waits for the device."""
    if first_atom is None:
        return
    ends = (first_atom[0] == 0) & (first_atom[-1] == n_atoms)
    if not bool(ends & (first_atom.diff() >= 0).all()):
        raise ValueError(f"expected the first atoms of the structures to rise from 0 to {n_atoms}")


def _on_cpu(*arguments: Any) -> list[Tensor]:
    q = Query(*arguments)
    first = np.zeros(0, dtype=np.int64) if q.first_atom is None else _numpy(q.first_atom)
    asked = "".join(letter for letter in ORDER if letter in q.letters)
    arrays = _C.neighbors(
        asked, _numpy(q.positions), _numpy(q.cell), _numpy(q.pbc), first,
        cutoff=q.cutoff, n_threads=get_num_threads(), self_interaction=q.self_interaction, half=q.half,
        index_bytes=4 if q.narrow else 8, shift_bytes=4,
    )  # fmt: skip
    result = {letter: torch.from_numpy(array) for letter, array in zip(asked, arrays, strict=True)}
    return [result[x] if x in result else empty_array(x, q.positions, q.narrow) for x in ORDER]


def _on_gpu(*arguments: Any) -> list[Tensor]:
    """Count, then allocate what the count says: the host waits once, for a batch twice."""
    q = Query(*arguments)
    require_rising(q.first_atom, q.positions.shape[0])
    gpu = GpuSearch(q)
    row_ptr = q.positions.new_empty(q.positions.shape[0] + 1, dtype=torch.int64)
    status = row_ptr.new_empty(3)
    gpu.count(row_ptr, status, _NO_LIMIT)
    n_edges, code, where = status.tolist()
    if code:
        raise ValueError(gpu.error(code, where))
    if q.narrow and n_edges >= 2**31:
        raise ValueError(f"expected less than 2^31 edges for int32 indices, got {n_edges}")
    out = _arrays(q, n_edges, row_ptr)
    gpu.fill(row_ptr, dict(zip(ORDER, out, strict=True)))
    return out


def _arrays(q: Query, n_edges: int | torch.SymInt, row_ptr: Tensor) -> list[Tensor]:
    """What the operator returns, not yet set but for the row pointers."""
    return [row_ptr] + [empty_array(x, q.positions, q.narrow, n_edges if x in q.letters else 0) for x in ORDER[1:]]


class GpuSearch:
    """One search on a GPU, in two asynchronous steps on torch's current stream."""

    def __init__(self, query: Query, workspace: Tensor | None = None):
        positions, cell, pbc, first_atom = query[:4]
        if first_atom is None:
            first_atom = torch.arange(2, device=positions.device) * positions.shape[0]
        self._letters, self._narrow = query.letters, query.narrow
        self._kernels, self._context = kernels_for(positions)
        n_structures = first_atom.shape[0] - 1
        self._workspace = workspace_for(positions, n_structures) if workspace is None else workspace
        positions, cell, pbc, first_atom = (t.contiguous() for t in (positions, cell, pbc, first_atom))
        self._search = {
            "itemsize": positions.element_size(),
            "positions": positions,
            "first": first_atom,
            "n_structures": n_structures,
            "cells": cell.reshape(n_structures, 3, 3),
            "pbc": pbc.reshape(n_structures, 3),
            "cutoff": query.cutoff,
            "self_interaction": query.self_interaction,
            "half": query.half,
            "workspace": self._workspace,
        }

    def count(self, row_ptr: Tensor, status: Tensor, capacity: int) -> None:
        """Fill `row_ptr` and `status`: the number of edges, a code that is 0 without an error, where the error is."""
        self._kernels.neighbors_count(
            **self._search, capacity=capacity, row_ptr=row_ptr, status=status, context=self._context
        )

    def fill(self, row_ptr: Tensor, arrays: dict[str, Tensor]) -> None:
        """Write the arrays that the query's letters name."""
        i, j, s, d, r, reverse = (arrays[x] if x in self._letters else None for x in "ijSDdr")
        indices, absent = {"receivers": i, "senders": j, "reverse": reverse}, (None,) * 3
        wide, narrow = (absent, indices.values()) if self._narrow else (indices.values(), absent)
        self._kernels.neighbors_fill(
            **self._search, row_ptr=row_ptr,
            **dict(zip(indices, wide, strict=True)),
            **{f"{name}32": array for name, array in zip(indices, narrow, strict=True)},
            shifts32=s, vectors=d, distances=r, context=self._context,
        )  # fmt: skip

    def error(self, code: int, where: int) -> str:
        return self._kernels.neighbor_error(code, where, self._search["cutoff"])  # type: ignore[no-any-return]


def workspace_for(positions: Tensor, n_structures: int) -> Tensor:
    """Memory that a search on a GPU works in."""
    n_bytes = kernels_for(positions)[0].neighbor_workspace(positions.element_size(), positions.shape[0], n_structures)
    return positions.new_empty(n_bytes, dtype=torch.uint8)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())


def empty_array(quantity: str, positions: Tensor, narrow: bool, n_edges: int | torch.SymInt = 0) -> Tensor:
    """Not set, for a quantity by its letter."""
    if quantity in "Dd":
        return positions.new_empty((n_edges, 3) if quantity == "D" else (n_edges,))
    integer = torch.int32 if narrow or quantity == "S" else torch.int64
    return positions.new_empty((n_edges, 3) if quantity == "S" else (n_edges,), dtype=integer)


_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define(
    "neighbors(Tensor positions, Tensor cell, Tensor pbc, Tensor? first_atom, str letters, float cutoff, "
    "bool self_interaction, bool half, bool narrow) -> Tensor[]"
)
_library.impl("neighbors", _on_cpu, "CPU")
_library.impl("neighbors", _on_gpu, "CUDA")


@torch.library.register_fake("mdgnn::neighbors")
def _(*arguments: Any) -> list[Tensor]:
    q = Query(*arguments)
    row_ptr = q.positions.new_empty(q.positions.shape[0] + 1, dtype=torch.int64)
    return _arrays(q, torch.library.get_ctx().new_dynamic_size(), row_ptr)
