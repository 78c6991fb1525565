"""What atoms do each for themselves, a few thousand at a time."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

ATOMS = 8192  # of a chunk, at most; half as many at least, since BLAS gives products of few rows bits that depend on
# the number of threads


def by_chunks(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """``function(*tensors)``, all of whose arguments and results have a row for each atom.

    Of more than `ATOMS` rows nothing is kept for the derivatives but arguments and results: what lies between is
    computed again, for some rows at a time. That bounds the memory of energies and forces of large systems, at a small
    cost: between are the products of atoms, which weigh little beside the messages of edges.
    """
    traced = not isinstance(tensors[0], Tensor)  # by the engine
    if traced or len(tensors[0]) <= ATOMS or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return function(*tensors)
    n_chunks = -(-len(tensors[0]) // ATOMS)
    parts = [
        checkpoint(function, *rows, use_reentrant=False, preserve_rng_state=False)
        for rows in zip(*(t.tensor_split(n_chunks) for t in tensors), strict=True)
    ]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))
