"""The Lennard-Jones pair potential: the truth for labels, tests and demonstrations.

V(r) = 4 epsilon [(sigma / r)^12 - (sigma / r)^6]   (Lennard-Jones, Proc. R. Soc. Lond. A 106, 463, 1924)
"""

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor, nn

from mdgnn.graph import Graph, sum_over_neighbours
from mdgnn.model_config import ModelConfig, takes_options_of
from mdgnn.nn import polynomial_cutoff
from mdgnn.potential import Potential


@dataclass(frozen=True)
class LennardJonesConfig(ModelConfig):
    """See `LennardJones`."""

    epsilon: float = 1.0
    sigma: float = 1.0
    _: KW_ONLY
    cutoff: float = math.inf
    mode: str | None = None
    units: str = "lj"

    def __post_init__(self) -> None:
        cutoff = None if self.cutoff == math.inf else self.cutoff
        mode = self.mode or ("full" if cutoff is None else "smooth")
        if mode not in ("cut", "shifted", "smooth", "full"):
            raise ValueError(f"expected mode 'cut', 'shifted', 'smooth' or 'full', got {mode!r}")
        if (mode == "full") != (cutoff is None):
            raise ValueError(f"mode {mode!r} does not go with cutoff {cutoff}: 'full' has none, the others need one")
        if not (self.epsilon > 0 and self.sigma > 0 and (cutoff is None or cutoff > 0)):
            raise ValueError(
                f"expected positive epsilon, sigma and cutoff, got epsilon = {self.epsilon}, sigma = {self.sigma}, "
                f"cutoff = {cutoff}"
            )
        self.set(mode=mode)
        super().__post_init__()


class LennardJones(Potential):
    """Lennard-Jones energy, half of each pair's energy on either atom.

    Parameters
    ----------
    epsilon, sigma : float
        Depth and distance of zero energy; 1 and 1 are reduced units.
    cutoff : float
        Infinite (the default), or None in files: every pair of an open system.
    mode : "cut", "shifted", "smooth" or "full"
        What happens at the cutoff: "cut" leaves a step; "shifted" subtracts V(cutoff); "smooth" multiplies by a
        polynomial envelope with two continuous derivatives. "full" is the choice without a cutoff.
    options
        As of `ModelConfig`.
    """

    Config = LennardJonesConfig
    has_weights = False
    config: LennardJonesConfig

    @takes_options_of(LennardJonesConfig)
    def __init__(self, config: LennardJonesConfig):
        super().__init__(config)
        self.output_mlp = nn.Identity()  # the only feature is the energy
        self.double()

    def pair_energy(self, distances: Tensor) -> Tensor:
        """(E,) distances -> (E,) pair energies."""
        c = self.config
        s2 = (c.sigma / distances) * (c.sigma / distances)
        s6 = s2 * s2 * s2  # products: the bits of a power depend on the number of threads
        energy = 4 * c.epsilon * (s6 * s6 - s6)
        if c.mode == "shifted":
            c6 = (c.sigma / self.cutoff) ** 6
            energy = energy - 4 * c.epsilon * (c6 * c6 - c6)
        if c.mode == "smooth":
            energy = energy * polynomial_cutoff(distances, self.cutoff)
        return energy

    def atomic_features(self, graph: Graph, vectors: Tensor, types: Tensor) -> Tensor:
        """(E, 3) edge vectors -> (N, 1) energies."""
        pairs = self.pair_energy(torch.linalg.vector_norm(vectors, dim=1))  # E
        return 0.5 * sum_over_neighbours(pairs[:, None], graph)  # N, 1
