"""Filters: what the messages of a layer are multiplied with, functions of distance made by small networks."""

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mdgnn.nn.cutoff import ENVELOPES
from mdgnn.nn.table_cache import TableCache
from mdgnn.ops import RadialTable, tabulate

FILTER_MODES = ("direct", "table")


class Filters(nn.Module):
    """The filters of all layers, ``f_l(r) = network_l(basis(r)) * envelope(r) / divisor``, as tables or at every edge.

    Tables are made anew in every call that may train the networks, and otherwise kept (see `TableCache`).

    Parameters
    ----------
    networks : iterable of Module
        (E, B) -> (E, C), one for each layer.
    basis : Module
        (E,) -> (E, B).
    envelope : "cosine" or "polynomial"
    cutoff : float
        In Angstrom.
    mode : "table" or "direct"
        "table": each layer's filter is a `RadialTable` of `n_knots`; "direct": it is evaluated at every edge.
    n_knots : int
    divisor : float
        Of the filters, and so of sums of messages.
    """

    def __init__(
        self,
        networks: Iterable[nn.Module],
        basis: nn.Module,
        envelope: str,
        *,
        cutoff: float,
        mode: str = "table",
        n_knots: int = 1024,
        divisor: float = 1.0,
    ):
        super().__init__()
        self.networks, self.basis = nn.ModuleList(networks), basis
        self.envelope, self.cutoff, self.mode, self.n_knots = ENVELOPES[envelope], cutoff, mode, n_knots
        self.divisor = divisor
        self.kept = TableCache()

    def forward(self, r: Tensor) -> list[RadialTable] | list[Tensor]:
        """(E,) distances -> for each layer its table, or its filter (E, C) at the edges."""
        if self.mode == "table":
            return self.tables()
        extra = -len(r) % 16 if len(r) < 128 else 0  # as Graph.padded
        padded = F.pad(r, (0, extra), value=self.cutoff) if extra else r
        basis, envelope = self.basis(padded), self.envelope(padded, self.cutoff)[:, None] / self.divisor
        return [(network(basis) * envelope)[: len(r)] for network in self.networks]

    def tables(self) -> list[RadialTable]:
        """The table of each layer, kept ones where nothing has changed."""
        tensors = [*self.parameters(), *self.buffers()]
        found: list[RadialTable] = self.kept.get("filters", tensors, lambda: self._tabulate(tensors[0]))
        return found

    def _tabulate(self, like: Tensor) -> list[RadialTable]:
        """In float64, whatever the network's precision."""

        def of(network: nn.Module) -> RadialTable:
            def function(r: Tensor) -> Tensor:
                basis = functional_call(self.basis, _doubled(self.basis), (r,))
                filters: Tensor = functional_call(network, weights, (basis,))
                return filters * (self.envelope(r, self.cutoff)[:, None] / self.divisor)

            weights = _doubled(network)
            return tabulate(function, self.cutoff, self.n_knots, like)

        return [of(network) for network in self.networks]


def _doubled(module: nn.Module) -> dict[str, Tensor]:
    """The parameters and buffers of a module in float64."""
    return {name: t.double() for name, t in (*module.named_parameters(), *module.named_buffers())}
