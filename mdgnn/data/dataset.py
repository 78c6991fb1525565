"""Frames as samples: graphs within a cutoff, and targets."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from mdgnn.data.checks import check_structure
from mdgnn.data.frames import DataError, FrameList
from mdgnn.data.labels import DEFAULT, Keys, LabelError, labels_of
from mdgnn.data.neighbor_cache import PackedLists, Topology, vectors_of
from mdgnn.data.targets import Sample, targets_of
from mdgnn.graph import Graph
from mdgnn.neighbors import NeighborList

CACHE_BYTES = 2**31


class Dataset:
    """A map-style data set; it can be pickled, and forks of a process can use it.

    Every frame is looked at once when the data set is made. Neighbour lists are kept as long as they fit into
    `cache_bytes`, and else searched at each access; the samples are the same, bit for bit. Frames themselves are as in
    memory, or as far away, as `frames` has them.

    Parameters
    ----------
    frames : FrameList or sequence of ase.Atoms
        From `read_frames`, or made otherwise; labels of atoms that were changed since are refused.
    cutoff : float
        Edges are shorter; Angstrom, or sigma.
    keys : Keys
        Names of the labels.
    cache : bool
        Whether to keep any neighbour lists.
    cache_bytes : int
        Of all lists, at most.

    Attributes
    ----------
    n_edges, n_atoms : (len,) int64
        Of each frame.
    elements : list of int
        Sorted atomic numbers of all frames.
    shortest : float
        Least distance of two atoms in any frame, infinite where no two are within the cutoff.

    Raises
    ------
    DataError
        For a frame that is no structure, or with labels of wrong shapes.
    """

    def __init__(
        self,
        frames: Sequence[Atoms],
        cutoff: float,
        *,
        keys: Keys = DEFAULT,
        cache: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ):
        self._frames, self.cutoff, self.keys = frames, float(cutoff), keys
        self._lists = PackedLists(cache_bytes if cache else 0)
        self._rows = np.arange(len(frames))  # of frames and lists
        self._kinds: list[tuple[int, ...]] = []  # sets of elements
        self._look_at_all()

    def _look_at_all(self) -> None:
        search = NeighborList(self.cutoff)
        n = len(self._frames)
        self.n_edges, self.n_atoms = np.zeros((2, n), dtype=np.int64)
        self._shortest = np.full(n, np.inf)
        self._kind = np.zeros(n, dtype=np.int64)
        numbers_of: dict[tuple[int, ...], int] = {}
        for k in range(n):
            atoms = self._frames[k]
            try:
                check_structure(atoms)
                labels_of(atoms, self.keys)
                if atoms.calc is not None and atoms.calc.check_state(atoms):
                    raise LabelError("the atoms were changed after their labels were computed")
            except LabelError as error:
                name = self._frames.name(k) if isinstance(self._frames, FrameList) else f"frame {k}"
                raise DataError(f"{name}: {error}") from None
            edges = search.update(atoms.positions, atoms.cell.array, atoms.pbc)
            self._lists.add(edges)
            self.n_atoms[k], self.n_edges[k] = len(atoms), len(edges.senders)
            self._shortest[k] = edges.distances.min(initial=np.inf)
            elements = tuple(np.unique(atoms.numbers).tolist())
            self._kind[k] = numbers_of.setdefault(elements, len(numbers_of))
        self._lists.pack()
        self._kinds = list(numbers_of)

    @property
    def elements(self) -> list[int]:
        return sorted({z for kind in np.unique(self._kind) for z in self._kinds[kind]})

    @property
    def shortest(self) -> float:
        return float(self._shortest.min(initial=np.inf))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, k: int) -> Sample:
        row = int(self._rows[k])
        atoms = self._frames[row]
        edges = self._lists.get(row, int(self.n_atoms[k])) or self._search(atoms)
        numbers = torch.from_numpy(atoms.numbers.astype(np.int64))
        graph = Graph(
            numbers,
            torch.from_numpy(vectors_of(atoms, edges)),
            torch.from_numpy(edges.row_ptr),
            torch.from_numpy(edges.senders),
            torch.zeros_like(numbers),
            torch.from_numpy(atoms.cell.array.reshape(1, 3, 3).copy()),
        )
        return Sample(graph, targets_of(atoms, self.keys))

    def _search(self, atoms: Atoms) -> Topology:
        edges = NeighborList(self.cutoff).update(atoms.positions, atoms.cell.array, atoms.pbc)
        return Topology(edges.row_ptr, edges.senders, edges.shifts)

    def frame(self, k: int) -> Atoms:
        """The atoms of a sample, as a copy."""
        atoms = self._frames[int(self._rows[k])]
        copy: Atoms = atoms.copy()
        copy.calc = atoms.calc
        return copy

    def place(self, k: int) -> tuple[str, int]:
        """The file of a sample ("" where the frames came from none), and its number there."""
        row = int(self._rows[k])
        return self._frames.place(row) if isinstance(self._frames, FrameList) else ("", row)

    def subset(self, numbers: Any) -> "Dataset":
        """The samples of these numbers, such as a part of a `split`; frames and lists are shared."""
        chosen: NDArray[np.int64] = np.arange(len(self))[numbers]
        part = object.__new__(Dataset)
        part.__dict__.update(self.__dict__)
        part._rows, part._kind = self._rows[chosen], self._kind[chosen]
        part.n_edges, part.n_atoms = self.n_edges[chosen], self.n_atoms[chosen]
        part._shortest = self._shortest[chosen]
        return part
