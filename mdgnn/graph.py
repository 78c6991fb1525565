"""The graph of one or many structures: atoms, edges within a cutoff, and what sums over them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn._internal.blas import suitable_rows
from mdgnn._internal.cached import view
from mdgnn.neighbors import Edges
from mdgnn.ops import EdgeRows, Rows, neighbors, rows_by, scatter_add
from mdgnn.ops.kernels import kernels_for


@dataclass(frozen=True, eq=False)  # tensors have no one truth of being equal
class Graph:
    """Structures as one directed graph; a single structure is a batch of one.

    Edge e runs from sender j to receiver i; edges are sorted by receiver, and those of a neighbour list by (i, j,
    shift). Letters: N atoms, E edges, S structures.

    Data are frozen, and a graph is equal to itself alone. What follows from them is worked out when it is first asked
    for, and kept in a place of its own.

    Triplets will stand beside `edges`: ``triplets(cutoff)``, compressed rows over edges. Row e, from j to i, will hold
    the other edges that i receives, from k, where both are shorter than the cutoff, which is at most the graph's. What
    belongs to a whole structure, such as a total charge, will be a tensor (S, ...) beside `cells`.

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
    edges : EdgeRows
        The edges by receiver and by sender, for ops.
    """

    atomic_numbers: Tensor
    vectors: Tensor
    row_ptr: Tensor
    senders: Tensor
    structure: Tensor
    cells: Tensor
    edges: EdgeRows = field(init=False, repr=False)
    _views: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "edges", EdgeRows(Rows(self.row_ptr, self.senders)))

    @property
    def _tensors(self) -> tuple[Tensor, ...]:
        return self.atomic_numbers, self.vectors, self.row_ptr, self.senders, self.structure, self.cells

    @property
    def n_atoms(self) -> int:
        return self.atomic_numbers.shape[0]

    @property
    def n_edges(self) -> int:
        return self.senders.shape[0]

    @property
    def receivers(self) -> Tensor:
        """(E,) int64."""
        receivers = self.edges.to_receivers.index
        assert receivers is not None
        return receivers

    @property
    def n_structures(self) -> int:
        return self.cells.shape[0]

    @view
    def n_neighbours(self) -> Tensor:
        """(N, 1) float64: the number of edges that each atom receives."""
        return self.row_ptr.diff().unsqueeze(1).to(torch.float64)

    @view
    def edges_by_receiver(self) -> Rows:
        """Row i of arrays with a row per edge: the edges that atom i receives: row pointers alone.

        `EdgeRows.numbers_by_receiver` are the same rows with an index.
        """
        return Rows(self.row_ptr)

    @view
    def atoms_by_structure(self) -> Rows:
        """Row s gathers from arrays with a row per atom: the atoms of structure s."""
        if self.n_structures == 1:  # made where it is needed: copies to a GPU cannot be captured
            return Rows(torch.arange(2, device=self.row_ptr.device) * self.n_atoms)
        rows = rows_by(self.structure, self.n_structures)
        return Rows(rows.row_ptr, rows.index)

    @view
    def structure_of_atoms(self) -> Rows:
        """Row i gathers from arrays with a row per structure: the structure of atom i."""
        return Rows(torch.arange(self.n_atoms + 1, device=self.structure.device), self.structure)

    @property
    def padded(self) -> "Graph":
        """The graph with as many isolated atoms more as suit matrix products: see `mdgnn._internal.blas`."""
        return self if suitable_rows(self.n_atoms, self.row_ptr.device) == self.n_atoms else self._with_isolated

    @view
    def _with_isolated(self) -> "Graph":
        extra = suitable_rows(self.n_atoms, self.row_ptr.device) - self.n_atoms
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
        edges = neighbors(
            torch.from_numpy(np.concatenate([a.positions for a in structures])),
            torch.from_numpy(np.stack([a.cell.array for a in structures])),
            torch.from_numpy(np.stack([a.pbc for a in structures])),
            cutoff,
            first_atom=torch.tensor([0, *(len(a) for a in structures)]).cumsum(0),
            want=("vectors",),
        )
        return cls.from_edges_of_batch(structures, edges)

    @classmethod
    def from_edges_of_batch(cls, structures: Sequence[Any], edges: Any) -> "Graph":
        """Build several structures from their edges, whose atoms are numbered one after another: `vectors` (E, 3),
        `row_ptr` (N + 1,) and `senders` (E,), in numpy or as tensors, of `mdgnn.neighbors.neighbors_of_batch`."""
        counts = torch.tensor([len(a) for a in structures])
        return cls(
            torch.from_numpy(np.concatenate([a.numbers for a in structures])).to(torch.int64),
            torch.as_tensor(edges.vectors, dtype=torch.float64),
            torch.as_tensor(edges.row_ptr),
            torch.as_tensor(edges.senders),
            torch.arange(len(structures)).repeat_interleave(counts),
            torch.from_numpy(np.stack([a.cell.array for a in structures])),
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
        if senders.numel() and not (int(senders.min()) >= 0 and int(senders.max()) < n):
            raise IndexError(f"expected senders from 0 to {n - 1}, got {int(senders.min())} to {int(senders.max())}")
        rows = rows_by(receivers, n, senders)
        assert rows.index is not None and rows.edge is not None
        senders, receivers = rows.index, receivers[rows.edge]
        r = positions.to(torch.float64)
        n_structures = int(structure.max()) + 1 if n else 1
        return cls(
            numbers,
            r.index_select(0, senders) - r.index_select(0, receivers),
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
        return cls(*(torch.cat(tensors) for tensors in zip(*(p._tensors for p in parts), strict=True)))

    def select(self, structures: Sequence[int] | Tensor) -> "Graph":
        """Some structures of a batch as a batch of their own, in the order given: of what training goes through, which
        is joined once. The graph is that which `batch` makes of them, in a tenth of the time where they are small.

        Parameters
        ----------
        structures : (n,) int64
            Numbers of structures; one may come more than once.

        Raises
        ------
        IndexError
            For a number that no structure has.
        ValueError
            For none, or where the atoms of a structure do not follow upon each other, or an edge is of two structures.
        """
        chosen = torch.as_tensor(structures, dtype=torch.int64, device="cpu").contiguous()
        if chosen.ndim != 1 or not len(chosen):
            raise ValueError(f"expected numbers of structures as (n,) with n of at least 1, got {tuple(chosen.shape)}")
        here, everything = self.row_ptr.device, self._places.arguments
        some = chosen.data_ptr(), len(chosen)
        kernels, _ = kernels_for(chosen)
        n, e = kernels.selection_size(everything, some)
        sizes = (len(chosen) + 1, n, n, e, n + 1, e, n + 1, e, e)
        memory = torch.empty(sum(sizes), dtype=torch.int64, device="cpu")
        kernels.select_structures(everything, some, n, e, memory.data_ptr())
        parts = memory.to(here).split(sizes)
        first_atom, atoms, structure, edges, row_ptr, senders, col_ptr, receivers, number = parts
        selected = self.__class__(
            self.atomic_numbers.index_select(0, atoms),
            self.vectors.index_select(0, edges),
            row_ptr,
            senders,
            structure,
            self.cells.index_select(0, chosen.to(here)),
        )
        selected.edges.by_sender = Rows(col_ptr, receivers, number)
        selected._views["atoms_by_structure"] = Rows(first_atom)
        return selected

    @view
    def _places(self) -> "_Places":
        """Of the structures, for `select`."""
        structure = self.structure.cpu()
        if bool((structure[1:] < structure[:-1]).any()):
            raise ValueError("expected atoms in the order of their structures, as those of Graph.batch are")
        n = torch.bincount(structure, minlength=self.n_structures)
        edges = self.edges if self.row_ptr.is_cpu else EdgeRows(Rows(self.row_ptr.cpu(), self.senders.cpu()))
        if bool((structure[edges.to_senders.index] != structure[edges.to_receivers.index]).any()):
            raise ValueError("expected edges between atoms of one structure")
        first_atom = F.pad(n.cumsum(0), (1, 0))
        addresses = first_atom.data_ptr(), self.n_structures, *(rows[:4] for rows in edges.addresses)
        return _Places(addresses, first_atom, edges)

    def clone(self) -> "Graph":
        """The same in memory of its own; of tensors of inference mode, outside of it, ones that autograd may keep."""
        return self.__class__(*(tensor.clone() for tensor in self._tensors))

    def to(self, device: torch.device | str) -> "Graph":
        return self.__class__(*(tensor.to(device) for tensor in self._tensors))


class _Places(NamedTuple):
    """Where structures stand in a batch, on the CPU: what kernels take, and that of which it holds addresses, first
    atoms (S + 1,) and edges."""

    arguments: tuple[Any, ...]
    first_atom: Tensor
    edges: EdgeRows


def sum_over_neighbours(messages: Tensor, graph: Graph, weight: Tensor | None = None, reduce: str = "sum") -> Tensor:
    """(E, F) -> (N, F): reduce the messages of each receiver's edges, in order."""
    return scatter_add(messages, graph.edges_by_receiver, weight, reduce=reduce)


def sum_per_structure(values: Tensor, graph: Graph) -> Tensor:
    """(N,) -> (S,): sums in float64, in the order of the atoms."""
    values = values.to(torch.float64)
    if values.is_cpu and not torch.compiler.is_compiling():  # one loop over the atoms, at a third of the overhead
        return values.new_zeros(graph.n_structures).index_add(0, graph.structure, values)
    rows = graph.atoms_by_structure
    return scatter_add(values[:, None], rows, columns=graph.structure_of_atoms).squeeze(1)


def mean_per_structure(values: Tensor, graph: Graph) -> Tensor:
    """(N,) -> (S,): means in float64."""
    return sum_per_structure(values, graph) / sum_per_structure(torch.ones_like(values), graph).clamp(min=1)
