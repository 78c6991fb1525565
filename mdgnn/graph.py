"""The graph of one or many structures: atoms, edges within a cutoff, and what sums over them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn._internal.cached import cached_property
from mdgnn.neighbors import Edges
from mdgnn.ops import EdgeRows, Rows, neighbors, rows_by, scatter_add


@dataclass(frozen=True)
class Graph:
    """Structures as one directed graph; a single structure is a batch of one.

    Edge e runs from sender j to receiver i; edges are sorted by receiver, and those of a neighbour list by (i, j,
    shift). Letters: N atoms, E edges, S structures.

    Attributes
    ----------
    atomic_numbers : (N,) int64
    vectors : (E, 3) float64
        ``D = r_j - r_i + shift @ cell``. Differentiable when the graph was built by `from_edge_index`.
    row_ptr : (N + 1,) int64
        The edges of receiver i are ``row_ptr[i] .. row_ptr[i + 1]``.
    senders : (E,) int64
    structure : (N,) int64
        The structure of each atom.
    cells : (S, 3, 3) float64
        Rows are the cell vectors.
    """

    atomic_numbers: Tensor
    vectors: Tensor
    row_ptr: Tensor
    senders: Tensor
    structure: Tensor
    cells: Tensor

    @property
    def n_atoms(self) -> int:
        return self.atomic_numbers.shape[0]

    @property
    def n_edges(self) -> int:
        return self.senders.shape[0]

    @cached_property
    def receivers(self) -> Tensor:
        """(E,) int64."""
        return torch.arange(self.n_atoms, device=self.row_ptr.device).repeat_interleave(
            self.row_ptr.diff(), output_size=self.n_edges
        )

    @property
    def n_structures(self) -> int:
        return self.cells.shape[0]

    @cached_property
    def n_neighbours(self) -> Tensor:
        """(N, 1) float64: the number of edges that each atom receives."""
        return torch.sub(self.row_ptr[1:, None], self.row_ptr[:-1, None]).to(torch.float64)

    @cached_property
    def by_receiver(self) -> Rows:
        """Row i of arrays with a row per edge: the edges that atom i receives, which stand together."""
        return Rows(self.row_ptr)

    @cached_property
    def neighbours(self) -> Rows:
        """Row i gathers from arrays with a row per atom: the senders of the edges that atom i receives."""
        return Rows(self.row_ptr, self.senders)

    @cached_property
    def edges(self) -> EdgeRows:
        """The edges by receiver and by sender."""
        return EdgeRows(self.neighbours)

    @cached_property
    def by_structure(self) -> Rows:
        """Row s gathers from arrays with a row per atom: the atoms of structure s."""
        if self.n_structures == 1:
            return Rows(torch.tensor([0, self.n_atoms], device=self.row_ptr.device))
        rows = rows_by(self.structure, self.n_structures)
        return Rows(rows.row_ptr, rows.index)

    @cached_property
    def structures(self) -> Rows:
        """Row i gathers from arrays with a row per structure: the structure of atom i."""
        return Rows(torch.arange(self.n_atoms + 1, device=self.structure.device), self.structure)

    @cached_property
    def by_sender(self) -> Rows:
        """The numbers of the edges that each atom sends: row j gathers from arrays with a row per edge."""
        return self.edges.numbers_by_sender

    @cached_property
    def sent(self) -> Rows:
        """Row j gathers from arrays with a row per atom: the receivers of the edges that atom j sends."""
        return self.edges.by_sender

    @cached_property
    def padded(self) -> "Graph":
        """The graph with isolated atoms added up to a multiple of 16, for fewer than 128 atoms.

        With other numbers of rows, BLAS gives small matrix products different bits for different numbers of threads.
        """
        extra = -self.n_atoms % 16 if self.n_atoms < 128 else 0
        if extra == 0:
            return self
        return Graph(
            F.pad(self.atomic_numbers, (0, extra), value=int(self.atomic_numbers[0])),
            self.vectors,
            F.pad(self.row_ptr, (0, extra), value=self.n_edges),
            self.senders,
            F.pad(self.structure, (0, extra)),
            self.cells,
        )

    @classmethod
    def from_atoms(cls, atoms: Any, cutoff: float) -> "Graph":
        """Build from an `ase.Atoms` or a sequence of them, with all edges shorter than `cutoff` (Angstrom)."""
        structures = [atoms] if hasattr(atoms, "positions") else list(atoms)
        if not structures:
            raise ValueError("expected at least one structure, got none")
        counts = torch.tensor([len(a) for a in structures])
        cells = torch.from_numpy(np.stack([a.cell.array for a in structures]))
        found = neighbors(
            torch.from_numpy(np.concatenate([a.positions for a in structures])),
            cells,
            torch.from_numpy(np.stack([a.pbc for a in structures])),
            cutoff,
            first_atom=F.pad(counts.cumsum(0), (1, 0)),
            want=("vectors",),
        )
        assert found.vectors is not None
        return cls(
            torch.from_numpy(np.concatenate([a.numbers for a in structures])).to(torch.int64),
            found.vectors,
            found.row_ptr,
            found.senders,
            torch.arange(len(structures)).repeat_interleave(counts),
            cells,
        )

    @classmethod
    def from_edges(cls, atomic_numbers: Any, edges: Edges, cell: Any) -> "Graph":
        """Build one structure from a neighbour list in numpy."""
        numbers = torch.as_tensor(atomic_numbers, dtype=torch.int64)
        return cls(
            numbers,
            torch.from_numpy(edges.vectors).to(torch.float64),
            torch.from_numpy(edges.row_ptr),
            torch.from_numpy(edges.senders),
            torch.zeros_like(numbers),
            torch.as_tensor(cell, dtype=torch.float64).reshape(1, 3, 3),
        )

    @classmethod
    def from_edge_index(
        cls, atomic_numbers: Tensor, positions: Tensor, edge_index: Tensor, structure: Tensor | None = None
    ) -> "Graph":
        """Build from edges given in any order, symmetric or not, without periodic boundaries.

        Parameters
        ----------
        atomic_numbers : (N,) int64
        positions : (N, 3)
            The graph's vectors are differentiable with respect to them.
        edge_index : (2, E) int64
            Senders, then receivers.
        structure : (N,) int64, optional
            The structure of each atom, in any order.
        """
        numbers, positions, edge_index = map(torch.as_tensor, (atomic_numbers, positions, edge_index))
        n = numbers.shape[0]
        if edge_index.numel() == 0:
            edge_index = edge_index.reshape(2, 0).to(torch.int64)
        if positions.shape != (n, 3) or edge_index.ndim != 2 or edge_index.shape[0] != 2:
            raise ValueError(
                f"expected positions of shape ({n}, 3) and edge_index of shape (2, E), "
                f"got {tuple(positions.shape)} and {tuple(edge_index.shape)}"
            )
        if structure is None:
            structure = torch.zeros_like(numbers)
        if structure.shape != (n,):
            raise ValueError(f"expected one structure number for each of the {n} atoms, got {tuple(structure.shape)}")
        senders, receivers = edge_index.to(torch.int64)
        rows = rows_by(receivers, n, senders)
        assert rows.index is not None and rows.edge is not None
        senders, receivers = rows.index, receivers[rows.edge]
        r = positions.to(torch.float64)
        n_structures = int(structure.max()) + 1 if n else 1
        return cls(
            numbers,
            r[senders] - r[receivers],
            rows.row_ptr,
            senders,
            structure.to(torch.int64),
            r.new_zeros(n_structures, 3, 3),
        )

    @classmethod
    def batch(cls, graphs: "Sequence[Graph]") -> "Graph":
        """Join graphs; atoms and structures keep their order."""
        if not graphs:
            raise ValueError("expected at least one graph to batch, got none")
        offset = structures = edges = 0
        parts: list[Graph] = []
        for g in graphs:
            parts.append(
                replace(
                    g,
                    row_ptr=g.row_ptr[(1 if parts else 0) :] + edges,
                    senders=g.senders + offset,
                    structure=g.structure + structures,
                )
            )
            offset, structures, edges = offset + g.n_atoms, structures + g.n_structures, edges + g.n_edges
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    def clone(self) -> "Graph":
        """The same in memory of its own; of tensors of inference mode, outside of it, ones that autograd may keep."""
        return self.__class__(*(getattr(self, f.name).clone() for f in fields(self)))

    def to(self, device: torch.device | str) -> "Graph":
        return self.__class__(*(getattr(self, f.name).to(device) for f in fields(self)))


def sum_over_neighbours(messages: Tensor, graph: Graph, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """(E, F) -> (N, F): reduce the messages of each receiver's edges, in order."""
    return scatter_add(messages, graph.by_receiver, weight, reduce=reduce)


def sum_per_structure(values: Tensor, graph: Graph) -> Tensor:
    """(N,) -> (S,): sums in float64, in the order of the atoms."""
    return scatter_add(values.to(torch.float64)[:, None], graph.by_structure, columns=graph.structures).squeeze(1)


def mean_per_structure(values: Tensor, graph: Graph) -> Tensor:
    """(N,) -> (S,): means in float64."""
    return sum_per_structure(values, graph) / sum_per_structure(torch.ones_like(values), graph).clamp(min=1)
