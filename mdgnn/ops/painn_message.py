"""painn_message: PaiNN's message between atoms, with the filter interpolated from a table.

With w = f(r[k]) * x[j], split into three blocks (a, b, c) of F columns, summed over the edges k from j to receiver i:

    ds[i] = sum_k a,   dv[i] = sum_k (unit[k] outer b + v[j] * c)

Schuett, Unke and Gastegger, ICML 2021, equations 7 and 8.
"""

import torch
from torch import Tensor

from mdgnn.ops.checks import check_arrays, check_edges
from mdgnn.ops.csr import Rows
from mdgnn.ops.radial_filter import RadialTable, check_table, radial_filter
from mdgnn.ops.scatter_add import scatter_add


def direct_painn_message(
    x: Tensor, v: Tensor, filters: Tensor, unit: Tensor, rows: Rows, columns: Rows
) -> tuple[Tensor, Tensor]:
    """`painn_message` with a filter (E, 3 F) that is given at every edge."""
    n_edges, width = unit.shape[0], v.shape[2]
    by_edge = Rows(torch.arange(n_edges + 1, device=unit.device), rows.index)
    x_j = scatter_add(x, by_edge, columns=columns)
    v_j = scatter_add(v.flatten(1), by_edge, columns=columns).view(n_edges, 3, width)
    a, b, c = (filters * x_j).split([width] * 3, dim=1)
    message = unit[:, :, None] * b[:, None] + v_j * c[:, None]
    by_receiver = Rows(rows.row_ptr)
    return scatter_add(a, by_receiver), scatter_add(message.flatten(1), by_receiver).view(v.shape)


def reference(
    x: Tensor, v: Tensor, table: RadialTable, r: Tensor, unit: Tensor, rows: Rows, columns: Rows
) -> tuple[Tensor, Tensor]:
    """The specification, differentiable as often as `scatter_add` is; memory grows with edges x features."""
    return direct_painn_message(x, v, radial_filter(table, r), unit, rows, columns)


def painn_message(
    x: Tensor, v: Tensor, table: RadialTable, r: Tensor, unit: Tensor, rows: Rows, columns: Rows
) -> tuple[Tensor, Tensor]:
    """What each atom's scalars and vectors receive from its neighbours, summed in order.

    Parameters
    ----------
    x : (N, 3 F) float32 or float64
        For the scalars, for the edge's direction and for the neighbour's vector: F columns each.
    v : (N, 3, F)
        Vector features of the atoms; the middle axis is x, y, z.
    table : RadialTable
        The filter, 3 F values.
    r : (E,)
        Lengths of the edges, in the order of the receivers.
    unit : (E, 3)
        Directions of the edges, from receiver to sender as ``D = r_j - r_i + S @ cell``.
    rows : Rows
        The edges of each receiver; the index holds their senders.
    columns : Rows
        The edges of each sender; the index holds the numbers of the edges.

    Returns
    -------
    ds : (N, F)
    dv : (N, 3, F)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if not torch.compiler.is_compiling():
        check_table(table, r)
        check_edges(rows, columns)
        n_atoms, n_edges, width = rows.n_rows, rows.index_size, v.shape[-1]
        check_arrays(
            r.dtype,
            rows.row_ptr.device,
            ("x", x, (n_atoms, 3 * width)),
            ("v", v, (n_atoms, 3, width)),
            ("table.knots", table.knots, (table.knots.shape[0], 2, 3 * width)),
            ("r", r, (n_edges,)),
            ("unit", unit, (n_edges, 3)),
        )
    return reference(x, v, table, r, unit, rows, columns)
