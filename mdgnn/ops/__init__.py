"""Compiled operations as differentiable torch functions, one file each."""

from mdgnn.ops.csr import Rows, rows_by
from mdgnn.ops.neighbors import neighbors
from mdgnn.ops.scatter_add import scatter_add

__all__ = ["Rows", "neighbors", "rows_by", "scatter_add"]
