"""Matrix products whose bits do not depend on the number of threads.

With fewer than 128 rows on the CPU, BLAS gives products of float32 and float64 other bits for other numbers of threads,
unless the number of rows is a multiple of 16. What is multiplied gets so many rows here, and nowhere else: atoms in
`mdgnn.Graph.padded`, once for all products of a network, and edges in `with_suitable_rows`.
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
