"""painn_message: PaiNN's message between atoms, with the filter interpolated from a table, or given.

With w = f(r[k]) * x[j], split into three blocks (a, b, c) of F columns, summed over the edges k from j to receiver i:

    ds[i] = sum_k a,   dv[i] = sum_k (unit[k] outer b + v[j] * c)

Schuett, Unke and Gastegger, ICML 2021, equations 7 and 8.

With a table nothing of size edges x features is stored: forward, backward and double backward interpolate the filter
anew. A third derivative is refused.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.checks import check_arrays
from mdgnn.ops.csr import EdgeRows, Rows, address
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.ladder import Ladder, Neighbourhood, Op, Optionals, Tensors, contiguous, empty_like, plus
from mdgnn.ops.radial_filter import (
    Filter,
    check_table,
    radial_filter,
    table_address,
    table_workspace,
    workspace_address,
)
from mdgnn.ops.scatter_add import gather_senders, scatter_add


def painn_message(x: Tensor, v: Tensor, filter: Filter, unit: Tensor, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    """What each atom's scalars and vectors receive from its neighbours, summed in order.

    Parameters
    ----------
    x : (N, 3 F) float32 or float64
        For the scalars, for the edge's direction and for the neighbour's vector: F columns each.
    v : (N, 3, F)
        Vector features of the atoms; the middle axis is x, y, z.
    filter : TabulatedFilter or (E, 3 F) tensor
        A table of 3 F values and the lengths (E,) of the edges; or its values at every edge, which memory of that size
        is spent on.
    unit : (E, 3)
        Directions of the edges, from receiver to sender as ``D = r_j - r_i + S @ cell``.
    edges : EdgeRows

    Returns
    -------
    ds : (N, F)
    dv : (N, 3, F)
        Both are differentiable twice with respect to x, v, unit, and the table's coefficients and distances or the
        values, taken as independent.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(painn_message, (x,), x, v, filter, unit, edges)
    if isinstance(filter, Tensor):
        return _with_values(x, v, filter, unit, edges)
    table, r = filter
    if not torch.compiler.is_compiling():
        check_table(table, r)
        _, device = edges.addresses, edges.by_receiver.row_ptr.device
        n_atoms, n_edges, width = edges.n_atoms, edges.n_edges, v.shape[-1]
        check_arrays(
            r.dtype,
            device,
            ("x", x, (n_atoms, 3 * width)),
            ("v", v, (n_atoms, 3, width)),
            ("table.coefficients", table.coefficients, (table.coefficients.shape[0], 4, 3 * width)),
            ("r", r, (n_edges,)),
            ("unit", unit, (n_edges, 3)),
        )
    hood = Neighbourhood(edges.by_receiver, edges.by_sender, table.cutoff)
    out: tuple[Tensor, Tensor] = _ladder(hood, x, v, table.coefficients, r, unit)
    return out


def reference(x: Tensor, v: Tensor, filter: Filter, unit: Tensor, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    """The specification, differentiable as often as `scatter_add` is; memory grows with edges x features."""
    values = filter if isinstance(filter, Tensor) else radial_filter(*filter)
    return _with_values(x, v, values, unit, edges)


def _with_values(x: Tensor, v: Tensor, values: Tensor, unit: Tensor, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    width, by_receiver = v.shape[2], Rows(edges.by_receiver.row_ptr)
    v_j = gather_senders(v.flatten(1), edges).view(-1, 3, width)
    a, b, c = (values * gather_senders(x, edges)).split([width] * 3, dim=1)
    message = unit[:, :, None] * b[:, None] + v_j * c[:, None]
    return scatter_add(a, by_receiver), scatter_add(message.flatten(1), by_receiver).view(v.shape)


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
