"""painn_message: PaiNN's message between atoms, with the filter interpolated from a table.

With w = f(r[k]) * x[j], split into three blocks (a, b, c) of F columns, summed over the edges k from j to receiver i:

    ds[i] = sum_k a,   dv[i] = sum_k (unit[k] outer b + v[j] * c)

Schuett, Unke and Gastegger, ICML 2021, equations 7 and 8.

Nothing of size edges x features is stored: forward, backward and double backward interpolate the filter anew. A third
derivative is refused.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.checks import check_arrays, check_both_orders
from mdgnn.ops.csr import Rows, address
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.ladder import Ladder, Neighbourhood, Op, Optionals, Tensors, contiguous, empty_like, plus
from mdgnn.ops.radial_filter import (
    RadialTable,
    check_table,
    radial_filter,
    table_address,
    table_workspace,
    workspace_address,
)
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
    edges = Rows(columns.row_ptr, columns.edge)
    return direct_painn_message(x, v, radial_filter(table, r), unit, rows, edges)


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
        The edges of each sender; the index holds their receivers, `edge` their numbers, each once.

    Returns
    -------
    ds : (N, F)
    dv : (N, 3, F)
        Both are differentiable twice with respect to x, v, the table's coefficients, r and unit, taken as independent.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(painn_message, (x,), x, v, table, r, unit, rows, columns)
    if not torch.compiler.is_compiling():
        check_table(table, r)
        check_both_orders(rows, columns)
        n_atoms, n_edges, width = rows.n_rows, rows.index_size, v.shape[-1]
        check_arrays(
            r.dtype,
            rows.row_ptr.device,
            ("x", x, (n_atoms, 3 * width)),
            ("v", v, (n_atoms, 3, width)),
            ("table.coefficients", table.coefficients, (table.coefficients.shape[0], 4, 3 * width)),
            ("r", r, (n_edges,)),
            ("unit", unit, (n_edges, 3)),
        )
    out: tuple[Tensor, Tensor] = _ladder(Neighbourhood(rows, columns, table.cutoff), x, v, table.coefficients, r, unit)
    return out


# --- the kernels: inputs are x, v, coefficients, r, unit; outputs ds, dv ---------------------------------------------


def _op(hood: Neighbourhood, inputs: Tensors, workspace: Tensor | None = None) -> Any:
    x, v, coefficients, r, unit = inputs
    arrays = (hood.rows.addresses, hood.columns.addresses, _matrix(x), _matrix(v))
    table = table_address(coefficients, hood.cutoff)
    return x.element_size(), *arrays, table, address(r), address(unit), workspace_address(workspace, r)


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    """A row for each atom; components and features in one."""
    return (0, 0, 0) if tensor is None else (address(tensor), tensor.shape[0], tensor.shape[1:].numel())


def _gradients(x: Tensor | None, v: Tensor | None, *rest: Tensor | None) -> Any:
    """`rest`: of the table, r and unit."""
    return _matrix(x), _matrix(v), *map(address, rest)


def _pairs(wanted: Sequence[bool]) -> list[bool]:
    """x and v come together, and r and unit."""
    x, v, coefficients, r, unit = wanted
    return [x or v, x or v, coefficients, r or unit, r or unit]


def forward(hood: Neighbourhood, inputs: Tensors, wanted: Sequence[bool]) -> Tensors:
    """The sums ds (N, F) and dv (N, 3, F); no graph is recorded."""
    _, v, *_ = inputs = contiguous(inputs)
    ds, dv = v.new_empty(v.shape[0], v.shape[2]), torch.empty_like(v)
    kernels, where = kernels_for(v)
    kernels.painn_message(_op(hood, inputs), (_matrix(ds), _matrix(dv)), where)
    return [ds, dv]


def backward(hood: Neighbourhood, grads: Tensors, inputs: Tensors, kept: Tensors, wanted: Sequence[bool]) -> Optionals:
    """The derivatives for the inputs, as `wanted`; no graph is recorded."""
    (ds, dv), inputs = contiguous(grads), contiguous(inputs)
    found = empty_like(inputs, _pairs(wanted))
    grad = (_matrix(ds), _matrix(dv))
    workspace, (kernels, where) = table_workspace(inputs[2], inputs[3], wanted[2]), kernels_for(ds)
    kernels.painn_message_backward(_op(hood, inputs, workspace), grad, _gradients(*found), where)
    return [t if w else None for t, w in zip(found, wanted, strict=True)]


def double_backward(
    hood: Neighbourhood, grad2: Optionals, grads: Tensors, inputs: Tensors, wanted: Sequence[bool]
) -> Optionals:
    """The derivative of ``<grad2, backward(grads, ...)>`` for grads and inputs, as `wanted`."""
    (ds, dv), inputs, grad2 = contiguous(grads), contiguous(inputs), contiguous(grad2)
    outs = empty_like((ds, dv), [wanted[0] or wanted[1]] * 2)
    found = [*outs, *empty_like(inputs, _pairs(wanted[2:]))]
    x, v, coefficients, r, unit = inputs
    workspace, (kernels, where) = table_workspace(coefficients, r, wanted[4]), kernels_for(ds)
    factors = [torch.zeros_like(t) if g is None else g for g, t in zip(grad2, inputs, strict=True)]
    grad, out_grad = (_matrix(ds), _matrix(dv)), (_matrix(outs[0]), _matrix(outs[1]))
    given = (_op(hood, inputs, workspace), grad, _gradients(factors[0], factors[1], None, *factors[3:]))
    kernels.painn_message_double_backward(*given, out_grad, _gradients(*found[2:]), where)
    if grad2[2] is not None:  # everything is linear in the table: what multiplies its gradient takes its place
        replaced = (x, v, grad2[2], r, unit)
        more = (wanted[2], wanted[3], False, wanted[5], wanted[6])
        found = plus(found, (*forward(hood, replaced, more), *backward(hood, (ds, dv), replaced, (), more)))
    return [t if w else None for t, w in zip(found, wanted, strict=True)]


def _shapes(n_rows: Any, inputs: Tensors) -> list[tuple[Any, ...]]:
    width = inputs[1].shape[2]
    return [(n_rows, width), (n_rows, 3, width)]


_INPUTS = ("x", "v", "coefficients", "r", "unit")
_ladder = Ladder(Op("painn_message", _INPUTS, _shapes, forward, backward, double_backward, n_outputs=2))
