"""Checks that several operations share, where what is wrong becomes one sentence; and how kernels see tensors."""

import torch
from torch import Tensor

from mdgnn.ops.csr import Rows


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


def check_edges(rows: Rows, columns: Rows) -> None:
    """Raise ValueError unless `rows` (with senders) and `columns` (with edges) can be two orders of the same edges."""
    n_edges = rows.index_size
    if n_edges < 0 or columns.index_size != n_edges or columns.n_rows != rows.n_rows or rows.edge is not None:
        raise ValueError("expected rows and columns with an index of the same edges, in the order of the receivers")
    if rows.row_ptr.device.type == "cpu" and (rows.n_values > rows.n_rows or columns.n_values > n_edges):
        raise ValueError(f"expected senders below {rows.n_rows} and edges below {n_edges}")


def check_both_orders(rows: Rows, columns: Rows) -> None:
    """Raise ValueError unless `rows` (senders) and `columns` (receivers, edges) can be two orders of the same edges."""
    n_edges = rows.index_size
    if n_edges < 0 or columns.index_size != n_edges or columns.edge is None or rows.edge is not None:
        raise ValueError("expected rows with senders, and columns with receivers and edges, of the same edges")
    if columns.n_rows != rows.n_rows:
        raise ValueError(f"expected as many columns as rows, {rows.n_rows}, got {columns.n_rows}")
    if rows.row_ptr.device.type == "cpu" and max(rows.n_values, columns.n_values) > rows.n_rows:
        raise ValueError(f"expected senders and receivers below {rows.n_rows}")
