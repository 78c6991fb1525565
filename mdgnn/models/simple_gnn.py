"""The lecture's graph neural network: messages from distances, residual updates, a sum of atomic energies.

    h_i <- h_i + U([h_i, sum_j M([h_j, h_i, rbf(r_ij)])]),   E = sum_i O(h_i)

M, U and O are perceptrons with one hidden layer. The messages are computed after splitting M's first Linear by its
input blocks, so that the parts for h_j and h_i cost one product per atom, and moving its second Linear past the sum,
where it costs one product per atom too. What is left of M's first Linear depends on the distance alone, and is taken
from a table: per edge remain an interpolation, two additions and a SiLU.
"""

import math
from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn.graph import Graph, sum_over_neighbours
from mdgnn.models.options import RADIAL, check_simple_gnn, complete, three_numbers
from mdgnn.nn import (
    ENVELOPES,
    Elements,
    ExponentialBasis,
    Heads,
    Repulsion,
    TableCache,
    apply_mlp,
    atomic_numbers_of,
    call_in_float64,
    linears,
    mlp,
)
from mdgnn.ops import (
    RadialTable,
    TabulatedFilter,
    add_ends,
    concat_message,
    concat_message_table,
    edge_basis,
    polar,
    silu,
    tabulate,
)
from mdgnn.potential import total_energy


class MessagePassingLayer(nn.Module):
    """One layer: message, aggregation, residual update. Parameter names are the lecture's."""

    message_mlp: nn.Sequential
    update_mlp: nn.Sequential

    def __init__(self, node_dim: int, edge_dim: int, hidden_dim: int, aggregation: str, divisor: float):
        super().__init__()
        self.message_mlp = mlp(2 * node_dim + edge_dim, hidden_dim, hidden_dim)
        self.update_mlp = mlp(node_dim + hidden_dim, hidden_dim, node_dim)
        self.aggregation, self.divisor = aggregation, divisor
        self.tables = TableCache()

    def forward(self, h: Tensor, radial: RadialTable, distances: Tensor, smooth: bool, graph: Graph) -> Tensor:
        """(N, node_dim) -> (N, node_dim), with the edges' share of the messages from a table.

        radial: the basis, then the envelope, which is one below the cutoff unless `smooth`.
        """
        first, _ = linears(self.message_mlp)
        for_ends, for_basis = first.weight.split((2 * h.shape[1], radial.coefficients.shape[2] - 1), dim=1)
        table = self.tables.get(
            "edges",
            (first.weight, first.bias, radial.coefficients),
            lambda: _edge_table(radial, for_basis, first.bias, h.dtype),
        )
        ends = F.linear(h, torch.cat(for_ends.chunk(2, dim=1)))
        x, n_neighbours = concat_message_table(ends, TabulatedFilter(table, distances), graph.edges)
        total = self._total(x, n_neighbours)
        if self.aggregation == "mean":
            total = total / (1 + n_neighbours if smooth else n_neighbours.clamp(min=1))
        return self._update(h, total)

    def direct(self, h: Tensor, basis: Tensor, envelope: Tensor | None, n_neighbours: Tensor, graph: Graph) -> Tensor:
        """(N, node_dim) -> (N, node_dim), with the first Linear evaluated at every edge.

        basis (E or more, edge_dim); envelope (E,); n_neighbours (N, 1), the sum of the envelope.
        """
        ends, edge_part = self._first_linear(h, basis, graph.n_edges)
        second = linears(self.message_mlp)[1]
        if self.aggregation == "max":  # a maximum does not commute with the second Linear
            x = silu(edge_part + add_ends(ends, graph.edges))
            total = sum_over_neighbours(F.linear(x, second.weight, second.bias), graph, envelope, reduce="max")
        else:
            x = concat_message(edge_part, ends, graph.edges, envelope)
            total = self._total(x, n_neighbours)
        if self.aggregation == "mean":
            total = total / (n_neighbours.clamp(min=1) if envelope is None else 1 + n_neighbours)
        return self._update(h, total)

    def _total(self, x: Tensor, n_neighbours: Tensor) -> Tensor:
        """The second Linear of the message after the sum (N, hidden_dim), which is divided there."""
        second = linears(self.message_mlp)[1]
        weight: Tensor = second.weight
        bias: Tensor = second.bias
        if self.divisor != 1:
            weight, bias = weight / self.divisor, bias / self.divisor
        return torch.addmm(n_neighbours * bias, x, weight.t())

    def _update(self, h: Tensor, total: Tensor) -> Tensor:
        return h + apply_mlp(self.update_mlp, torch.cat([h, total], dim=1))

    def _first_linear(self, h: Tensor, basis: Tensor, n_edges: int) -> tuple[Tensor, Tensor]:
        """The first Linear of the message by blocks of its input.

        (N, 2 hidden_dim), each atom's share as a sender and as a receiver; (E, hidden_dim), the basis' with the bias.
        """
        first = linears(self.message_mlp)[0]
        for_sender, for_receiver, for_basis = first.weight.split((h.shape[1], h.shape[1], basis.shape[1]), dim=1)
        edge_part = F.linear(basis, for_basis, first.bias)
        ends = F.linear(h, torch.cat((for_sender, for_receiver)))
        return ends, edge_part if len(basis) == n_edges else edge_part[:n_edges]


def _edge_table(radial: RadialTable, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> RadialTable:
    """From a table of the basis and the envelope that of the basis' share of the first Linear, and the envelope."""
    basis, envelope = radial.coefficients[:, :, :-1], radial.coefficients[:, :, -1:]
    constant, *rest = F.linear(basis, weight.double()).unbind(1)  # the bias is in the constant alone
    share = torch.stack([constant + bias.double(), *rest], dim=1)
    return RadialTable(torch.cat([share, envelope], dim=2).to(dtype), radial.cutoff)


class SimpleGNN(nn.Module):
    """The lecture's network; with its default arguments exactly that, parameter for parameter.

    Parameters
    ----------
    n_elements : int
        Kinds of atoms 0 .. n_elements. Ignored when `elements` is a list.
    node_dim, edge_dim, n_layers : int
        Features of an atom, radial basis functions, message passing layers.
    cutoff : float
        How far edges reach when the graph is built by the calculator or `Graph.from_atoms` (default 3.5).
    envelope : None, "cosine" or "polynomial"
        Weight of a message as a function of r, zero at the cutoff. None, the lecture's choice, makes the energy jump
        when an atom crosses the cutoff: molecular dynamics then does not conserve energy.
    aggregation : "sum", "mean" or "max"
        mean with an envelope is ``sum c m / (1 + sum c)``, which is smooth. max has kinks: not for dynamics.
    elements : None, "any" or list of int
        Atomic numbers that the model knows. None: the numbers themselves are rows of the embedding, as in the lecture.
        "any": all atoms are the same kind (row 1).
    options : dict
        Rarely needed: ``basis`` = (first centre, last centre, width) of Gaussians, default (0.5, 5.0, 0.5), or
        "exponential", functions that are narrow where potentials are steep, from ``basis_start`` to the cutoff;
        ``readout`` = "sum" (extensive) or "mean" (intensive); ``shift``, ``scale`` = per-element lists in the order of
        `elements` (one number each for None and "any"): e_i = scale * network + shift; ``units`` = "metal" or "lj";
        ``least_distance`` = shortest distance in the training data; ``filters`` = "table" or "direct": whether what
        depends on the distance alone is interpolated between ``n_knots`` distances up to the cutoff, or evaluated at
        every edge, which costs more and differs by less than the rounding of float32 (max is always evaluated);
        ``repulsion`` = distance at which atoms begin to repel each other, beside what the network says: see
        `mdgnn.nn.Repulsion` (0: none of it); ``mean_neighbours`` = number of neighbours whose square root sums of
        messages are divided by (1: the lecture's network; `mdgnn train` takes that of the data).
    """

    def __init__(
        self,
        n_elements: int = 3,
        node_dim: int = 32,
        edge_dim: int = 16,
        n_layers: int = 3,
        *,
        cutoff: float = 3.5,
        envelope: str | None = None,
        aggregation: str = "sum",
        elements: str | list[int] | None = None,
        **options: Any,
    ):
        super().__init__()
        options = complete("SimpleGNN", options, {"basis": [0.5, 5.0, 0.5], **RADIAL, "n_knots": 512})
        exponential = options["basis"] == "exponential"
        if not exponential:
            options["basis"] = three_numbers(options["basis"])
        elements = atomic_numbers_of(elements)
        if isinstance(elements, list):
            n_elements = len(elements)
        self.config: dict[str, Any] = {
            "n_elements": n_elements,
            "node_dim": node_dim,
            "edge_dim": edge_dim,
            "n_layers": n_layers,
            "cutoff": float(cutoff),
            "envelope": envelope,
            "aggregation": aggregation,
            "elements": elements,
            **options,
        }
        check_simple_gnn(self.config)
        self.cutoff, self.elements = float(cutoff), elements
        self.readout: str = options["readout"]
        self.units: str = options["units"]
        self.least_distance = float(options["least_distance"])

        self.atom_embedding = nn.Embedding(n_elements + 1, node_dim)
        self.exponential: ExponentialBasis | None = None
        if exponential:
            self.exponential = ExponentialBasis(edge_dim, self.cutoff, options["basis_start"])
        else:
            start, stop, self.rbf_width = options["basis"]
            self.rbf_centers = nn.Parameter(torch.linspace(start, stop, edge_dim), requires_grad=False)
        self.layers = nn.ModuleList(
            MessagePassingLayer(node_dim, edge_dim, node_dim, aggregation, math.sqrt(options["mean_neighbours"]))
            for _ in range(n_layers)
        )
        self.output_mlp = mlp(node_dim, node_dim, 1)
        self.tables = TableCache()
        self.species = Elements(elements, n_elements, options["shift"], options["scale"])
        self.repulsion = Repulsion.of(self.config, n_elements)
        self.heads: Heads | None = None  # of other properties: mdgnn.nn.attach_heads

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return self.atom_embedding.weight.dtype

    def atomic_features(self, graph: Graph, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(E, 3) edge vectors -> rows of the embedding (N,), features of the last layer (N, F), repulsion (N, 1).

        Edges beyond the cutoff count for nothing.

        Raises
        ------
        ValueError
            For an atom whose element the model does not know (on the CPU; a GPU stops with an error of its own).
        """
        rows, h = self.species.embed(graph.atomic_numbers, self.atom_embedding)
        tabulated = self.config["filters"] == "table" and self.config["aggregation"] != "max"
        tabulated = tabulated and self.cutoff < float("inf")
        if not tabulated and self.repulsion is None:  # `_directly` has distances of its own
            return rows, self._directly(h, graph, vectors, self.cutoff), None
        r, _ = polar(vectors, directions=False)
        pairs = None if self.repulsion is None else self.repulsion(rows, r, graph)
        features = self._from_tables(h, graph, r) if tabulated else self._directly(h, graph, vectors, self.cutoff)
        return rows, features, pairs

    def read_out(self, rows: Tensor, features: Tensor, pairs: Tensor | None) -> Tensor:
        """What `atomic_features` returns -> (N,) atomic energies in float64."""
        network = apply_mlp(self.output_mlp, features)
        return self.species.energies(rows, (network if pairs is None else network + pairs).squeeze(1))

    def atomic_energies(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(E, 3) edge vectors -> (N,) atomic energies in float64. Raises as `atomic_features`."""
        return self.read_out(*self.atomic_features(graph, vectors))

    def _from_tables(self, h: Tensor, graph: Graph, distances: Tensor) -> Tensor:
        radial = self.tables.get("radial", (self._centers,), self._tabulate)
        smooth = self.config["envelope"] is not None
        for layer in self.layers:
            h = layer.forward(h, radial, distances, smooth, graph)
        return h

    def _tabulate(self) -> RadialTable:
        """Of the basis, then the envelope, in float64."""
        centers = self._centers.double()

        def functions(r: Tensor) -> Tensor:
            if self.exponential is None:
                basis = torch.exp((r[:, None] - centers).square() * (-0.5 / self.rbf_width**2))
            else:
                basis = call_in_float64(self.exponential, r)
            return torch.cat([basis, self._envelope(r)[:, None]], dim=1)

        return tabulate(functions, self.cutoff, self.config["n_knots"], centers)

    @property
    def _centers(self) -> Tensor:
        return self.rbf_centers if self.exponential is None else self.exponential.centers

    def _envelope(self, r: Tensor) -> Tensor:
        name = self.config["envelope"]
        return torch.ones_like(r) if name is None else ENVELOPES[name](r, self.cutoff)

    def _directly(self, h: Tensor, graph: Graph, vectors: Tensor, cutoff: float) -> Tensor:
        """With the basis evaluated at every edge; without an envelope, edges count up to `cutoff`."""
        if self.exponential is None:
            distances, basis = edge_basis(vectors, self.rbf_centers, self.rbf_width)
        else:
            distances, _ = polar(vectors, directions=False)
            basis = self.exponential(distances)
        envelope = None
        if self.config["envelope"] is not None:
            envelope = self._envelope(distances)
        elif bool((distances >= cutoff).any()):
            envelope = (distances < cutoff).to(h.dtype)
        if envelope is None:
            n_neighbours = graph.n_neighbours.to(h.dtype)
        else:
            n_neighbours = sum_over_neighbours(envelope[:, None], graph)
        extra = -len(basis) % 16 if len(basis) < 128 else 0  # as Graph.padded
        basis = F.pad(basis, (0, 0, 0, extra)) if extra else basis
        for layer in cast(Iterable[MessagePassingLayer], self.layers):
            h = layer.direct(h, basis, envelope, n_neighbours, graph)
        return h

    def forward(self, z: Tensor, positions: Tensor, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        """The lecture's call: energy of one structure, or (S,) energies of a batch.

        Parameters
        ----------
        z : (N,) int64
        positions : (N, 3)
            Forces follow by autograd.
        edge_index : (2, E) int64
            Senders and receivers, in any order; all of them count, whatever their length.
        batch : (N,) int64, optional
            The structure of each atom.
        """
        graph = Graph.from_edge_index(z, positions, edge_index, batch)
        rows, h = self.species.embed(graph.padded.atomic_numbers, self.atom_embedding)
        vectors = graph.vectors.to(self.dtype)
        h, pairs = self._directly(h, graph.padded, vectors, float("inf")), None
        if self.repulsion is not None:
            pairs = self.repulsion(rows, polar(vectors, directions=False)[0], graph.padded)
        energy = total_energy(self, self.read_out(rows, h, pairs)[: graph.n_atoms], graph).to(self.dtype)
        return energy.squeeze(0) if batch is None else energy
