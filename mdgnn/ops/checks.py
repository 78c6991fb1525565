"""Checks that several operations share, where what is wrong becomes one sentence; and how kernels see tensors."""

import torch
from torch import Tensor


def check_arrays(
    dtype: torch.dtype, device: torch.device, *expected: tuple[str, Tensor | None, tuple[int, ...]]
) -> None:
    """Raise ValueError unless each (name, array, shape) has that shape, and the dtype (float32 or float64) and device.

    None in place of an array is an absent option.
    """
    for name, array, shape in expected:
        if array is not None and (array.shape != shape or array.dtype != dtype or array.device != device):
            raise ValueError(
                f"expected {name} of shape {shape} {dtype} on {device}, "
                f"got {tuple(array.shape)} {array.dtype} on {array.device}"
            )
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected {expected[0][0]} in float32 or float64, got {dtype}")
