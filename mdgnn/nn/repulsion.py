"""Repulsion of pairs at short distances: a wall where there are no data to learn one from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mdgnn.graph import Graph
from mdgnn.nn.filters import Filters
from mdgnn.ops import cfconv, direct_cfconv

RATES = (3.0, 6.0, 12.0, 24.0)  # at first, per Angstrom


class Repulsion(nn.Module):
    """``e_i = 1/2 sum_j sum_k exp(a_ik + a_jk - b_k (r_ij - 1)) c(r_ij)``, k = 1 .. 4, added to what the network says.

    Born and Mayer, Z. Phys. 75, 1 (1932), as a sum of exponentials; the strengths a of each element and the rates b are
    trained. Whatever they become, each term is positive and falls with the distance. A network alone has functions of
    distance that are bounded, and learnt where there are data: nearer than those, its energy may fall.

    Parameters
    ----------
    n_elements : int
        Rows 0 .. n_elements, as of the embedding.
    cutoff : float
        Where it vanishes, by the polynomial envelope.
    mode : "table" or "direct"
    n_knots : int
        As of `Filters`.

    Raises
    ------
    ValueError
        If the cutoff is infinite.
    """

    def __init__(self, n_elements: int, *, cutoff: float, mode: str, n_knots: int):
        super().__init__()
        if not cutoff < float("inf"):
            raise ValueError(f"expected a finite cutoff of a model with repulsion, got {cutoff}")
        self.strengths = nn.Parameter(torch.full((n_elements + 1, len(RATES)), -1.0))
        self.functions = Filters(
            [nn.Identity()], Exponentials(), "polynomial", cutoff=cutoff, mode=mode, n_knots=n_knots
        )

    def forward(self, rows: Tensor, r: Tensor, graph: Graph) -> Tensor:
        """(N,) rows of the embedding, (E,) distances -> (N, 1), in units of the network."""
        x = F.embedding(rows, self.strengths.exp())
        (functions,) = self.functions(r)
        if isinstance(functions, Tensor):
            met = direct_cfconv(x, functions, graph.neighbours, graph.by_sender)
        else:
            met = cfconv(x, functions, r, graph.neighbours, graph.sent)
        return F.linear(x * met, torch.full_like(self.strengths[:1], 0.5))


class Exponentials(nn.Module):
    """``exp(-b_k (r - 1))``, (E,) -> (E, K)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_rates = nn.Parameter(torch.tensor(RATES).log())

    def forward(self, r: Tensor) -> Tensor:
        return torch.exp((1 - r[:, None]) * self.log_rates.exp())
