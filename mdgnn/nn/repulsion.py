"""Repulsion of pairs at short distances: a wall where there are no data to learn one from."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn.graph import Graph
from mdgnn.nn.filters import Filters
from mdgnn.ops import cfconv

RATES = (3.0, 6.0, 12.0, 24.0)  # at first, per `start`
FASTEST = 60.0  # per `start`; exp(60), at r = 0 where tables begin, is far from the end of float32
STEEPEST = 2.0  # between two knots; up to 2.5, where the cubic of an exponential is sure to fall


class Repulsion(nn.Module):
    """``e_i = 1/2 sum_j sum_k exp(a_ik + a_jk - b_k (r_ij - start)) c(r_ij)``, k = 1 .. 4: added to the network.

    Born and Mayer, Z. Phys. 75, 1 (1932), as a sum of exponentials. Strengths a of each element, -1 at first, and rates
    b, at most 60 / start, are trained. Each term is positive and falls with the distance, whatever is learnt. Functions
    of distance in a network are bounded instead, and follow the data: nearer than those, its energy may fall.

    Parameters
    ----------
    n_elements : int
        Rows 0 .. n_elements, as of the embedding.
    start : float
        Where terms are ``exp(-2)`` at first (Angstrom): about where atoms begin to repel each other, sigma of
        Lennard-Jones atoms.
    cutoff : float
        Where it vanishes, by the polynomial envelope.
    mode : "table" or "direct"
        As of `Filters`. With 1,024 knots up to a cutoff of 5, terms of rates of 19, 30 and 59 were 2e-7, 1e-6 and 2e-5
        of themselves off; with 512, 16 times as much.
    n_knots : int

    Raises
    ------
    ValueError
        If the start is not between 0 and a finite cutoff, or there are too few knots for terms to fall between them.
    """

    def __init__(self, n_elements: int, start: float, *, cutoff: float, mode: str, n_knots: int):
        super().__init__()
        if not 0 < start < cutoff < math.inf:
            raise ValueError(f"expected a repulsion from between 0 and a finite cutoff, got {start} and {cutoff}")
        least = math.ceil(1 + cutoff * FASTEST / (start * STEEPEST))
        if mode == "table" and n_knots < least:
            raise ValueError(f"expected {least} knots or more for a repulsion from {start}, got {n_knots}")
        self.strengths = nn.Parameter(torch.full((n_elements + 1, len(RATES)), -1.0))
        basis = Exponentials(start)
        self.functions = Filters([nn.Identity()], basis, "polynomial", cutoff=cutoff, mode=mode, n_knots=n_knots)

    @staticmethod
    def of(config: dict[str, Any], n_elements: int) -> "Repulsion | None":
        """What the configuration of a network asks for. Raises as `Repulsion`."""
        start = float(config["repulsion"])
        if start == 0:
            return None
        return Repulsion(n_elements, start, cutoff=config["cutoff"], mode=config["filters"], n_knots=config["n_knots"])

    def forward(self, rows: Tensor, r: Tensor, graph: Graph) -> Tensor:
        """(N,) rows of the embedding, (E,) distances -> (N, 1), in units of the network."""
        x = F.embedding(rows, self.strengths.exp())
        (functions,) = self.functions(r)
        return F.linear(x * cfconv(x, functions, graph.edges), torch.full_like(self.strengths[:1], 0.5))


class Exponentials(nn.Module):
    """``exp(-b_k (r - start))``, (E,) -> (E, K), with ``b_k = 60 / start * sigmoid(rates_k)``."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.rates = nn.Parameter(torch.logit(torch.tensor(RATES) / FASTEST))

    def forward(self, r: Tensor) -> Tensor:
        return torch.exp((1 - r[:, None] / self.start) * (FASTEST * torch.sigmoid(self.rates)))
