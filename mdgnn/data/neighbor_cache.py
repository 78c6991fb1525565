"""Neighbour lists of many structures, kept small: 4 bytes for a sender, 3 for a shift in a periodic system."""

from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mdgnn.neighbors import Edges

ABSENT = -1


class Topology(NamedTuple):
    """row_ptr (N + 1,) and senders (E,) int64; shifts (E, 3) of any integers, None where all are zero."""

    row_ptr: NDArray[np.int64]
    senders: NDArray[np.int64]
    shifts: NDArray[Any] | None


def vectors_of(atoms: Atoms, list_: Topology) -> NDArray[np.float64]:
    """(E, 3) edge vectors, bit for bit those of the search that found the list: the operations are in its order."""
    r = atoms.positions
    receivers = np.repeat(np.arange(len(atoms)), np.diff(list_.row_ptr))
    a, b, c = np.where(atoms.pbc[:, None], atoms.cell.array, 0.0)
    # Zero shifts are added too: -0 + 0 is 0.
    s = np.zeros((1, 3)) if list_.shifts is None else list_.shifts.astype(np.float64)
    vectors: NDArray[np.float64] = r[list_.senders] - r[receivers]
    vectors += (s[:, :1] * a + s[:, 1:2] * b) + s[:, 2:] * c
    return vectors


class PackedLists:
    """Neighbour lists in four arrays, which forks of a process share, up to a number of bytes.

    Parameters
    ----------
    most_bytes : int
        Lists that would go beyond are not kept.
    """

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self.n_bytes = 0
        self._parts: tuple[list[Any], ...] = ([], [], [])
        self._places: list[tuple[int, int, int, int]] = []  # of rows, of senders, of bytes of shifts; width of a shift
        self._ends = [0, 0, 0]

    def add(self, edges: Edges) -> None:
        """Keep the list of the next structure, if there is room."""
        width = 0
        if edges.shifts.any():
            width = 1 if np.abs(edges.shifts).max() < 128 else 4
        size = 4 * (len(edges.row_ptr) + len(edges.senders)) + 3 * width * len(edges.senders)
        if self.n_bytes + size > self._most_bytes or len(edges.senders) >= 2**31:
            self._places.append((ABSENT, ABSENT, ABSENT, 0))
            return
        shifts = edges.shifts.astype(np.int8 if width == 1 else np.int32).reshape(-1).view(np.uint8)
        parts = edges.row_ptr.astype(np.int32), edges.senders.astype(np.int32), shifts[: 3 * width * len(edges.senders)]
        self._places.append((*self._ends, width))  # type: ignore[arg-type]
        for k, part in enumerate(parts):
            self._parts[k].append(part)
            self._ends[k] += len(part)
        self.n_bytes += size

    def pack(self) -> None:
        """Join what was added; nothing can be added afterwards."""
        self._where = np.array(self._places, dtype=np.int64).reshape(-1, 4)
        packed = []
        for part, dtype in zip(self._parts, (np.int32, np.int32, np.uint8), strict=True):
            packed.append(np.concatenate(part) if part else np.zeros(0, dtype))
            part.clear()
        self._row_ptr, self._senders, self._shifts = packed
        self._places.clear()

    def get(self, k: int, n_atoms: int) -> Topology | None:
        """The list of structure k, in arrays of its own, if it was kept."""
        rows, first, bytes_, width = self._where[k].tolist()
        if rows == ABSENT:
            return None
        row_ptr = self._row_ptr[rows : rows + n_atoms + 1].astype(np.int64)
        n = int(row_ptr[-1])
        senders = self._senders[first : first + n].astype(np.int64)
        if not width:
            return Topology(row_ptr, senders, None)
        shifts = self._shifts[bytes_ : bytes_ + 3 * width * n].view(np.int8 if width == 1 else np.int32)
        return Topology(row_ptr, senders, shifts.reshape(-1, 3))
