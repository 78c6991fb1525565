"""painn_message: PaiNN's message between atoms, with the filter interpolated from a table, or given.

With w = f(r[k]) * x[j], split into three blocks (a, b, c) of F columns, summed over the edges k from j to receiver i:

    ds[i] = sum_k a,   dv[i] = sum_k (unit[k] outer b + v[j] * c)

Schuett, Unke and Gastegger, ICML 2021, equations 7 and 8.

With a table nothing of size edges x features is stored: forward, backward and double backward interpolate the filter
anew. A third derivative is refused.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from mdgnn.ops.csr import EdgeRows, Rows
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous, empty_like, plus
from mdgnn.ops.examples import CUTOFF, Example
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.radial_filter import (
    Filter,
    RadialTable,
    TabulatedFilter,
    check_table,
    check_values,
    radial_filter,
    table_workspace,
)
from mdgnn.ops.scatter_add import gather_senders, scatter_add


class Static(NamedTuple):
    edges: EdgeRows
    cutoff: float


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
    (coefficients, cutoff, _), r = filter
    out: tuple[Tensor, Tensor] = PAINN_MESSAGE(Static(edges, cutoff), x, v, coefficients, r, unit)
    return out


def reference(x: Tensor, v: Tensor, filter: Filter, unit: Tensor, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    """The specification, differentiable as often as `scatter_add` is; memory grows with edges x features."""
    values = filter if isinstance(filter, Tensor) else radial_filter(*filter)
    return _with_values(x, v, values, unit, edges)


def _with_values(x: Tensor, v: Tensor, values: Tensor, unit: Tensor, edges: EdgeRows) -> tuple[Tensor, Tensor]:
    width, n_edges = v.shape[-1] if v.ndim else 0, edges.n_edges
    of_atoms = {"v": (v, (edges.n_atoms, 3, width)), "x": (x, (edges.n_atoms, 3 * width))}
    check_values(x, **of_atoms, filter=(values, (n_edges, 3 * width)), unit=(unit, (n_edges, 3)))
    by_receiver = Rows(edges.by_receiver.row_ptr)
    v_j = gather_senders(v.flatten(1), edges).view(n_edges, 3, width)
    a, b, c = (values * gather_senders(x, edges)).split([width] * 3, dim=1)
    message = unit[:, :, None] * b[:, None] + v_j * c[:, None]
    return scatter_add(a, by_receiver), scatter_add(message.flatten(1), by_receiver).view(v.shape)


# --- the kernels: inputs are x, v, coefficients, r, unit; outputs ds, dv ---------------------------------------------


def _pairs(needs_grad: Flags) -> list[bool]:
    """x and v come together, and r and unit."""
    x, v, coefficients, r, unit = needs_grad
    return [x or v, x or v, coefficients, r or unit, r or unit]


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Tensors:
    """The sums ds (N, F) and dv (N, 3, F); no graph is recorded."""
    (x, v, coefficients, r, unit), (rows, columns) = contiguous(inputs), static.edges.addresses
    ds, dv = v.new_empty(v.shape[0], v.shape[2]), torch.empty_like(v)
    kernels, context = kernels_for(v)
    kernels.painn_message(
        itemsize=v.element_size(),
        rows=rows,
        columns=columns,
        x=x,
        v=v,
        table=(coefficients, static.cutoff),
        r=r,
        unit=unit,
        workspace=(None, r.shape[0]),
        out_s=ds,
        out_v=dv,
        context=context,
    )
    return ds, dv


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The derivatives for the inputs, as `needs_grad`; no graph is recorded."""
    (ds, dv), inputs, (rows, columns) = contiguous(grads), contiguous(inputs), static.edges.addresses
    x, v, coefficients, r, unit = inputs
    input_grads = out_x, out_v, out_coefficients, out_r, out_unit = empty_like(inputs, _pairs(needs_grad))
    kernels, context = kernels_for(ds)
    kernels.painn_message_backward(
        itemsize=ds.element_size(),
        rows=rows,
        columns=columns,
        x=x,
        v=v,
        table=(coefficients, static.cutoff),
        r=r,
        unit=unit,
        workspace=(table_workspace(coefficients, r, needs_grad[2]), r.shape[0]),
        grad_s=ds,
        grad_v=dv,
        out_x=out_x,
        out_v=out_v,
        out_coefficients=out_coefficients,
        out_r=out_r,
        out_unit=out_unit,
        context=context,
    )
    return [t if w else None for t, w in zip(input_grads, needs_grad, strict=True)]


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The derivative of ``<grad2, backward(grads, ...)>`` for grads and inputs, as `needs_grad`."""
    (ds, dv), inputs, grad2 = contiguous(grads), contiguous(inputs), contiguous(grad2)
    outs = out_ds, out_dv = empty_like((ds, dv), [needs_grad[0] or needs_grad[1]] * 2)
    more = out_x, out_v, out_coefficients, out_r, out_unit = empty_like(inputs, _pairs(needs_grad[2:]))
    (x, v, coefficients, r, unit), (rows, columns), input_grads = inputs, static.edges.addresses, [*outs, *more]
    factors = [torch.zeros_like(t) if g is None else g for g, t in zip(grad2, inputs, strict=True)]
    kernels, context = kernels_for(ds)
    kernels.painn_message_double_backward(
        itemsize=ds.element_size(),
        rows=rows,
        columns=columns,
        x=x,
        v=v,
        table=(coefficients, static.cutoff),
        r=r,
        unit=unit,
        workspace=(table_workspace(coefficients, r, needs_grad[4]), r.shape[0]),
        grad_s=ds,
        grad_v=dv,
        grad2_x=factors[0],
        grad2_v=factors[1],
        grad2_coefficients=grad2[2],  # which is checked, and not read: see below
        grad2_r=factors[3],
        grad2_unit=factors[4],
        out_grad_s=out_ds,
        out_grad_v=out_dv,
        out_x=out_x,
        out_v=out_v,
        out_coefficients=out_coefficients,
        out_r=out_r,
        out_unit=out_unit,
        context=context,
    )
    if grad2[2] is not None:  # everything is linear in the table: what multiplies its gradient takes its place
        replaced = (x, v, grad2[2], r, unit)
        needed = (needs_grad[2], needs_grad[3], False, needs_grad[5], needs_grad[6])
        input_grads = plus(
            input_grads, (*forward(static, replaced, needed), *backward(static, (ds, dv), replaced, (), needed))
        )
    return [t if w else None for t, w in zip(input_grads, needs_grad, strict=True)]


def _arguments(static: Static, x: Tensor, v: Tensor, coefficients: Tensor, r: Tensor, unit: Tensor) -> tuple[Any, ...]:
    return x, v, TabulatedFilter(RadialTable(coefficients, static.cutoff), r), unit, static.edges


def _example(e: Example) -> tuple[Static, tuple[Tensor, ...]]:
    features = e.normal(e.n_atoms, 3 * e.width), e.normal(e.n_atoms, 3, e.width)
    return Static(e.edges(), CUTOFF), (*features, e.coefficients(3 * e.width), e.distances(), e.normal(e.n_edges, 3))


PAINN_MESSAGE = Op(
    "painn_message",
    "ds[i] = sum_k a, dv[i] = sum_k unit[k] outer b + v[j] * c; (a, b, c) = f(r[k]) * x[j]",
    painn_message,
    reference,
    _arguments,
    Static,
    inputs=(
        Array("x", "N 3F"),
        Array("v", "N 3 F"),
        Array("coefficients", "G 4 3F"),
        Array("r", "E"),
        Array("unit", "E 3"),
    ),
    outputs=(Array("ds", "N F"), Array("dv", "N 3 F")),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    check=lambda static, inputs: check_table(inputs[2], static.cutoff),
    source="Schuett, Unke and Gastegger, ICML 2021, equations 7 and 8",
)
