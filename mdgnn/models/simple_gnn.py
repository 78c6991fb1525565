"""The lecture's graph neural network: messages from distances, residual updates, a sum of atomic energies.

    h_i <- h_i + U([h_i, sum_j M([h_j, h_i, rbf(r_ij)])]),   E = sum_i O(h_i)

M, U and O are perceptrons with one hidden layer. The messages are computed after splitting M's first Linear by its
input blocks, so that the parts for h_j and h_i cost one product per atom, and moving its second Linear past the sum,
where it costs one product per atom too. What is left of M's first Linear depends on the distance alone, and is taken
from a table: per edge remain an interpolation, two additions and a SiLU.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn._internal.blas import add_linear, linear
from mdgnn.graph import Graph, sum_over_neighbours
from mdgnn.model_config import RadialConfig, require, require_positive, takes_options_of
from mdgnn.models.fused_network import Messages, Weights, fused, plain, split, suits
from mdgnn.nn import ENVELOPES, MLP, ExponentialBasis, TableCache, call_in_float64, with_suitable_rows
from mdgnn.ops import (
    RadialTable,
    TabulatedFilter,
    add_ends,
    concat_message_linear,
    concat_message_table,
    edge_basis,
    polar,
    silu,
    tabulate,
)
from mdgnn.potential import Potential, total_energy

AGGREGATIONS = ("sum", "mean", "max")
EDGES_A_KNOT = 8  # from so many edges on a table pays that serves one step


@dataclass(frozen=True)
class SimpleGNNConfig(RadialConfig):
    """See `SimpleGNN`."""

    n_elements: int = 3
    node_dim: int = 32
    edge_dim: int = 16
    n_layers: int = 3
    _: KW_ONLY
    cutoff: float = 3.5
    envelope: str | None = None
    aggregation: str = "sum"
    elements: str | Sequence[int] | None = None
    basis: str | Sequence[float] = (0.5, 5.0, 0.5)
    n_knots: int = 512

    knows_bare_numbers: ClassVar[bool] = True
    envelopes: ClassVar[tuple[str | None, ...]] = (None, *ENVELOPES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.elements, tuple):
            self.set(n_elements=len(self.elements))
        require("aggregation", self.aggregation, AGGREGATIONS)
        self.require_basis_start(self.cutoff if self.basis == "exponential" else 0.0)
        if self.basis != "exponential":
            if isinstance(self.basis, str) or len(self.basis) != 3:
                numbers = "(first centre, last centre, width)"
                raise ValueError(f"expected a basis as {numbers} or 'exponential', got {self.basis!r}")
            self.set(basis=tuple(float(x) for x in self.basis))
            require_positive("width of the basis", float(self.basis[2]))
        if self.mean_neighbours != 1 and self.aggregation != "sum":
            raise ValueError(
                f"expected mean_neighbours, which sums of messages are divided by, with the aggregation 'sum' alone, "
                f"got {self.mean_neighbours} with {self.aggregation!r}"
            )


class MessagePassingLayer(nn.Module):
    """One layer: message, aggregation, residual update. Parameter names are the lecture's."""

    def __init__(self, node_dim: int, edge_dim: int, hidden_dim: int, aggregation: str, divisor: float):
        super().__init__()
        self.message_mlp = MLP(2 * node_dim + edge_dim, hidden_dim, hidden_dim)
        self.update_mlp = MLP(node_dim + hidden_dim, hidden_dim, node_dim)
        self.aggregation, self.divisor = aggregation, divisor
        self.tables = TableCache()

    def forward(self, h: Tensor, radial: RadialTable, distances: Tensor, smooth: bool, graph: Graph) -> Tensor:
        """(N, node_dim) -> (N, node_dim), with the edges' share of the messages from a table.

        radial: the basis, then the envelope, which is one below the cutoff unless `smooth`.
        """
        first = self.message_mlp.first
        for_ends, for_basis = first.weight.split((2 * h.shape[1], radial.coefficients.shape[2] - 1), dim=1)
        table = self.tables.get(
            "edges",
            (first.weight, first.bias, radial.coefficients),
            lambda: _edge_table(radial, for_basis, first.bias, h.dtype),
        )
        ends = linear(h, torch.cat(for_ends.chunk(2, dim=1)))
        x, n_neighbours = concat_message_table(ends, TabulatedFilter(table, distances), graph.edges)
        total = self._total(x, n_neighbours)
        if self.aggregation == "mean":
            total = total / _divisor(n_neighbours, smooth)
        return self._update(h, total)

    def direct(self, h: Tensor, m: Messages, n_neighbours: Tensor, smooth: bool, graph: Graph) -> Tensor:
        """(N, node_dim) -> (N, node_dim), with the first Linear evaluated at every edge."""
        if self.aggregation == "sum":
            return plain(h, m, n_neighbours, self.weights)
        first, second = self.message_mlp.first, self.message_mlp.last
        for_ends, bias, for_basis = split(first.weight, first.bias, h.shape[1])
        ends = linear(h, for_ends, bias)
        if self.aggregation == "max":  # a maximum does not commute with the second Linear
            edge_part = with_suitable_rows(lambda basis: linear(basis, for_basis), m.basis)
            x = silu(edge_part + add_ends(ends, graph.edges))
            messages = with_suitable_rows(lambda x: linear(x, second.weight, second.bias), x)
            return self._update(h, sum_over_neighbours(messages, graph, m.envelope, reduce="max"))
        x = concat_message_linear(m.basis, for_basis, ends, graph.edges, m.envelope)
        return self._update(h, self._total(x, n_neighbours) / _divisor(n_neighbours, smooth))

    @property
    def weights(self) -> Weights:
        """Of a layer whose aggregation is a sum."""
        weight, bias, *second = self.message_mlp.weights
        return weight, bias, *self._divided(*second), *self.update_mlp.weights

    def _divided(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The message's second Linear, which is divided in place of the sum."""
        return (weight, bias) if self.divisor == 1 else (weight / self.divisor, bias / self.divisor)

    def _total(self, x: Tensor, n_neighbours: Tensor) -> Tensor:
        """The second Linear of the message after the sum (N, hidden_dim)."""
        weight, bias = self._divided(*self.message_mlp.weights[2:])
        return add_linear(n_neighbours * bias, x, weight)

    def _update(self, h: Tensor, total: Tensor) -> Tensor:
        return h + self.update_mlp(torch.cat([h, total], dim=1))  # type: ignore[no-any-return]


def _divisor(n_neighbours: Tensor, smooth: bool) -> Tensor:
    """(N, 1): of a mean."""
    return 1 + n_neighbours if smooth else n_neighbours.clamp(min=1)


def _edge_table(radial: RadialTable, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> RadialTable:
    """From a table of the basis and the envelope that of the basis' share of the first Linear, and the envelope."""
    basis, envelope = radial.coefficients[:, :, :-1], radial.coefficients[:, :, -1:]
    constant, *rest = F.linear(basis, weight.double()).unbind(1)  # the bias is in the constant alone
    share = torch.stack([constant + bias.double(), *rest], dim=1)

    def function(r: Tensor) -> Tensor:
        functions = cast(Callable[[Tensor], Tensor], radial.function)(r)
        share = F.linear(functions[:, :-1], weight.double(), bias.double())
        return torch.cat([share, functions[:, -1:]], dim=1)

    return RadialTable(torch.cat([share, envelope], dim=2).to(dtype), radial.cutoff, function)


class SimpleGNN(Potential):
    """The lecture's network; with its default arguments exactly that, parameter for parameter.

    Parameters
    ----------
    n_elements : int
        Atomic numbers are 0 .. n_elements, where `elements` is None; the number of `elements`, where that is a list.
    node_dim, edge_dim, n_layers : int
        Features of an atom, radial basis functions, message passing layers.
    cutoff : float
        How far edges reach when the graph is built by the calculator or `Graph.from_atoms` (default 3.5).
    envelope : None, "cosine" or "polynomial"
        Weight of a message as a function of r, zero at the cutoff. None, the lecture's choice, makes the energy jump
        when an atom crosses the cutoff: molecular dynamics then does not conserve energy.
    aggregation : "sum", "mean" or "max"
        mean with an envelope is ``sum c m / (1 + sum c)``, which is smooth. max has kinks: not for dynamics, and always
        evaluated at every edge.
    elements : None, "any" or sequence of int
        Atomic numbers that the model knows. None: the numbers themselves are rows of the embedding, as in the lecture.
        "any": all atoms are the same kind (row 1).
    basis : (first centre, last centre, width) of Gaussians, or "exponential"
        The latter are functions that are narrow where potentials are steep, from `basis_start` to the cutoff.
    options
        As of `RadialConfig` and of `ModelConfig`; with a mean_neighbours of 1 it is the lecture's network.
    """

    Config = SimpleGNNConfig
    config: SimpleGNNConfig

    @takes_options_of(SimpleGNNConfig)
    def __init__(self, config: SimpleGNNConfig):
        super().__init__(config)
        c = config
        self.atom_embedding = nn.Embedding(1 + c.n_elements, c.node_dim)
        self.exponential: ExponentialBasis | None = None
        if c.basis == "exponential":
            self.exponential = ExponentialBasis(c.edge_dim, c.cutoff, c.basis_start)
        else:
            start, stop, self.rbf_width = cast(tuple[float, float, float], c.basis)
            self.rbf_centers = nn.Parameter(torch.linspace(start, stop, c.edge_dim), requires_grad=False)
        divisor = math.sqrt(c.mean_neighbours)
        self.layers = nn.ModuleList(
            MessagePassingLayer(c.node_dim, c.edge_dim, c.node_dim, c.aggregation, divisor) for _ in range(c.n_layers)
        )
        self.output_mlp = MLP(c.node_dim, c.node_dim, 1)
        self.tables = TableCache()

    def atomic_features(self, graph: Graph, vectors: Tensor, types: Tensor) -> Tensor:
        """(E, 3) edge vectors, (N,) types -> (N, node_dim). Edges beyond the cutoff count for nothing."""
        if self._is_direct(graph, vectors):
            return self._by_layers(types, self._messages(graph, vectors, self.cutoff), graph)
        h = self.atom_embedding(types)  # N, node_dim
        r, _ = polar(vectors, directions=False)  # E
        radial = self.tables.get("radial", (self._centers,), self._tabulate)
        for layer in self._layers:
            h = layer.forward(h, radial, r, self.config.envelope is not None, graph)  # N, node_dim
        return cast(Tensor, h)

    def _is_direct(self, graph: Graph, vectors: Tensor) -> bool:
        """Whether the basis is evaluated at every edge."""
        always = self.config.filters == "direct" or self.config.aggregation == "max" or self.cutoff == math.inf
        return always or self._table_would_not_pay(graph, vectors)

    def _table_would_not_pay(self, graph: Graph, vectors: Tensor) -> bool:
        """Where energies alone are trained: each step, of other weights, would make a table of its own."""
        traced = not isinstance(vectors, Tensor) or torch.compiler.is_compiling()
        if traced or vectors.requires_grad or not torch.is_grad_enabled():
            return False
        few = graph.n_edges < EDGES_A_KNOT * self.config.n_knots
        return few and any(layer.message_mlp.first.weight.requires_grad for layer in self._layers)

    @property
    def _layers(self) -> Iterable[MessagePassingLayer]:
        return cast(Iterable[MessagePassingLayer], self.layers)

    def _tabulate(self) -> RadialTable:
        """Of the basis, then the envelope, in float64."""
        centers = self._centers.double()

        def functions(r: Tensor) -> Tensor:
            if self.exponential is None:
                basis = torch.exp((r[:, None] - centers).square() * (-0.5 / self.rbf_width**2))
            else:
                basis = call_in_float64(self.exponential, r)
            return torch.cat([basis, self._envelope(r)[:, None]], dim=1)

        return tabulate(functions, self.cutoff, self.config.n_knots, centers)

    @property
    def _centers(self) -> Tensor:
        return self.rbf_centers if self.exponential is None else self.exponential.centers

    def _envelope(self, r: Tensor) -> Tensor:
        name = self.config.envelope
        return torch.ones_like(r) if name is None else ENVELOPES[name](r, self.cutoff)

    def _messages(self, graph: Graph, vectors: Tensor, cutoff: float) -> Messages:
        """With the basis evaluated at every edge; without an envelope, edges count up to `cutoff`."""
        if self.exponential is None:
            distances, basis = edge_basis(vectors, self.rbf_centers, self.rbf_width)
        else:
            distances, _ = polar(vectors, directions=False)
            basis = self.exponential(distances)
        envelope = None
        if self.config.envelope is not None:
            envelope = self._envelope(distances)
        elif cutoff < math.inf and bool((distances >= cutoff).any()):
            envelope = (distances < cutoff).to(basis.dtype)
        return Messages(graph.edges, basis, envelope)

    def _by_layers(self, types: Tensor, m: Messages, graph: Graph) -> Tensor:
        h, n_neighbours = self.atom_embedding(types), m.n_neighbours()
        for layer in self._layers:
            h = layer.direct(h, m, n_neighbours, self.config.envelope is not None, graph)
        return cast(Tensor, h)

    def _features_and_energies(self, graph: Graph, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if not self._is_direct(graph, vectors):
            return super()._features_and_energies(graph, vectors)
        return self._directly(graph, vectors, self.cutoff)

    def _directly(self, graph: Graph, vectors: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
        """Types (N,), features (N, node_dim) and energies (N,) of atoms, with the basis evaluated at every edge."""
        with self.elements.known_in(graph.atomic_numbers):
            types, m = self.elements.types(graph.atomic_numbers), self._messages(graph, vectors, cutoff)
            readout, embedding = cast(MLP, self.output_mlp), self.atom_embedding
            plain_modules = type(embedding) is nn.Embedding and type(readout) is MLP and readout.is_silu
            if plain_modules and self.config.aggregation == "sum" and self.repulsion is None:
                weights = [w for layer in self._layers for w in layer.weights]
                weights += readout.weights
                if suits(m, types, embedding.weight, weights):
                    return types, *fused(m, types, self.elements, embedding.weight, weights)
            h = self._by_layers(types, m, graph)
            return types, h, self.read_out(graph, vectors, types, h)

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
        padded, vectors = graph.padded, graph.vectors.to(self.dtype)
        energies = self._directly(padded, vectors, math.inf)[2][: graph.n_atoms]
        energy = total_energy(self, energies, graph).to(self.dtype)
        return energy.squeeze(0) if batch is None else energy
