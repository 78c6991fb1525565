"""SchNet: continuous-filter convolutions. Schuett et al., J. Chem. Phys. 148, 241722 (2018).

    h_i <- h_i + U_l(sum_j (A_l h_j) * f_l(r_ij)),   f_l(r) = W_l(basis(r)) c(r),   E = sum_i O(h_i)

h_i starts as the embedding of the element. A_l is linear without a bias (`project`); the filter network W_l
(`filters.networks`), U_l (`update`) and O (`output_mlp`) are Linear, shifted softplus, Linear; * is elementwise; c is
the envelope. The paper's "cfconv" is the sum, its "atom-wise" layers are A, U and O.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from mdgnn._internal.blas import Linear
from mdgnn.graph import Graph
from mdgnn.model_config import takes_options_of
from mdgnn.models.filtered import FilteredConfig, make_filters
from mdgnn.nn import MLP, ShiftedSoftplus, xavier
from mdgnn.ops import EdgeRows, Filter, cfconv, polar
from mdgnn.potential import Potential


@dataclass(frozen=True, kw_only=True)
class SchNetConfig(FilteredConfig):
    """See `SchNet`."""

    basis: str = "gaussian"


class Interaction(nn.Module):
    """One interaction block: project, convolve, update."""

    def __init__(self, n_features: int):
        super().__init__()
        self.project = Linear(n_features, n_features, bias=False)
        self.update = MLP(n_features, n_features, n_features, ShiftedSoftplus)

    def forward(self, h: Tensor, filter: Filter, edges: EdgeRows) -> Tensor:
        """(N, F) -> (N, F), with a filter of F values."""
        out: Tensor = h + self.update(cfconv(self.project(h), filter, edges))
        return out


class SchNet(Potential):
    """Continuous-filter convolutional network; its equations stand at the head of this file.

    Parameters
    ----------
    n_features, n_interactions, n_basis : int
        Features of an atom (F), interaction blocks, radial basis functions (B).
    basis : "gaussian", "bessel" or "exponential"
    options
        As of `RadialConfig`, for envelope, basis_start and mean_neighbours, and of `ModelConfig`.
    """

    Config = SchNetConfig
    config: SchNetConfig

    @takes_options_of(SchNetConfig)
    def __init__(self, config: SchNetConfig):
        super().__init__(config)
        c = config
        f, layers = c.n_features, range(c.n_interactions)
        self.embedding = nn.Embedding(1 + c.n_elements, f)
        self.filters = make_filters((MLP(c.n_basis, f, f, ShiftedSoftplus) for _ in layers), c)
        self.interactions = nn.ModuleList(Interaction(f) for _ in layers)
        self.output_mlp = MLP(f, max(1, f // 2), 1, ShiftedSoftplus)
        self.apply(xavier)

    def atomic_features(self, graph: Graph, vectors: Tensor, types: Tensor) -> Tensor:
        """(E, 3) edge vectors, (N,) types -> (N, F) features of the last block."""
        h: Tensor = self.embedding(types)  # N, F
        r, _ = polar(vectors, directions=False)  # E
        for interaction, filter in zip(self.interactions, self.filters(r), strict=True):
            h = interaction(h, filter, graph.edges)  # N, F
        return h
