"""Radial bases: distances (E,) -> (E, B).

Bases are made of operations that `mdgnn.ops.dual` has rules for. Value and slope are finite at r = 0, where tables
begin.
"""

import math

import torch
from torch import Tensor, nn

_DECAY = 2.5  # in exponents, between the beginning of an ExponentialBasis and the cutoff
_SMALLEST = 1e-6  # Angstrom: below, sin(k r) / r is taken to be constant; it is k up to rounding


class GaussianBasis(nn.Module):
    """``exp(-(r - mu_k)^2 / (2 w^2))``, centres mu_k evenly from `start` to the cutoff, w their spacing.

    Schuett et al., J. Chem. Phys. 148, 241722 (2018). The centres are fixed, and part of the state.

    Parameters
    ----------
    n_basis : int
        B, at least 2.
    cutoff, start : float
        In Angstrom.
    """

    centers: Tensor

    def __init__(self, n_basis: int, cutoff: float, start: float = 0.0):
        super().__init__()
        if n_basis < 2:
            raise ValueError(f"expected two Gaussians or more, whose spacing is their width, got {n_basis}")
        self.register_buffer("centers", torch.linspace(start, cutoff, n_basis))

    def forward(self, r: Tensor) -> Tensor:
        width = self.centers[1] - self.centers[0]
        x = (r[:, None] - self.centers) / width
        return torch.exp(-0.5 * x * x)


class BesselBasis(nn.Module):
    """``sin(k_n r) / r`` with k_n = n pi / cutoff, n = 1 .. B: zero at the cutoff, not normalised.

    Gasteiger et al., DimeNet, ICLR 2020, without its factor ``sqrt(2 / cutoff)``, as in PaiNN. The frequencies k_n are
    fixed, and part of the state.

    Parameters
    ----------
    n_basis : int
        B.
    cutoff, start : float
        In Angstrom; `start` is 0.
    """

    frequencies: Tensor

    def __init__(self, n_basis: int, cutoff: float, start: float = 0.0):
        super().__init__()
        if start:
            raise ValueError(f"expected Bessel functions to begin at 0, got a start of {start}")
        if n_basis < 1:
            raise ValueError(f"expected one Bessel function or more, got {n_basis}")
        self.register_buffer("frequencies", torch.arange(1, n_basis + 1) * (math.pi / cutoff))

    def forward(self, r: Tensor) -> Tensor:
        r = r.clamp(min=_SMALLEST)[:, None]
        return torch.sin(r * self.frequencies) / r


class ExponentialBasis(nn.Module):
    """``exp(-b (exp(-a (r - start)) - mu_k)^2)``, a = 2.5 / (cutoff - start): narrow where potentials are steep.

    Unke and Meuwly, PhysNet, J. Chem. Theory Comput. 15, 3678 (2019), equation 7, where a is 1 / Angstrom and start 0.
    The centres mu_k are evenly from exp(-2.5) to 1, b is ``(B / (2 (1 - exp(-2.5))))^2``; they are fixed, and part of
    the state. With PhysNet's a and a cutoff of 5, two of 40 functions are left for distances beyond 3: too few to tell
    a cluster from a liquid, whose energies of Lennard-Jones atoms were off by 0.005 epsilon.

    Parameters
    ----------
    n_basis : int
        B, at least 2.
    cutoff, start : float
        In Angstrom; no two atoms should come much nearer than `start`.
    """

    centers: Tensor

    def __init__(self, n_basis: int, cutoff: float, start: float = 0.0):
        super().__init__()
        if n_basis < 2:
            raise ValueError(f"expected two functions or more in a basis from one end to the other, got {n_basis}")
        if not start < cutoff < math.inf:  # without an end all functions are constants
            raise ValueError(f"expected a finite cutoff beyond the start of {start}, got {cutoff}")
        least = math.exp(-_DECAY)
        self.register_buffer("centers", torch.linspace(least, 1.0, n_basis))
        self.start, self.rate = start, _DECAY / (cutoff - start)
        self.sharpness = (0.5 * n_basis / (1 - least)) ** 2

    def forward(self, r: Tensor) -> Tensor:
        falling = torch.exp((self.start - r[:, None]) * self.rate)
        return torch.exp((falling - self.centers).square() * -self.sharpness)


BASES = {"bessel": BesselBasis, "exponential": ExponentialBasis, "gaussian": GaussianBasis}
