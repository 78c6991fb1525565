"""Radial basis functions: a distance as a vector of features."""

import torch
from torch import Tensor


def gaussian_basis(distances: Tensor, centers: Tensor, width: float) -> Tensor:
    """Gaussians ``exp(-(r - centers)^2 / (2 width^2))``.

    Parameters
    ----------
    distances : (E,)
    centers : (K,)
    width : float

    Returns
    -------
    (E, K)
    """
    return torch.exp((distances.unsqueeze(-1) - centers).square() * (-0.5 / width**2))
