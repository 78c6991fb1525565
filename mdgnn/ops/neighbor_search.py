"""The kernels behind `neighbors`, as a torch operator without derivative.

It returns row_ptr, senders, shifts, receivers, vectors, distances, reverse; what `letters` does not ask for is empty.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdgnn import _C
from mdgnn.threads import get_num_threads

ORDER = "pjSiDdr"  # of what the operator returns, by letter


def search(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    first_atom: Tensor | None,
    letters: str,
    cutoff: float,
    self_interaction: bool,
    half: bool,
    narrow: bool,
) -> list[Tensor]:
    """`narrow` makes senders, receivers and reverse int32."""
    arguments = (positions, cell, pbc, first_atom, letters, cutoff, self_interaction, half, narrow)
    if torch.compiler.is_compiling():
        return torch.ops.mdgnn.neighbors(*arguments)  # type: ignore[no-any-return]
    return _on_cpu(*arguments)


def _on_cpu(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    first_atom: Tensor | None,
    letters: str,
    cutoff: float,
    self_interaction: bool,
    half: bool,
    narrow: bool,
) -> list[Tensor]:
    first = np.zeros(0, dtype=np.int64) if first_atom is None else _numpy(first_atom)
    options = (cutoff, self_interaction, half, get_num_threads())
    widths = (4 if narrow else 8, 4)
    asked = "".join(q for q in ORDER if q in letters)
    arrays = _C.neighbors(asked, _numpy(positions), _numpy(cell), _numpy(pbc), first, options, widths)
    found = {q: torch.from_numpy(array) for q, array in zip(asked, arrays, strict=True)}
    return [found[q] if q in found else _empty(q, positions, narrow) for q in ORDER]


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())


def _empty(quantity: str, positions: Tensor, narrow: bool, n_edges: int | torch.SymInt = 0) -> Tensor:
    if quantity in "Dd":
        return positions.new_empty((n_edges, 3) if quantity == "D" else (n_edges,))
    integer = torch.int32 if narrow or quantity == "S" else torch.int64
    return positions.new_empty((n_edges, 3) if quantity == "S" else (n_edges,), dtype=integer)


_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define(
    "neighbors(Tensor positions, Tensor cell, Tensor pbc, Tensor? first_atom, str letters, float cutoff, "
    "bool self_interaction, bool half, bool narrow) -> Tensor[]"
)
_library.impl("neighbors", _on_cpu, "CPU")


@torch.library.register_fake("mdgnn::neighbors")
def _(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    first_atom: Tensor | None,
    letters: str,
    cutoff: float,
    self_interaction: bool,
    half: bool,
    narrow: bool,
) -> list[Tensor]:
    n_edges = torch.library.get_ctx().new_dynamic_size()
    out = [_empty(q, positions, narrow, n_edges if q in letters else 0) for q in ORDER]
    out[0] = positions.new_empty(positions.shape[0] + 1, dtype=torch.int64)
    return out
