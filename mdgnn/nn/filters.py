"""Filters: what the messages of a layer are multiplied with, functions of distance made by small networks."""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn.nn.cutoff import ENVELOPES
from mdgnn.ops import RadialTable, tabulate

FILTER_MODES = ("direct", "table")


class Filters(nn.Module):
    """The filters of all layers, ``f_l(r) = network_l(basis(r)) * envelope(r)``, as tables or at every edge.

    Tables are made anew in every call that may train the networks. Otherwise they are kept for the next call, until a
    parameter has changed (in any way but in place through `.data`, of which torch keeps no record). They are not part
    of the state, and copies make their own.

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
    """

    def __init__(
        self,
        networks: Iterable[nn.Module],
        basis: nn.Module,
        envelope: str,
        *,
        cutoff: float,
        mode: str = "table",
        n_knots: int = 512,
    ):
        super().__init__()
        self.networks, self.basis = nn.ModuleList(networks), basis
        self.envelope, self.cutoff, self.mode, self.n_knots = ENVELOPES[envelope], cutoff, mode, n_knots
        self._kept: tuple[list[RadialTable], list[tuple[Tensor, int]]] | None = None

    def forward(self, r: Tensor) -> list[RadialTable] | list[Tensor]:
        """(E,) distances -> for each layer its table, or its filter (E, C) at the edges."""
        if self.mode == "table":
            return self.tables()
        extra = -len(r) % 16 if len(r) < 128 else 0  # as Graph.padded
        padded = F.pad(r, (0, extra), value=self.cutoff) if extra else r
        basis, envelope = self.basis(padded), self.envelope(padded, self.cutoff)[:, None]
        return [(network(basis) * envelope)[: len(r)] for network in self.networks]

    def tables(self) -> list[RadialTable]:
        """The table of each layer, kept ones where nothing has changed."""
        tensors = [*self.parameters(), *self.buffers()]
        if torch.compiler.is_compiling():
            return self._tabulate(tensors[0])
        if torch.is_inference_mode_enabled() or (
            torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
        ):
            self._kept = None
            return self._tabulate(tensors[0])
        if self._kept is None or not _are_those(tensors, self._kept[1]):
            # Detached tensors share memory and version: holding them, no new tensor can come to lie at their address.
            self._kept = self._tabulate(tensors[0]), [(tensor.detach(), tensor._version) for tensor in tensors]
        return self._kept[0]

    def _tabulate(self, like: Tensor) -> list[RadialTable]:
        def of(network: nn.Module) -> RadialTable:
            return tabulate(
                lambda r: network(self.basis(r)) * self.envelope(r, self.cutoff)[:, None],
                self.cutoff,
                self.n_knots,
                like,
            )

        return [of(network) for network in self.networks]

    def __getstate__(self) -> dict[str, Any]:
        """Without the kept tables."""
        return {**self.__dict__, "_kept": None}


def _are_those(tensors: list[Tensor], seen: list[tuple[Tensor, int]]) -> bool:
    """Whether the tensors have the memory, and the version, in which they have been seen."""
    return len(tensors) == len(seen) and all(
        now.data_ptr() == then.data_ptr() and now.dtype == then.dtype and now._version == version
        for now, (then, version) in zip(tensors, seen, strict=True)
    )
