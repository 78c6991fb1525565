"""The kernels behind `neighbors`, as a torch operator without derivative.

It returns row_ptr, senders, shifts, receivers, vectors, distances, reverse; what `letters` does not ask for is empty.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdgnn import _C
from mdgnn.ops.kernels import kernels_for
from mdgnn.threads import get_num_threads

ORDER = "pjSiDdr"  # of what the operator returns, by letter
_NO_LIMIT = 2**63 - 1


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
    return (_on_cpu if positions.device.type == "cpu" else _on_gpu)(*arguments)


def check_structures(positions: Tensor, cell: Tensor, pbc: Tensor, first_atom: Tensor | None) -> None:
    """Raise a ValueError for shapes, dtypes or devices that do not fit."""
    if positions.ndim != 2 or positions.shape[1] != 3 or positions.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"expected positions of shape (N, 3) in float32 or float64, got {_describe(positions)}")
    n = 0 if first_atom is None else first_atom.shape[0] - 1
    batch = () if first_atom is None else (n,)
    for name, tensor, shape, dtype in (
        ("cell", cell, (*batch, 3, 3), positions.dtype),
        ("pbc", pbc, (*batch, 3), torch.bool),
        ("first_atom", first_atom, (n + 1,), torch.int64),
    ):
        if tensor is None:
            continue
        if tensor.shape != shape or tensor.dtype != dtype or tensor.device != positions.device:
            raise ValueError(
                f"expected {name} of shape {tuple(shape)} {dtype} on {positions.device}, got {_describe(tensor)}"
            )


def _describe(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype} on {tensor.device}"


def require_rising(first_atom: Tensor | None, n_atoms: int) -> None:
    """Raise a ValueError if `first_atom` cannot be one; waits for the device."""
    if first_atom is None:
        return
    ends = (first_atom[0] == 0) & (first_atom[-1] == n_atoms)
    if not bool(ends & (first_atom.diff() >= 0).all()):
        raise ValueError(f"expected the first atoms of the structures to rise from 0 to {n_atoms}")


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
    return [found[q] if q in found else empty_array(q, positions, narrow) for q in ORDER]


def _on_gpu(
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
    """Count, then allocate what the count says: the host waits once, for a batch twice."""
    require_rising(first_atom, positions.shape[0])
    gpu = GpuSearch(positions, cell, pbc, first_atom, cutoff, self_interaction, half)
    row_ptr = positions.new_empty(positions.shape[0] + 1, dtype=torch.int64)
    status = row_ptr.new_empty(3)
    gpu.count(row_ptr, status, _NO_LIMIT)
    n_edges, code, where = status.tolist()
    if code:
        raise ValueError(gpu.error(code, where))
    if narrow and n_edges >= 2**31:
        raise ValueError(f"expected less than 2^31 edges for int32 indices, got {n_edges}")
    out = [empty_array(q, positions, narrow, n_edges if q in letters else 0) for q in ORDER]
    out[0] = row_ptr
    gpu.fill(row_ptr, dict(zip(ORDER, out, strict=True)), letters, narrow)
    return out


class GpuSearch:
    """One search on a GPU, in two asynchronous steps on torch's current stream."""

    def __init__(
        self,
        positions: Tensor,
        cell: Tensor,
        pbc: Tensor,
        first_atom: Tensor | None,
        cutoff: float,
        self_interaction: bool,
        half: bool,
        workspace: Tensor | None = None,
    ):
        if first_atom is None:
            first_atom = torch.arange(2, device=positions.device) * positions.shape[0]
        self._kernels, self._where = kernels_for(positions)
        self._kept = positions, cell, pbc, first_atom = [t.contiguous() for t in (positions, cell, pbc, first_atom)]
        n_atoms, n_structures = positions.shape[0], first_atom.shape[0] - 1
        if workspace is None:
            workspace = workspace_for(positions, n_structures)
        self._workspace = workspace
        self._structures = (
            positions.element_size(), positions.data_ptr(), n_atoms,
            first_atom.data_ptr(), n_structures, cell.data_ptr(), pbc.data_ptr(),
        )  # fmt: skip
        self._options = (cutoff, self_interaction, half)

    def count(self, row_ptr: Tensor, status: Tensor, capacity: int) -> None:
        """Fill `row_ptr` and `status`: the number of edges, a code that is 0 without an error, where the error is."""
        self._kernels.neighbors_count(
            self._structures, self._options, self._workspace.data_ptr(),
            capacity, row_ptr.data_ptr(), status.data_ptr(), self._where,
        )  # fmt: skip

    def fill(self, row_ptr: Tensor, arrays: dict[str, Tensor], letters: str, narrow: bool) -> None:
        """Write the arrays that `letters` names."""
        addresses = (arrays[q].data_ptr() if q in letters else 0 for q in "ijSDdr")
        edges = (4 if narrow else 8, 4, *addresses)
        self._kernels.neighbors_fill(
            self._structures, self._options, self._workspace.data_ptr(), row_ptr.data_ptr(), edges, self._where
        )

    def error(self, code: int, where: int) -> str:
        return self._kernels.neighbor_error(code, where, self._options[0])  # type: ignore[no-any-return]


def workspace_for(positions: Tensor, n_structures: int) -> Tensor:
    """Memory that a search on a GPU works in."""
    n_bytes = kernels_for(positions)[0].neighbor_workspace(positions.element_size(), positions.shape[0], n_structures)
    return positions.new_empty(n_bytes, dtype=torch.uint8)


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().numpy())


def empty_array(quantity: str, positions: Tensor, narrow: bool, n_edges: int | torch.SymInt = 0) -> Tensor:
    """Not set, for a quantity by its letter."""
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
_library.impl("neighbors", _on_gpu, "CUDA")


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
    out = [empty_array(q, positions, narrow, n_edges if q in letters else 0) for q in ORDER]
    out[0] = positions.new_empty(positions.shape[0] + 1, dtype=torch.int64)
    return out
