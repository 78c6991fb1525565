"""PaiNN: messages of scalars and vectors. Schuett, Unke and Gastegger, ICML 2021.

Each atom has scalars s_i (F) and vectors v_i (3, F), which turn with the structure. A layer is a message and an update.

    message   (a, b, c) = M_l(s_j) * f_l(r_ij),   f_l(r) = W_l(basis(r)) c(r)
              s_i <- s_i + sum_j a,   v_i <- v_i + sum_j (u_ij outer b + v_j * c)
    update    (p, q) = v_i C_l,   (a, b, c) = U_l([s_i, |p|])
              s_i <- s_i + a + c * <p, q>,   v_i <- v_i + b * q
    energy    E = sum_i O(s_i)

s_i starts as the embedding of the element, v_i as zero. W_l (`filters.networks`) and C_l (`mix`, without a bias) are
linear; M_l (`message_mlp`), U_l (`update_mlp`) and O (`output_mlp`) are Linear, SiLU, Linear; * is elementwise; c(r) is
the envelope; u_ij points from receiver i to sender j; |p| = sqrt(<p, p> + 1e-8), whose gradient at p = 0 is finite.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mdgnn.graph import Graph
from mdgnn.models.options import RADIAL, check_radial, complete
from mdgnn.nn import BASES, Elements, Filters, Heads, Repulsion, apply_mlp, atomic_numbers_of, by_chunks, mlp, xavier
from mdgnn.ops import Filter, painn_message, polar

EPSILON = 1e-8  # in |p|


class Layer(nn.Module):
    """One layer: message between atoms, update within each."""

    message_mlp: nn.Sequential
    update_mlp: nn.Sequential

    def __init__(self, n_features: int):
        super().__init__()
        self.message_mlp = mlp(n_features, n_features, 3 * n_features)
        self.mix = nn.Linear(n_features, 2 * n_features, bias=False)
        self.update_mlp = mlp(2 * n_features, n_features, 3 * n_features)

    def forward(self, s: Tensor, v: Tensor, filter: Filter, unit: Tensor, graph: Graph) -> tuple[Tensor, Tensor]:
        """(N, F) and (N, 3, F) -> the same, with a filter of 3 F values."""
        (x,) = by_chunks(lambda s: (apply_mlp(self.message_mlp, s),), s)
        ds, dv = painn_message(x, v, filter, unit, graph.edges)
        return by_chunks(self.update, s + ds, v + dv)  # type: ignore[return-value]

    def update(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What each atom makes of its own scalars and vectors."""
        p, q = self.mix(v).chunk(2, dim=2)
        length = ((p * p).sum(1) + EPSILON).sqrt()
        a, b, c = apply_mlp(self.update_mlp, torch.cat([s, length], dim=1)).chunk(3, dim=1)
        return s + a + c * (p * q).sum(1), v + b[:, None] * q


class PaiNN(nn.Module):
    """Polarizable atom interaction network; its equations stand at the head of this file.

    Parameters
    ----------
    n_features, n_interactions, n_basis : int
        Features of an atom (F), layers, radial basis functions (B).
    cutoff : float
        How far edges reach (Angstrom); messages vanish there.
    basis : "bessel", "gaussian" or "exponential"
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
        basis: str = "bessel",
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
            **complete("PaiNN", options, RADIAL),
        }
        check_radial(self.config)
        self.cutoff, self.elements = float(cutoff), self.config["elements"]
        self.readout: str = self.config["readout"]
        self.units: str = self.config["units"]
        self.least_distance = float(self.config["least_distance"])
        n_elements = len(self.elements) if isinstance(self.elements, list) else 1

        self.embedding = nn.Embedding(n_elements + 1, n_features)
        self.filters = Filters(
            (nn.Linear(n_basis, 3 * n_features) for _ in range(n_interactions)),
            BASES[basis](n_basis, self.cutoff, self.config["basis_start"]),
            envelope,
            cutoff=self.cutoff,
            mode=self.config["filters"],
            n_knots=self.config["n_knots"],
            divisor=math.sqrt(self.config["mean_neighbours"]),
        )
        self.layers = nn.ModuleList(Layer(n_features) for _ in range(n_interactions))
        self.output_mlp = mlp(n_features, max(1, n_features // 2), 1)
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
        rows, s = self.species.embed(graph.atomic_numbers, self.embedding)
        v = s.new_zeros(s.shape[0], 3, s.shape[1])
        r, unit = polar(vectors)
        for layer, filter in zip(self.layers, self.filters(r), strict=True):
            s, v = layer(s, v, filter, unit, graph)
        return rows, s, None if self.repulsion is None else self.repulsion(rows, r, graph)

    def read_out(self, rows: Tensor, features: Tensor, pairs: Tensor | None) -> Tensor:
        """What `atomic_features` returns -> (N,) atomic energies in float64."""
        network = apply_mlp(self.output_mlp, features)
        return self.species.energies(rows, (network if pairs is None else network + pairs).squeeze(1))

    def atomic_energies(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(E, 3) edge vectors -> (N,) atomic energies in float64. Raises as `atomic_features`."""
        return self.read_out(*self.atomic_features(graph, vectors))
