"""Filters: what the messages of a layer are multiplied with, functions of distance made by small networks."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mdgnn._internal.blas import with_suitable_rows
from mdgnn.nn.cutoff import ENVELOPES
from mdgnn.nn.table_cache import TableCache
from mdgnn.ops import Filter, RadialTable, TabulatedFilter, tabulate

FILTER_MODES = ("direct", "table")


class Filters(nn.Module):
    """The filters of all layers, ``f_l(r) = network_l(basis(r)) * envelope(r) / divisor``, as tables or at every edge.

    Tables are made anew in every call that may train the networks, and otherwise cached (see `TableCache`).

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
        self.cache = TableCache()

    def forward(self, r: Tensor) -> list[Filter]:
        """(E,) distances -> the filter of each layer, for the ops that take one."""
        if self.mode == "table":
            return [TabulatedFilter(table, r) for table in self.tables()]
        basis, envelope = self.basis(r), self.envelope(r, self.cutoff)[:, None] / self.divisor
        return [with_suitable_rows(network, basis) * envelope for network in self.networks]

    def tables(self) -> list[RadialTable]:
        """The table of each layer, from the cache where nothing has changed."""
        tensors = [
            tensor
            for module in self.modules()  # in half of the time of self.parameters() and self.buffers()
            for tensor in (*module._parameters.values(), *module._buffers.values())
            if tensor is not None
        ]
        tables: list[RadialTable] = self.cache.get(
            "filters", tensors, lambda: self._tabulate(next(filter(Tensor.is_floating_point, tensors)))
        )
        return tables

    def _tabulate(self, like: Tensor) -> list[RadialTable]:
        """In float64, whatever the network's precision."""

        def of(network: nn.Module) -> RadialTable:
            def function(r: Tensor) -> Tensor:
                filters: Tensor = call_in_float64(network, call_in_float64(self.basis, r))
                return filters * (self.envelope(r, self.cutoff)[:, None] / self.divisor)

            return tabulate(function, self.cutoff, self.n_knots, like)

        return [of(network) for network in self.networks]


def call_in_float64(module: nn.Module, x: Tensor) -> Tensor:
    """`module(x)` with its parameters and buffers of real numbers in float64, which derivatives reach.

    Another thread may call the module meanwhile: it stays as it is. Torch's `functional_call` would change it for as
    long as the call takes, except where torch.compile traces it, which for its part cannot trace twins.
    """
    if torch.compiler.is_compiling():
        own = (*module.named_parameters(), *module.named_buffers())
        result: Tensor = functional_call(module, {name: _in_float64(t) for name, t in own}, (x,))
    else:
        result = _twin(module)(x)
    return result


def _in_float64(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor  # integers are indices


def _twin(module: nn.Module) -> nn.Module:
    twin, own = copy.copy(module), module.__dict__
    for kind in ("_parameters", "_buffers"):
        twin.__dict__[kind] = {name: None if t is None else _in_float64(t) for name, t in own[kind].items()}
    twin.__dict__["_modules"] = {name: None if m is None else _twin(m) for name, m in own["_modules"].items()}
    return twin
