"""Compiled operations as differentiable torch functions, one file each."""

from mdgnn.ops.cfconv import CFCONV, cfconv
from mdgnn.ops.concat_message import CONCAT_MESSAGE, add_ends, concat_message
from mdgnn.ops.concat_message_linear import CONCAT_MESSAGE_LINEAR, concat_message_linear
from mdgnn.ops.concat_message_table import CONCAT_MESSAGE_TABLE, concat_message_table
from mdgnn.ops.csr import EdgeRows, Rows, rows_by
from mdgnn.ops.edge_basis import EDGE_BASIS, edge_basis
from mdgnn.ops.edges_within import edges_within
from mdgnn.ops.force_virial import FORCE_VIRIAL, force_virial
from mdgnn.ops.neighbor_buffers import NeighborBuffers
from mdgnn.ops.neighbors import Neighbors, neighbors
from mdgnn.ops.operators import register
from mdgnn.ops.painn_message import PAINN_MESSAGE, painn_message
from mdgnn.ops.polar import POLAR, polar
from mdgnn.ops.radial_filter import Filter, RadialTable, TabulatedFilter, radial_filter, tabulate
from mdgnn.ops.scatter_add import SCATTER_ADD, scatter_add
from mdgnn.ops.silu import SILU, silu

OPS = (
    CFCONV,
    CONCAT_MESSAGE,
    CONCAT_MESSAGE_LINEAR,
    CONCAT_MESSAGE_TABLE,
    EDGE_BASIS,
    FORCE_VIRIAL,
    PAINN_MESSAGE,
    POLAR,
    SCATTER_ADD,
    SILU,
)
"""The declarations of all ops, which tests, benchmarks and documentation go through."""

for _op in OPS:
    register(_op)

__all__ = [
    "OPS",
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
    "concat_message_linear",
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
