"""cfconv: SchNet's continuous-filter convolution, with the filter interpolated from a table, or given.

``out[i] = sum_k x[sender(k)] * f(r[k])`` over the edges k of receiver i.

Schuett et al., J. Chem. Phys. 148, 241722 (2018), equation 5.

With a table nothing of size edges x features is stored: forward, backward and double backward interpolate the filter
anew. A third derivative is refused.
"""

from typing import Any, NamedTuple

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


def cfconv(x: Tensor, filter: Filter, edges: EdgeRows) -> Tensor:
    """Sum of filtered features of each receiver's neighbours, in order.

    Parameters
    ----------
    x : (N, C) float32 or float64
        Features of the atoms.
    filter : TabulatedFilter or (E, C) tensor
        A table of C values and the lengths (E,) of the edges; or its values at every edge, which memory of that size is
        spent on.
    edges : EdgeRows

    Returns
    -------
    (N, C), differentiable twice with respect to x, and the table's coefficients and distances or the values

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(cfconv, (x,), x, filter, edges)
    if isinstance(filter, Tensor):
        width = x.shape[-1:]
        check_values(x, x=(x, (edges.n_atoms, *width)), filter=(filter, (edges.n_edges, *width)))
        return scatter_add(gather_senders(x, edges) * filter, Rows(edges.by_receiver.row_ptr))
    (coefficients, cutoff, _), r = filter
    out: Tensor
    (out,) = CFCONV(Static(edges, cutoff), x, coefficients, r)
    return out


def reference(x: Tensor, filter: Filter, edges: EdgeRows) -> Tensor:
    """The specification, differentiable as often as `scatter_add` is; memory grows with edges x features."""
    values = filter if isinstance(filter, Tensor) else radial_filter(*filter)
    return cfconv(x, values, edges)


# --- the kernels: inputs are x, coefficients, r; there is one output --------------------------------------------------


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Tensors:
    """The sums (N, C); no graph is recorded."""
    (x, coefficients, r), (rows, columns) = contiguous(inputs), static.edges.addresses
    out = x.new_empty(rows[3], x.shape[1])
    kernels, context = kernels_for(x)
    kernels.cfconv(
        itemsize=x.element_size(),
        rows=rows,
        columns=columns,
        x=x,
        table=(coefficients, static.cutoff),
        r=r,
        workspace=(None, r.shape[0]),
        out=out,
        context=context,
    )
    return (out,)


def backward(static: Static, grads: Tensors, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The derivatives for x, coefficients and r, as `needs_grad`; no graph is recorded."""
    grad, (x, coefficients, r), (rows, columns) = grads[0].contiguous(), contiguous(inputs), static.edges.addresses
    out_x, out_coefficients, out_r = input_grads = empty_like((x, coefficients, r), needs_grad)
    kernels, context = kernels_for(x)
    kernels.cfconv_backward(
        itemsize=x.element_size(),
        rows=rows,
        columns=columns,
        x=x,
        table=(coefficients, static.cutoff),
        r=r,
        workspace=(table_workspace(coefficients, r, needs_grad[1]), r.shape[0]),
        grad=grad,
        out_x=out_x,
        out_r=out_r,
        out_coefficients=out_coefficients,
        context=context,
    )
    return input_grads


def double_backward(static: Static, grad2: Optionals, grads: Tensors, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """The derivative of ``<grad2, backward(grad, ...)>`` for grad, x, coefficients and r, as `needs_grad`."""
    (grad,), (x, coefficients, r), (rows, columns) = contiguous(grads), contiguous(inputs), static.edges.addresses
    grad2_x, grad2_table, grad2_r = contiguous(grad2)
    out_grad, out_x, out_coefficients, out_r = input_grads = empty_like((grad, x, coefficients, r), needs_grad)
    if grad2_x is None and grad2_r is None:
        input_grads = [None if t is None else t.zero_() for t in input_grads]
    else:
        kernels, context = kernels_for(x)
        kernels.cfconv_double_backward(
            itemsize=x.element_size(),
            rows=rows,
            columns=columns,
            x=x,
            table=(coefficients, static.cutoff),
            r=r,
            workspace=(table_workspace(coefficients, r, needs_grad[2]), r.shape[0]),
            grad=grad,
            grad2_x=grad2_x,
            grad2_r=grad2_r,
            out_grad=out_grad,
            out_x=out_x,
            out_r=out_r,
            out_coefficients=out_coefficients,
            context=context,
        )
    if grad2_table is not None:  # everything is linear in the table: what multiplies its gradient takes its place
        check_values(x, grad2_coefficients=(grad2_table, coefficients.shape))
        replaced = (x, grad2_table, r)
        more = (needs_grad[1], False, needs_grad[3])
        input_grads = plus(
            input_grads, (*forward(static, replaced, more), *backward(static, (grad,), replaced, (), more))
        )
    return input_grads


def _arguments(static: Static, x: Tensor, coefficients: Tensor, r: Tensor) -> tuple[Any, ...]:
    return x, TabulatedFilter(RadialTable(coefficients, static.cutoff), r), static.edges


def _example(e: Example) -> tuple[Static, tuple[Tensor, ...]]:
    return Static(e.edges(), CUTOFF), (e.normal(e.n_atoms, e.width), e.coefficients(e.width), e.distances())


CFCONV = Op(
    "cfconv",
    "out[i] = sum_k x[j] * f(r[k])",
    cfconv,
    reference,
    _arguments,
    Static,
    inputs=(Array("x", "N C"), Array("coefficients", "G 4 C"), Array("r", "E")),
    outputs=(Array("out", "N C"),),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    check=lambda static, inputs: check_table(inputs[1], static.cutoff),
    source="Schuett et al., J. Chem. Phys. 148, 241722 (2018), equation 5",
)
