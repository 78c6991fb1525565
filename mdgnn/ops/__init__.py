"""Compiled operations as differentiable torch functions, one file each."""

import mdgnn.ops.scatter_add_operators  # noqa: F401  (registers them)
from mdgnn.ops.cfconv import cfconv
from mdgnn.ops.concat_message import add_ends, concat_message
from mdgnn.ops.concat_message_table import concat_message_table
from mdgnn.ops.csr import EdgeRows, Rows, rows_by
from mdgnn.ops.edge_basis import edge_basis
from mdgnn.ops.edges_within import edges_within
from mdgnn.ops.force_virial import force_virial
from mdgnn.ops.neighbor_buffers import NeighborBuffers
from mdgnn.ops.neighbors import Neighbors, neighbors
from mdgnn.ops.painn_message import painn_message
from mdgnn.ops.polar import polar
from mdgnn.ops.radial_filter import Filter, RadialTable, TabulatedFilter, radial_filter, tabulate
from mdgnn.ops.scatter_add import scatter_add
from mdgnn.ops.silu import silu

__all__ = [
    "EdgeRows",
    "Filter",
    "NeighborBuffers",
    "Neighbors",
    "RadialTable",
    "Rows",
    "TabulatedFilter",
    "add_ends",
    "cfconv",
    "concat_message",
    "concat_message_table",
    "edge_basis",
    "edges_within",
    "force_virial",
    "neighbors",
    "painn_message",
    "polar",
    "radial_filter",
    "rows_by",
    "scatter_add",
    "silu",
    "tabulate",
]
