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

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdgnn._internal.blas import Linear
from mdgnn.graph import Graph
from mdgnn.model_config import takes_options_of
from mdgnn.models.filtered import FilteredConfig, make_filters
from mdgnn.nn import MLP, by_chunks, xavier
from mdgnn.ops import EdgeRows, Filter, painn_message, polar
from mdgnn.potential import Potential

EPSILON = 1e-8  # in |p|


@dataclass(frozen=True, kw_only=True)
class PaiNNConfig(FilteredConfig):
    """See `PaiNN`."""

    basis: str = "bessel"


class Layer(nn.Module):
    """One layer: message between atoms, update within each."""

    def __init__(self, n_features: int):
        super().__init__()
        self.message_mlp = MLP(n_features, n_features, 3 * n_features)
        self.mix = Linear(n_features, 2 * n_features, bias=False)
        self.update_mlp = MLP(2 * n_features, n_features, 3 * n_features)

    def forward(self, s: Tensor, v: Tensor, filter: Filter, unit: Tensor, edges: EdgeRows) -> tuple[Tensor, Tensor]:
        """(N, F) and (N, 3, F) -> the same, with a filter of 3 F values."""
        (x,) = by_chunks(lambda s: (self.message_mlp(s),), s)  # N, 3 F
        ds, dv = painn_message(x, v, filter, unit, edges)  # N, F and N, 3, F
        return by_chunks(self.update, s + ds, v + dv)  # type: ignore[return-value]

    def update(self, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """What each atom makes of its own scalars and vectors."""
        p, q = self.mix(v).chunk(2, dim=2)  # N, 3, F
        length = ((p * p).sum(1) + EPSILON).sqrt()  # N, F
        a, b, c = self.update_mlp(torch.cat([s, length], dim=1)).chunk(3, dim=1)  # N, F
        return s + a + c * (p * q).sum(1), v + b[:, None] * q


class PaiNN(Potential):
    """Polarizable atom interaction network; its equations stand at the head of this file.

    Parameters
    ----------
    n_features, n_interactions, n_basis : int
        Features of an atom (F), layers, radial basis functions (B).
    basis : "bessel", "gaussian" or "exponential"
    options
        As of `RadialConfig`, for envelope, basis_start and mean_neighbours, and of `ModelConfig`.
    """

    Config = PaiNNConfig
    config: PaiNNConfig

    @takes_options_of(PaiNNConfig)
    def __init__(self, config: PaiNNConfig):
        super().__init__(config)
        c = config
        f, layers = c.n_features, range(c.n_interactions)
        self.embedding = nn.Embedding(1 + c.n_elements, f)
        self.filters = make_filters((Linear(c.n_basis, 3 * f) for _ in layers), c)
        self.layers = nn.ModuleList(Layer(f) for _ in layers)
        self.output_mlp = MLP(f, max(1, f // 2), 1)
        self.apply(xavier)

    def atomic_features(self, graph: Graph, vectors: Tensor, types: Tensor) -> Tensor:
        """(E, 3) edge vectors, (N,) types -> (N, F) scalars of the last layer."""
        s: Tensor = self.embedding(types)  # N, F
        v = s.new_zeros(s.shape[0], 3, s.shape[1])  # N, 3, F
        r, unit = polar(vectors)  # E and E, 3
        for layer, filter in zip(self.layers, self.filters(r), strict=True):
            s, v = layer(s, v, filter, unit, graph.edges)  # N, F and N, 3, F
        return s
