"""SchNet: continuous-filter convolutions. Schuett et al., J. Chem. Phys. 148, 241722 (2018).

    h_i <- h_i + U_l(sum_j (A_l h_j) * f_l(r_ij)),   f_l(r) = W_l(basis(r)) c(r),   E = sum_i O(h_i)

h_i starts as the embedding of the element. A_l is linear without a bias (`project`); the filter network W_l
(`filters.networks`), U_l (`update`) and O (`output_mlp`) are Linear, shifted softplus, Linear; * is elementwise; c is
the envelope. The paper's "cfconv" is the sum, its "atom-wise" layers are A, U and O.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mdgnn.graph import Graph
from mdgnn.models.options import RADIAL, check_radial, complete
from mdgnn.nn import BASES, Elements, Filters, Heads, Repulsion, ShiftedSoftplus, atomic_numbers_of, mlp, xavier
from mdgnn.ops import Filter, cfconv, polar


class Interaction(nn.Module):
    """One interaction block: project, convolve, update."""

    def __init__(self, n_features: int):
        super().__init__()
        self.project = nn.Linear(n_features, n_features, bias=False)
        self.update = mlp(n_features, n_features, n_features, ShiftedSoftplus)

    def forward(self, h: Tensor, filter: Filter, graph: Graph) -> Tensor:
        """(N, F) -> (N, F), with a filter of F values."""
        out: Tensor = h + self.update(cfconv(self.project(h), filter, graph.edges))
        return out


class SchNet(nn.Module):
    """Continuous-filter convolutional network; its equations stand at the head of this file.

    Parameters
    ----------
    n_features, n_interactions, n_basis : int
        Features of an atom (F), interaction blocks, radial basis functions (B).
    cutoff : float
        How far edges reach (Angstrom); messages vanish there.
    basis : "gaussian", "bessel" or "exponential"
    envelope : "cosine" or "polynomial"
        "polynomial" has a continuous curvature at the cutoff, "cosine" has not.
    elements : "any" or list of int
        Atomic numbers that the model knows. "any": all atoms are the same kind.
    options : dict
        Rarely needed: ``basis_start`` = where Gaussians and exponentials begin; ``filters`` = "table" (default; filters
        are interpolated between ``n_knots`` = 1024 distances) or "direct" (evaluated at every edge); ``readout`` =
        "sum" (extensive) or "mean" (intensive); ``shift``, ``scale`` = per-element lists in the order of `elements`
        (one number each for "any"): e_i = scale * network + shift; ``units`` = "metal" or "lj";
        ``least_distance`` = shortest distance in the training data; ``repulsion`` = distance at which atoms
        begin to repel each other, beside what the network says: see `mdgnn.nn.Repulsion` (0: none of it);
        ``mean_neighbours`` = number of neighbours whose square root the filters are divided by, as the sum of so many
        messages of either sign is so much larger (1: the published network; `mdgnn train` takes that of the data).
    """

    def __init__(
        self,
        n_features: int = 64,
        n_interactions: int = 3,
        n_basis: int = 20,
        *,
        cutoff: float = 5.0,
        basis: str = "gaussian",
        envelope: str = "cosine",
        elements: str | list[int] = "any",
        **options: Any,
    ):
        super().__init__()
        self.config: dict[str, Any] = {
            "n_features": n_features,
            "n_interactions": n_interactions,
            "n_basis": n_basis,
            "cutoff": float(cutoff),
            "basis": basis,
            "envelope": envelope,
            "elements": atomic_numbers_of(elements),
            **complete("SchNet", options, RADIAL),
        }
        check_radial(self.config)
        self.cutoff, self.elements = float(cutoff), self.config["elements"]
        self.readout: str = self.config["readout"]
        self.units: str = self.config["units"]
        self.least_distance = float(self.config["least_distance"])
        n_elements = len(self.elements) if isinstance(self.elements, list) else 1

        self.embedding = nn.Embedding(n_elements + 1, n_features)
        self.filters = Filters(
            (mlp(n_basis, n_features, n_features, ShiftedSoftplus) for _ in range(n_interactions)),
            BASES[basis](n_basis, self.cutoff, self.config["basis_start"]),
            envelope,
            cutoff=self.cutoff,
            mode=self.config["filters"],
            n_knots=self.config["n_knots"],
            divisor=math.sqrt(self.config["mean_neighbours"]),
        )
        self.interactions = nn.ModuleList(Interaction(n_features) for _ in range(n_interactions))
        self.output_mlp = mlp(n_features, max(1, n_features // 2), 1, ShiftedSoftplus)
        self.apply(xavier)
        self.species = Elements(self.elements, n_elements, self.config["shift"], self.config["scale"])
        self.repulsion = Repulsion.of(self.config, n_elements)
        self.heads: Heads | None = None  # of other properties: mdgnn.nn.attach_heads

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return self.embedding.weight.dtype

    def atomic_features(self, graph: Graph, vectors: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """(E, 3) edge vectors -> rows of the embedding (N,), features of the last layer (N, F), repulsion (N, 1).

        Raises
        ------
        ValueError
            For an atom whose element the model does not know (on the CPU; a GPU stops with an error of its own).
        """
        rows, h = self.species.embed(graph.atomic_numbers, self.embedding)
        r, _ = polar(vectors, directions=False)
        for interaction, filter in zip(self.interactions, self.filters(r), strict=True):
            h = interaction(h, filter, graph)
        return rows, h, None if self.repulsion is None else self.repulsion(rows, r, graph)

    def read_out(self, rows: Tensor, features: Tensor, pairs: Tensor | None) -> Tensor:
        """What `atomic_features` returns -> (N,) atomic energies in float64."""
        network = self.output_mlp(features)
        return self.species.energies(rows, (network if pairs is None else network + pairs).squeeze(1))

    def atomic_energies(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(E, 3) edge vectors -> (N,) atomic energies in float64. Raises as `atomic_features`."""
        return self.read_out(*self.atomic_features(graph, vectors))
