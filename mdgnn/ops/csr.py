"""Compressed rows (CSR): edges grouped by one of their ends."""

from typing import Any

import torch
from torch import Tensor

from mdgnn import _C
from mdgnn._internal.cached import cached_property


class Rows:
    """One side of a graph as compressed rows: entry k of a row uses ``values[index[k]]`` and ``weight[edge[k]]``.

    Parameters
    ----------
    row_ptr : (R + 1,) int64
        The entries of row r are ``row_ptr[r] .. row_ptr[r + 1]``.
    index : (E,) int64, optional
        Without it, entry k uses value k, so that every value belongs to exactly one entry.
    edge : (E,) int64, optional
        A permutation: the place of entry k's weight. Without it, weights stand in the order of the rows.

    Raises
    ------
    ValueError
        When the arrays are first used, if a shape, dtype or device does not fit; on the CPU also if a number in them is
        out of range. A GPU would have to be stopped to look: there, kernels read and write beyond arrays.
    """

    def __init__(self, row_ptr: Tensor, index: Tensor | None = None, edge: Tensor | None = None):
        self.row_ptr = row_ptr.contiguous()
        self.index = None if index is None else index.contiguous()
        self.edge = None if edge is None else edge.contiguous()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies, which may go to another process, have arrays of their own: not the addresses that are cached here."""
        return type(self), (self.row_ptr, self.index, self.edge)

    @property
    def n_rows(self) -> int:
        return self.row_ptr.shape[0] - 1

    @property
    def index_size(self) -> int:
        """The number of entries with an index; -1 without one."""
        return -1 if self.index is None else self.index.shape[0]

    @cached_property
    def addresses(self) -> tuple[int, int, int, int, int, int]:
        """What a kernel takes: addresses of the checked, contiguous arrays, the numbers of rows, of entries, of values.

        The last two are -1 where a GPU would be stopped to look.
        """
        for name in ("row_ptr", "index", "edge"):
            array = getattr(self, name)
            if array is None:
                continue
            if array.ndim != 1 or array.dtype != torch.int64 or array.device != self.row_ptr.device:
                raise ValueError(
                    f"expected rows.{name} as (n,) int64 on {self.row_ptr.device}, "
                    f"got {tuple(array.shape)} {array.dtype} on {array.device}"
                )
        if self.row_ptr.shape[0] == 0:
            raise ValueError("expected rows.row_ptr with one entry more than rows, got none")
        if self.edge is not None and (self.index is None or self.edge.shape != self.index.shape):
            raise ValueError("expected rows.edge together with a rows.index of the same length")
        addresses = self.row_ptr.data_ptr(), address(self.index), address(self.edge), self.n_rows
        n_entries, n_values = self.index_size, -1
        if self.row_ptr.device.type == "cpu":
            n_entries = int(self.row_ptr[-1]) if self.index is None else n_entries
            n_values = _C.count_values(addresses, n_entries)
        return *addresses, n_entries, n_values

    @cached_property
    def checked(self) -> tuple[torch.device, int]:
        """The device and the size R of arrays that hold what they should."""
        _ = self.addresses
        return self.row_ptr.device, self.n_rows

    @property
    def n_values(self) -> int:
        """The number of values that the entries need; known on the CPU alone, else -1."""
        return self.addresses[5]

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """For checks: `n_rows`, `index_size`, and `n_values`, 0 where it is not known."""
        return self.n_rows, self.index_size, self.n_values if self.row_ptr.is_cpu else 0


class EdgeRows:
    """The edges of N atoms in both orders.

    Parameters
    ----------
    by_receiver : Rows
        Row i: the edges that atom i receives; its index holds their senders. Edge k is its entry k.
    by_sender : Rows, optional
        Row j: the edges that atom j sends; its index holds their receivers, `edge` their numbers, each once; ascending
        in each row for second derivatives of `concat_message_table`. Worked out on first use if not given.

    Raises
    ------
    ValueError
        When an op first uses them, if they cannot be two orders of the same edges.
    """

    def __init__(self, by_receiver: Rows, by_sender: Rows | None = None):
        self.by_receiver = by_receiver
        if by_sender is not None:
            self.by_sender = by_sender

    def __reduce__(self) -> tuple[Any, ...]:
        """As of `Rows`; what has been sorted goes along."""
        return type(self), (self.by_receiver, self.__dict__.get("by_sender"))

    @cached_property
    def by_sender(self) -> Rows:
        return transpose(self.by_receiver, self.by_receiver.n_rows)

    @property
    def n_atoms(self) -> int:
        return self.by_receiver.n_rows

    @property
    def n_edges(self) -> int:
        """The number of edges; -1 without senders, which an op refuses."""
        return self.by_receiver.index_size

    def check_senders(self) -> None:
        """Raise ValueError without senders, or with edges in another order than that of the rows."""
        if self.by_receiver.index is None or self.by_receiver.edge is not None:
            raise ValueError("expected edges.by_receiver with senders, and with edges in the order of its rows")

    @cached_property
    def checked(self) -> tuple[torch.device, int, int]:
        """The device and the sizes N and E of arrays that hold what they should."""
        _ = self.addresses
        return self.by_receiver.row_ptr.device, self.n_atoms, self.n_edges

    @cached_property
    def numbers_by_sender(self) -> Rows:
        """Row j gathers from arrays with a row per edge: the edges that atom j sends."""
        return Rows(self.by_sender.row_ptr, self.by_sender.edge)

    @cached_property
    def numbers_by_receiver(self) -> Rows:
        """Row i gathers from arrays with a row per edge: the edges that atom i receives, by an index.

        `Graph.edges_by_receiver` are the same rows by their row pointers alone.
        """
        return Rows(self.by_receiver.row_ptr, torch.arange(self.n_edges, device=self.by_receiver.row_ptr.device))

    @cached_property
    def to_senders(self) -> Rows:
        """Row e gathers from arrays with a row per atom: the sender of edge e."""
        rows = self.by_receiver
        if rows.index is None:
            raise ValueError("expected edges.by_receiver with senders")
        return Rows(torch.arange(self.n_edges + 1, device=rows.row_ptr.device), rows.index)

    @cached_property
    def to_receivers(self) -> Rows:
        """Row e gathers from arrays with a row per atom: the receiver of edge e."""
        rows = self.by_receiver
        return Rows(torch.arange(self.n_edges + 1, device=rows.row_ptr.device), _receivers(rows))

    @cached_property
    def addresses(self) -> tuple[tuple[int, int, int, int, int, int], tuple[int, int, int, int, int, int]]:
        """Addresses of both orders, checked."""
        self.check_senders()
        rows = self.by_receiver
        for_receivers, on_cpu = rows.addresses, rows.row_ptr.device.type == "cpu"  # a GPU is not stopped to look
        if on_cpu and rows.n_values > rows.n_rows:
            raise ValueError(f"expected senders below {rows.n_rows}, the number of atoms, got {rows.n_values - 1}")
        columns = self.by_sender
        if columns.edge is None or columns.index_size != rows.index_size or columns.n_rows != rows.n_rows:
            raise ValueError(
                f"expected edges.by_sender with the receivers and the numbers of the same {rows.index_size} edges of "
                f"{rows.n_rows} atoms"
            )
        for_senders = columns.addresses
        if on_cpu and columns.n_values > rows.n_rows:
            raise ValueError(f"expected receivers below {rows.n_rows}, the number of atoms, got {columns.n_values - 1}")
        return for_receivers, for_senders


def address(tensor: Tensor | None) -> int:
    """Where a tensor's data is; 0 for None alone: an empty tensor, whose address torch gives as 0, is not absent."""
    return 0 if tensor is None else tensor.data_ptr() or 1


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
    row_ptr, order = _sorted(receivers, n_rows)
    return Rows(row_ptr, order if senders is None else senders[order], order)


def transpose(rows: Rows, n_values: int) -> Rows:
    """The entries of `rows` grouped by the value that they gather; its index holds rows."""
    receivers = _receivers(rows)
    if rows.index is None:
        return Rows(torch.arange(n_values + 1, device=rows.row_ptr.device), receivers)
    col_ptr, order = _sorted(rows.index, n_values)
    return Rows(col_ptr, receivers[order], order if rows.edge is None else rows.edge[order])


def _receivers(rows: Rows) -> Tensor:
    """The row of each entry."""
    rows_of = torch.arange(rows.n_rows, device=rows.row_ptr.device)
    n_entries = None if rows.index is None else rows.index.shape[0]
    return rows_of.repeat_interleave(rows.row_ptr.diff(), output_size=n_entries)


def _sorted(index: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """Row pointers and order; torch.compile sees the operator, eager code goes past the dispatcher."""
    sort = torch.ops.mdgnn.counting_sort if torch.compiler.is_compiling() else _counting_sort
    return sort(index, n_rows)


def _counting_sort(index: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    if index.ndim != 1 or index.dtype != torch.int64:
        raise ValueError(f"expected an index as (E,) int64, got {tuple(index.shape)} {index.dtype}")
    index = index.contiguous()
    row_ptr = torch.zeros(n_rows + 1, dtype=torch.int64, device=index.device)
    order = torch.empty_like(index)
    if index.device.type == "cpu":
        _C.counting_sort(index.data_ptr(), index.numel(), n_rows, row_ptr.data_ptr(), order.data_ptr())
        return row_ptr, order
    if index.numel() and not (int(index.min()) >= 0 and int(index.max()) < n_rows):
        raise IndexError(f"expected 0 <= index < {n_rows}, got {int(index.min())} to {int(index.max())}")
    row_ptr[1:] = torch.bincount(index, minlength=n_rows).cumsum(0)
    return row_ptr, torch.sort(index, stable=True).indices


_library = torch.library.Library("mdgnn", "FRAGMENT")
_library.define("counting_sort(Tensor index, SymInt n_rows) -> (Tensor, Tensor)")
_library.impl("counting_sort", _counting_sort, "CPU")
_library.impl("counting_sort", _counting_sort, "CUDA")


@torch.library.register_fake("mdgnn::counting_sort")
def _(index: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    return index.new_empty(n_rows + 1), torch.empty_like(index)
