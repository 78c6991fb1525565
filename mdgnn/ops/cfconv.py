"""cfconv: SchNet's continuous-filter convolution, with the filter interpolated from a table, or given.

``out[i] = sum_k x[sender(k)] * f(r[k])`` over the edges k of receiver i.

Schuett et al., J. Chem. Phys. 148, 241722 (2018), equation 5.

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
        return scatter_add(gather_senders(x, edges) * filter, Rows(edges.by_receiver.row_ptr))
    table, r = filter
    if not torch.compiler.is_compiling():
        check_table(table, r)
        _, device = edges.addresses, edges.by_receiver.row_ptr.device
        n_channels = table.coefficients.shape[2]
        check_arrays(r.dtype, device, ("x", x, (edges.n_atoms, n_channels)), ("r", r, (edges.n_edges,)))
    out: Tensor
    (out,) = _ladder(Neighbourhood(edges.by_receiver, edges.by_sender, table.cutoff), x, table.coefficients, r)
    return out


def reference(x: Tensor, filter: Filter, edges: EdgeRows) -> Tensor:
    """The specification, differentiable as often as `scatter_add` is; memory grows with edges x features."""
    values = filter if isinstance(filter, Tensor) else radial_filter(*filter)
    return cfconv(x, values, edges)


# --- the kernels: inputs are x, coefficients, r; there is one output --------------------------------------------------


def _op(hood: Neighbourhood, x: Tensor, coefficients: Tensor, r: Tensor, workspace: Tensor | None = None) -> Any:
    edges, table = (hood.rows.addresses, hood.columns.addresses), table_address(coefficients, hood.cutoff)
    return x.element_size(), *edges, _matrix(x), table, address(r), workspace_address(workspace, r)


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    return (0, 0, 0) if tensor is None else (address(tensor), *tensor.shape)


def forward(hood: Neighbourhood, inputs: Tensors, wanted: Sequence[bool]) -> Tensors:
    """The sums (N, C); no graph is recorded."""
    x, coefficients, r = contiguous(inputs)
    out = x.new_empty(hood.rows.n_rows, x.shape[1])
    kernels, where = kernels_for(x)
    kernels.cfconv(_op(hood, x, coefficients, r), _matrix(out), where)
    return [out]


def backward(hood: Neighbourhood, grads: Tensors, inputs: Tensors, kept: Tensors, wanted: Sequence[bool]) -> Optionals:
    """The derivatives for x, coefficients and r, as `wanted`; no graph is recorded."""
    (grad,), (x, coefficients, r) = contiguous(grads), contiguous(inputs)
    by_x, by_coefficients, by_r = found = empty_like((x, coefficients, r), wanted)
    outs = (_matrix(by_x), address(by_r), address(by_coefficients))
    workspace, (kernels, where) = table_workspace(coefficients, r, wanted[1]), kernels_for(x)
    kernels.cfconv_backward(_op(hood, x, coefficients, r, workspace), _matrix(grad), *outs, where)
    return found


def double_backward(
    hood: Neighbourhood, grad2: Optionals, grads: Tensors, inputs: Tensors, wanted: Sequence[bool]
) -> Optionals:
    """The derivative of ``<grad2, backward(grad, ...)>`` for grad, x, coefficients and r, as `wanted`."""
    (grad,), (x, coefficients, r) = contiguous(grads), contiguous(inputs)
    grad2_x, grad2_table, grad2_r = contiguous(grad2)
    out_grad, out_x, out_coefficients, out_r = found = empty_like((grad, x, coefficients, r), wanted)
    workspace, (kernels, where) = table_workspace(coefficients, r, wanted[2]), kernels_for(x)
    given = (_op(hood, x, coefficients, r, workspace), _matrix(grad), _matrix(grad2_x), address(grad2_r))
    if grad2_x is None and grad2_r is None:
        found = [None if t is None else t.zero_() for t in found]
    else:
        outs = (_matrix(out_x), address(out_r), address(out_coefficients))
        kernels.cfconv_double_backward(*given, _matrix(out_grad), *outs, where)
    if grad2_table is not None:  # everything is linear in the table: what multiplies its gradient takes its place
        replaced = (x, grad2_table, r)
        more = (wanted[1], False, wanted[3])
        found = plus(found, (*forward(hood, replaced, more), *backward(hood, (grad,), replaced, (), more)))
    return found


def _shapes(n_rows: Any, inputs: Tensors) -> list[tuple[Any, ...]]:
    return [(n_rows, inputs[0].shape[1])]


_ladder = Ladder(Op("cfconv", ("x", "coefficients", "r"), _shapes, forward, backward, double_backward))
