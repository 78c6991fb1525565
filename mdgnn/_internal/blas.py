"""Matrix products whose bits do not depend on the number of threads.

With fewer than 128 rows on the CPU, BLAS gives products of float32 and float64 other bits for other numbers of threads,
unless the number of rows is a multiple of 16. What is multiplied gets so many rows here, and nowhere else: atoms in
`mdgnn.Graph.padded`, once for all products of a network, and edges in `with_suitable_rows`. On processors of AMD with
AVX2 (MKL of torch 2.13, three threads or more) so it does unless the number of columns is a multiple of 16, or
of 4 up to 16; `linear` and `add_linear` take care of their own and of those of their derivatives.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def suitable_rows(n: int, device: torch.device) -> int:
    """The smallest number of rows, n or more, that suits BLAS."""
    return n + -n % 16 if n < 128 and device.type == "cpu" else n


def with_suitable_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``function(x)`` (n, ...) of rows (n, C) that it treats alike, computed with as many as suit BLAS."""
    extra = suitable_rows(len(x), x.device) - len(x)
    return function(F.pad(x, (0, 0, 0, extra)))[: len(x)] if extra else function(x)


def _suitable_columns(n: int) -> int:
    return n + -n % 16 if n > 16 else n + -n % 4 if n > 1 else n


def _missing_columns(x: Tensor, weight: Tensor) -> tuple[int, int]:
    """How many the input and the output lack; none of what stands for a tensor, such as in the engine's capture."""
    n_out, n_in = weight.shape
    into, out = _suitable_columns(n_in) - n_in, _suitable_columns(n_out) - n_out
    if not (into or out) or type(x) is not Tensor or not x.is_cpu or x.dtype not in (torch.float32, torch.float64):
        return 0, 0
    return into, out


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear` with columns that suit BLAS: (.., C) by (H, C), (H,) -> (.., H)."""
    into, out = _missing_columns(x, weight)
    if not (into or out):
        return F.linear(x, weight, bias)
    if into:
        x = F.pad(x, (0, into))
    if bias is not None:
        bias = F.pad(bias, (0, out))
    return F.linear(x, F.pad(weight, (0, into, 0, out)), bias)[..., : len(weight)]


def add_linear(start: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """start + x weight^T: (N, H), (N, C) by (H, C) -> (N, H)."""
    return start + linear(x, weight) if any(_missing_columns(x, weight)) else torch.addmm(start, x, weight.t())


class Linear(torch.nn.Linear):
    """`torch.nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)
