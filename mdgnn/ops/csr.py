"""Compressed rows (CSR): edges grouped by one of their ends."""

from typing import NamedTuple

import torch
from torch import Tensor

from mdgnn import _C


class Rows(NamedTuple):
    """One side of a graph as compressed rows (CSR): entry k of a row uses ``values[index[k]]`` and ``weight[edge[k]]``.

    Attributes
    ----------
    row_ptr : (R + 1,) int64
    index : (E,) int64 or None
        None: entry k uses value k, so that every value belongs to exactly one entry.
    edge : (E,) int64 or None
        A permutation: the place of entry k's weight. None: weights stand in the order of the rows.
    """

    row_ptr: Tensor
    index: Tensor | None = None
    edge: Tensor | None = None


def rows_by(receivers: Tensor, n_rows: int, senders: Tensor | None = None) -> Rows:
    """Group edges that come in any order by a stable counting sort.

    Parameters
    ----------
    receivers : (E,) int64
        The row of each edge, in ``[0, n_rows)``.
    senders : (E,) int64, optional
        The value that each edge gathers; without it, edge e gathers value e.

    Raises
    ------
    IndexError
        If a receiver is out of range.
    """
    row_ptr, order = torch.ops.mdgnn.counting_sort(receivers, n_rows)
    return Rows(row_ptr, order if senders is None else senders[order], order)


def _counting_sort(index: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    index = index.contiguous()
    row_ptr = torch.zeros(n_rows + 1, dtype=torch.int64, device=index.device)
    order = torch.empty_like(index)
    if index.device.type == "cpu":
        _C.counting_sort(index.data_ptr(), index.numel(), n_rows, row_ptr.data_ptr(), order.data_ptr())
        return row_ptr, order
    if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < n_rows):
        raise IndexError(f"expected 0 <= index < {n_rows}, got {int(index.min())} to {int(index.max())}")
    torch.cumsum(torch.bincount(index, minlength=n_rows), 0, out=row_ptr[1:])
    return row_ptr, torch.sort(index, stable=True).indices


_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define("counting_sort(Tensor index, SymInt n_rows) -> (Tensor, Tensor)")
_library.impl("counting_sort", _counting_sort, "CPU")
_library.impl("counting_sort", _counting_sort, "CUDA")


@torch.library.register_fake("mdgnn::counting_sort")
def _(index: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    return index.new_empty(n_rows + 1), torch.empty_like(index)
