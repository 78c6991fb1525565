"""NeighborBuffers: a neighbour list in memory of fixed size, which a CUDA graph can make anew."""

from collections.abc import Collection

import torch
from torch import Tensor

from mdgnn.ops.neighbor_search import (
    LETTERS,
    ORDER,
    GpuSearch,
    Query,
    check_structures,
    empty_array,
    names_of,
    require_rising,
    search,
    workspace_for,
)


class NeighborBuffers:
    """Arrays for up to `capacity` edges of `n_atoms` atoms, which `update` fills without waiting for the device.

    Edges that do not fit are left out from the end, so that rows never point beyond the arrays; `n_edges` says how many
    there would have been. After the last edge, arrays hold what they held before, at first zeros.

    Parameters
    ----------
    n_atoms, capacity : int
    n_structures : int
    want : names out of "receivers", "vectors", "distances", "reverse"
    index_dtype : torch.int64 or torch.int32
        Of senders, receivers and reverse.
    dtype, device
        Of the positions.

    Attributes
    ----------
    row_ptr (N + 1,) int64; senders (capacity,); shifts (capacity, 3) int32; and what is wanted. reverse is -1 where the
    partner was left out. No derivatives.
    status : (3,) int64
        n_edges, a code that is 0 without an error, and the atom or structure it holds for.
    """

    def __init__(
        self,
        n_atoms: int,
        capacity: int,
        *,
        n_structures: int = 1,
        want: Collection[str] = (),
        index_dtype: torch.dtype = torch.int64,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cuda",
    ):
        names = names_of(want, LETTERS)
        if index_dtype not in (torch.int32, torch.int64) or dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected int32 or int64 and float32 or float64, got {index_dtype} and {dtype}")
        self.capacity, self._narrow = capacity, index_dtype == torch.int32
        if not 0 <= capacity < (2**31 if self._narrow else 2**63):
            raise ValueError(f"expected a capacity of at least 0 that {index_dtype} holds, got {capacity}")
        self._like = torch.empty(n_atoms, 3, dtype=dtype, device=device)
        self._first_atom = torch.tensor([0, n_atoms], device=device)
        self._letters = "jS" + "".join(LETTERS[name] for name in sorted(names))
        self.row_ptr = torch.zeros(n_atoms + 1, dtype=torch.int64, device=device)
        self.status = torch.zeros(3, dtype=torch.int64, device=device)
        self._arrays = {q: empty_array(q, self._like, self._narrow, capacity).zero_() for q in self._letters}
        self.senders, self.shifts = self._arrays["j"], self._arrays["S"]
        self.receivers, self.vectors, self.distances, self.reverse = map(self._arrays.get, "iDdr")
        self._n_structures = n_structures
        self._workspace = None if self._like.device.type == "cpu" else workspace_for(self._like, n_structures)

    @property
    def n_edges(self) -> Tensor:
        """() int64: the number of edges within the cutoff, whether they fit or not."""
        return self.status[0]

    @property
    def overflow(self) -> Tensor:
        """() bool: the edges did not fit, or there are none because of an error."""
        return (self.status[0] > self.capacity) | (self.status[1] != 0)

    def update(
        self,
        positions: Tensor,
        cell: Tensor,
        pbc: Tensor,
        cutoff: float,
        *,
        first_atom: Tensor | None = None,
        self_interaction: bool = False,
        half: bool = False,
    ) -> None:
        """Search; the arguments are those of `neighbors`. Errors on a GPU wait for `check`.

        Only `first_atom` is looked at on the host, unless a CUDA graph is being captured.
        """
        check_structures(positions, cell, pbc, first_atom)
        n_structures = 1 if first_atom is None else first_atom.shape[0] - 1
        given = positions.shape, positions.dtype, positions.device, n_structures
        expected = self._like.shape, self._like.dtype, self._like.device, self._n_structures
        if given != expected:
            words = [f"{tuple(x[0])} {x[1]} on {x[2]} of {x[3]} structures" for x in (expected, given)]
            raise ValueError(f"expected positions {words[0]}, got {words[1]}")
        if half and self.reverse is not None:
            raise ValueError("a half list has no reverse edges")
        query = Query(
            positions.detach(), cell.detach(), pbc, first_atom,
            f"p{self._letters}", cutoff, self_interaction, half, self._narrow,
        )  # fmt: skip
        self.status.zero_()  # nothing of the last search stands if this one fails
        self.row_ptr.zero_()
        if self._workspace is None:
            self._copy(search(query))
            return
        if first_atom is None:
            query = query._replace(first_atom=self._first_atom)
        elif not torch.cuda.is_current_stream_capturing():
            require_rising(first_atom, self._like.shape[0])
        gpu = GpuSearch(query, self._workspace)
        gpu.count(self.row_ptr, self.status, self.capacity)
        gpu.fill(self.row_ptr, self._arrays)
        self._error = gpu.error

    def _copy(self, arrays: list[Tensor]) -> None:
        """What the CPU found."""
        self.status[0] = arrays[0][-1]
        self.row_ptr.copy_(arrays[0].clamp(max=self.capacity))
        for q, array in zip(ORDER, arrays, strict=True):
            if q in self._letters:
                values = array[: self.capacity]
                self._arrays[q][: len(values)] = torch.where(values < self.capacity, values, -1) if q == "r" else values

    def check(self) -> None:
        """Raise a ValueError if the last search met an error or the edges did not fit. Waits for the device."""
        n_edges, code, where = self.status.tolist()
        if code:
            raise ValueError(self._error(code, where))
        if n_edges > self.capacity:
            raise ValueError(f"{n_edges} edges do not fit into a capacity of {self.capacity}")
