"""The Lennard-Jones pair potential: the truth for labels, tests and demonstrations.

V(r) = 4 epsilon [(sigma / r)^12 - (sigma / r)^6]   (Lennard-Jones, Proc. R. Soc. Lond. A 106, 463, 1924)
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mdgnn.graph import Graph, sum_over_neighbours
from mdgnn.nn import polynomial_cutoff


class LennardJones(nn.Module):
    """Lennard-Jones energy, half of each pair's energy on either atom.

    Parameters
    ----------
    epsilon, sigma : float
        Depth and distance of zero energy; 1 and 1 are reduced units.
    cutoff : float or None
        None (the default): every pair of an open system.
    mode : "cut", "shifted", "smooth" or "full"
        What happens at the cutoff: "cut" leaves a step; "shifted" subtracts V(cutoff); "smooth" multiplies by a
        polynomial envelope with two continuous derivatives. "full" is the choice without a cutoff.
    """

    units = "lj"
    elements = "any"
    readout = "sum"
    least_distance = 0.0
    dtype = torch.float64
    heads = None

    def __init__(self, epsilon: float = 1.0, sigma: float = 1.0, cutoff: float | None = None, mode: str | None = None):
        super().__init__()
        mode = mode or ("full" if cutoff is None else "smooth")
        if mode not in ("cut", "shifted", "smooth", "full"):
            raise ValueError(f"expected mode 'cut', 'shifted', 'smooth' or 'full', got {mode!r}")
        if (mode == "full") != (cutoff is None):
            raise ValueError(f"mode {mode!r} does not go with cutoff {cutoff}: 'full' has none, the others need one")
        if not (epsilon > 0 and sigma > 0 and (cutoff is None or cutoff > 0)):
            raise ValueError(
                f"expected positive epsilon, sigma and cutoff, got epsilon = {epsilon}, sigma = {sigma}, "
                f"cutoff = {cutoff}"
            )
        self.config: dict[str, Any] = {"epsilon": epsilon, "sigma": sigma, "cutoff": cutoff, "mode": mode}
        self.epsilon, self.sigma, self.mode = epsilon, sigma, mode
        self.cutoff = math.inf if cutoff is None else cutoff

    def pair_energy(self, distances: Tensor) -> Tensor:
        """(E,) distances -> (E,) pair energies."""
        s2 = (self.sigma / distances) * (self.sigma / distances)
        s6 = s2 * s2 * s2  # products: the bits of a power depend on the number of threads
        energy = 4 * self.epsilon * (s6 * s6 - s6)
        if self.mode == "shifted":
            c6 = (self.sigma / self.cutoff) ** 6
            energy = energy - 4 * self.epsilon * (c6 * c6 - c6)
        if self.mode == "smooth":
            energy = energy * polynomial_cutoff(distances, self.cutoff)
        return energy

    def atomic_energies(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(E, 3) edge vectors -> (N,) energies."""
        energy = self.pair_energy(torch.linalg.vector_norm(vectors, dim=1))
        return 0.5 * sum_over_neighbours(energy[:, None], graph).squeeze(1)
