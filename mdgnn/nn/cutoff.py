"""Smooth envelopes c(r): 1 at r = 0, 0 from the cutoff on."""

import math

import torch
from torch import Tensor


def cosine_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """``(1 + cos(pi r / cutoff)) / 2`` (Behler and Parrinello, Phys. Rev. Lett. 98, 146401, 2007).

    Value and slope vanish at the cutoff; the curvature jumps there.
    """
    inside = distances.clamp(max=cutoff)
    return 0.5 * (1 + torch.cos(inside * (math.pi / cutoff)))


def polynomial_cutoff(distances: Tensor, cutoff: float) -> Tensor:
    """``1 - 28 x^6 + 48 x^7 - 21 x^8`` with x = r / cutoff (Gasteiger et al., DimeNet, ICLR 2020, p = 6).

    Value, slope and curvature vanish at the cutoff.
    """
    x = (distances * (1 / cutoff)).clamp(max=1)
    x3 = x * x * x
    return 1 - x3 * x3 * (28 - 48 * x + 21 * x * x)


ENVELOPES = {"cosine": cosine_cutoff, "polynomial": polynomial_cutoff}
