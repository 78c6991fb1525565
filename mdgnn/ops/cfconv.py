"""cfconv: SchNet's continuous-filter convolution, with the filter interpolated from a table.

``out[i] = sum_k x[sender(k)] * f(r[k])`` over the edges k of receiver i, with the table's f.

Schuett et al., J. Chem. Phys. 148, 241722 (2018), equation 5.
"""

import torch
from torch import Tensor

from mdgnn.ops.checks import check_arrays, check_edges
from mdgnn.ops.csr import Rows
from mdgnn.ops.radial_filter import RadialTable, check_table, radial_filter
from mdgnn.ops.scatter_add import scatter_add


def direct_cfconv(x: Tensor, filters: Tensor, rows: Rows, columns: Rows) -> Tensor:
    """``out[i] = sum_k x[sender(k)] * filters[k]``: `cfconv` with a filter (E, C) that is given at every edge."""
    one_each = torch.arange(filters.shape[0] + 1, device=filters.device)
    x_j = scatter_add(x, Rows(one_each, rows.index), columns=columns)
    return scatter_add(x_j * filters, Rows(rows.row_ptr))


def reference(x: Tensor, table: RadialTable, r: Tensor, rows: Rows, columns: Rows) -> Tensor:
    """The specification, differentiable as often as `scatter_add` is; memory grows with edges x features."""
    return direct_cfconv(x, radial_filter(table, r), rows, columns)


def cfconv(x: Tensor, table: RadialTable, r: Tensor, rows: Rows, columns: Rows) -> Tensor:
    """Sum of filtered features of each receiver's neighbours, in order.

    Parameters
    ----------
    x : (N, C) float32 or float64
        Features of the atoms.
    table : RadialTable
        The filter, C values.
    r : (E,)
        Lengths of the edges, in the order of the receivers.
    rows : Rows
        The edges of each receiver; the index holds their senders.
    columns : Rows
        The edges of each sender; the index holds the numbers of the edges.

    Returns
    -------
    (N, C)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if not torch.compiler.is_compiling():
        check_table(table, r)
        check_edges(rows, columns)
        n_channels = table.knots.shape[2]
        check_arrays(r.dtype, rows.row_ptr.device, ("x", x, (rows.n_rows, n_channels)), ("r", r, (rows.index_size,)))
    return reference(x, table, r, rows, columns)
