"""Arguments of ops for tests and benchmarks: graphs without symmetry, rough tables, distances between their knots."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.csr import EdgeRows, Rows, rows_by
from mdgnn.ops.radial_filter import hermite

CUTOFF = 2.0
N_KNOTS = 9


class Example:
    """What an op's `example` is asked for, and what it is made of.

    Numbers are drawn in float64 on the CPU and then rounded and moved: the same for every dtype and device.

    Parameters
    ----------
    n_atoms, n_edges, width : int
    dtype : torch.dtype
    device : str
    seed : int
    options : mapping
        The variant of an op that has several, such as ``{"reduce": "mean"}``.
    """

    def __init__(
        self,
        n_atoms: int = 5,
        n_edges: int = 17,
        width: int = 4,
        *,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
    ):
        self.n_atoms, self.n_edges, self.width, self.dtype, self.device = n_atoms, n_edges, width, dtype, device
        self._generator, self._options = torch.Generator().manual_seed(seed), options or {}

    def option(self, name: str, default: Any) -> Any:
        return self._options.get(name, default)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        values = torch.randn(*shape, dtype=torch.float64, generator=self._generator)
        return values.to(self.device, dtype or self.dtype)

    def uniform(self, *shape: int) -> Tensor:
        values = torch.rand(*shape, dtype=torch.float64, generator=self._generator)
        return values.to(self.device, self.dtype)

    def integers(self, high: int, *shape: int) -> Tensor:
        return torch.randint(0, max(high, 1), shape, generator=self._generator)

    def edges(self) -> EdgeRows:
        """With self loops and edges that come twice; atom 1 receives nothing."""
        receivers, senders = self.integers(self.n_atoms, self.n_edges), self.integers(self.n_atoms, self.n_edges)
        receivers[receivers == 1] = 0
        rows = rows_by(receivers.sort().values, self.n_atoms)
        return EdgeRows(Rows(rows.row_ptr.to(self.device), senders.to(self.device)))

    def coefficients(self, width: int) -> Tensor:
        """Of a table up to `CUTOFF`: random values and slopes at knots; zero at the cutoff."""
        knots = torch.randn(2, N_KNOTS, width, dtype=torch.float64, generator=self._generator)
        knots[:, -1] = 0
        return hermite(*knots).to(self.device, self.dtype)

    def distances(self) -> Tensor:
        """(E,), well between the knots, where a table is smooth; each sixth is beyond the cutoff."""
        interval = self.integers(N_KNOTS - 1, self.n_edges)
        interval[5::6] += N_KNOTS
        fraction = torch.rand(self.n_edges, dtype=torch.float64, generator=self._generator)
        return ((interval + 0.2 + 0.6 * fraction) * (CUTOFF / (N_KNOTS - 1))).to(self.device, self.dtype)
