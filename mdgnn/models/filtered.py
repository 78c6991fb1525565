"""What SchNet and PaiNN share: filters of a radial basis for each layer."""

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass

from torch import nn

from mdgnn.model_config import RadialConfig, require, require_positive
from mdgnn.nn import BASES, Filters


@dataclass(frozen=True)
class FilteredConfig(RadialConfig):
    """Sizes and the radial basis; see the models."""

    n_features: int = 64
    n_interactions: int = 3
    n_basis: int = 20
    _: KW_ONLY
    basis: str = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("n_features", self.n_features)
        require_positive("n_interactions", self.n_interactions)
        require("basis", self.basis, tuple(BASES))
        self.require_basis_start(0.0 if self.basis == "bessel" else self.cutoff)


def make_filters(networks: Iterable[nn.Module], config: FilteredConfig) -> Filters:
    """``f_l(r) = network_l(basis(r)) c(r) / sqrt(mean_neighbours)`` of each layer."""
    return Filters(
        networks,
        BASES[config.basis](config.n_basis, config.cutoff, config.basis_start),
        str(config.envelope),
        cutoff=config.cutoff,
        mode=config.filters,
        n_knots=config.n_knots,
        divisor=math.sqrt(config.mean_neighbours),
    )
