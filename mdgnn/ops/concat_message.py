"""concat_message: the message of SimpleGNN after splitting its first Linear by blocks, summed over neighbours.

``out[i] = sum_k envelope[k] * silu(edge_part[k] + ends[sender(k), :H] + ends[i, H:])`` over the edges k of receiver i.

The derivative ladder is forward, backward, double backward: three functions below; a third derivative is refused. Of
size edges x features they save the input edge_part alone: x is computed again. torch.compile takes the reference, a
chain of registered operators; so this one needs no registration of its own.
"""

from typing import Any

import torch
from torch import Tensor

from mdgnn.ops.checks import check_arrays
from mdgnn.ops.csr import EdgeRows, Rows, address
from mdgnn.ops.kernels import kernels_for
from mdgnn.ops.scatter_add import gather_receivers, gather_senders, scatter_add
from mdgnn.ops.silu import silu

_ABSENT = (0, 0, 0)
_NO_ROWS = (0, 0, 0, 0)


def add_ends(ends: Tensor, edges: EdgeRows) -> Tensor:
    """(N, 2 H) -> (E, H): ``ends[senders, :H] + ends[receivers, H:]``; the derivative is a sum over rows."""
    if ends.ndim != 2 or ends.shape[0] != edges.n_atoms or ends.shape[1] % 2:
        raise ValueError(f"expected ends of shape ({edges.n_atoms}, 2 H), got {tuple(ends.shape)}")
    sent, received = ends.chunk(2, dim=1)
    return gather_senders(sent, edges) + gather_receivers(received, edges)


def reference(edge_part: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None = None) -> Tensor:
    """The specification, differentiable as often as `scatter_add` and `silu` are."""
    return scatter_add(silu(edge_part + add_ends(ends, edges)), Rows(edges.by_receiver.row_ptr), envelope)


def concat_message(edge_part: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None = None) -> Tensor:
    """Sum of messages over each receiver's edges, in order.

    Parameters
    ----------
    edge_part : (E, H) float32 or float64
        What a message gets from its edge.
    ends : (N, 2 H)
        What it gets from its ends: columns :H of its sender's row and H: of its receiver's.
    edges : EdgeRows
    envelope : (E,), optional
        What each message is multiplied with.

    Returns
    -------
    (N, H)

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if torch.compiler.is_compiling():
        return reference(edge_part, ends, edges, envelope)
    _check(edge_part, ends, edges, envelope)
    rows, columns = edges.by_receiver, edges.numbers_by_sender
    return _Forward.apply(edge_part, ends, envelope, rows, columns)  # type: ignore[no-any-return, no-untyped-call]


def _check(edge_part: Tensor, ends: Tensor, edges: EdgeRows, envelope: Tensor | None) -> None:
    if edge_part.ndim != 2:
        raise ValueError(f"expected edge_part of shape (E, H), got {tuple(edge_part.shape)}")
    _, device = edges.addresses, edges.by_receiver.row_ptr.device
    n_edges, width = edges.n_edges, edge_part.shape[1]
    check_arrays(
        edge_part.dtype,
        device,
        ("edge_part", edge_part, (n_edges, width)),
        ("ends", ends, (edges.n_atoms, 2 * width)),
        ("envelope", envelope, (n_edges,)),
    )


# --- the kernels -----------------------------------------------------------------------------------------------------


def _matrix(tensor: Tensor | None) -> tuple[int, int, int]:
    return _ABSENT if tensor is None else (tensor.data_ptr(), *tensor.shape)


def _contiguous(edge_part: Tensor, ends: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of edge_part only the rows must be, so that it may be a block of columns of something larger."""
    edge_part = edge_part if edge_part.stride(1) == 1 else edge_part.contiguous()
    return edge_part, ends.contiguous(), None if weight is None else weight.contiguous()


def _op(edge_part: Tensor, ends: Tensor, weight: Tensor | None, rows: Rows, columns: tuple[int, ...]) -> Any:
    """What all three kernels take."""
    part, stride = _matrix(edge_part), edge_part.stride(0)
    return edge_part.element_size(), rows.addresses, columns, part, stride, _matrix(ends), address(weight)


def forward(edge_part: Tensor, ends: Tensor, weight: Tensor | None, rows: Rows) -> Tensor:
    """The sums (N, H); no graph is recorded."""
    edge_part, ends, weight = _contiguous(edge_part, ends, weight)
    out = edge_part.new_empty(rows.n_rows, edge_part.shape[1])
    kernels, where = kernels_for(out)
    kernels.concat_message(_op(edge_part, ends, weight, rows, _NO_ROWS), _matrix(out), where)
    return out


def backward(
    grad: Tensor,
    edge_part: Tensor,
    ends: Tensor,
    weight: Tensor | None,
    rows: Rows,
    columns: Rows,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The derivatives for edge_part and, as `wanted`, for ends and weight; no graph is recorded."""
    grad, (edge_part, ends, weight) = grad.contiguous(), _contiguous(edge_part, ends, weight)
    out_edge = edge_part.new_empty(edge_part.shape)
    out_ends = torch.empty_like(ends) if wanted[0] else None
    out_weight = torch.empty_like(weight) if wanted[1] and weight is not None else None
    op, (kernels, where) = _op(edge_part, ends, weight, rows, columns.addresses), kernels_for(grad)
    outs = (_matrix(out_edge), _matrix(out_ends), address(out_weight))
    kernels.concat_message_backward(op, _matrix(grad), *outs, where)
    return out_edge, out_ends, out_weight


def double_backward(
    grad2: tuple[Tensor | None, Tensor | None, Tensor | None],
    grad: Tensor,
    edge_part: Tensor,
    ends: Tensor,
    weight: Tensor | None,
    rows: Rows,
    columns: Rows,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The derivative of ``<grad2, backward(grad, ...)>`` for grad, edge_part, ends and weight."""
    by_edge, by_ends, by_weight = (None if g is None else g.contiguous() for g in grad2)
    grad, (edge_part, ends, weight) = grad.contiguous(), _contiguous(edge_part, ends, weight)
    out_grad, out_edge = torch.empty_like(grad), edge_part.new_empty(edge_part.shape)
    out_ends = torch.empty_like(ends)
    out_weight = None if weight is None else torch.empty_like(weight)
    op, (kernels, where) = _op(edge_part, ends, weight, rows, columns.addresses), kernels_for(grad)
    given = (_matrix(by_edge), _matrix(by_ends), address(by_weight))
    outs = (_matrix(out_grad), _matrix(out_edge), _matrix(out_ends), address(out_weight))
    kernels.concat_message_double_backward(op, _matrix(grad), given, *outs, where)
    return out_grad, out_edge, out_ends, out_weight


# --- eager autograd --------------------------------------------------------------------------------------------------


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, edge_part: Tensor, ends: Tensor, weight: Tensor | None, rows: Rows, columns: Rows) -> Tensor:
        ctx.rows, ctx.columns = rows, columns
        ctx.save_for_backward(edge_part, ends, weight)
        return forward(edge_part, ends, weight, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        run: Any = _Backward.apply if torch.is_grad_enabled() else backward
        found = run(grad, *ctx.saved_tensors, ctx.rows, ctx.columns, ctx.needs_input_grad[1:3])
        return (*found, None, None)


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor | None, Tensor | None]:
        *tensors, ctx.rows, ctx.columns, _ = args
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        return backward(*args)

    @staticmethod
    def backward(ctx: Any, *grad2: Tensor | None) -> tuple[Any, ...]:
        args = (*grad2, *ctx.saved_tensors, ctx.rows, ctx.columns)
        return (*_DoubleBackward.apply(*args), None, None, None)  # type: ignore[no-untyped-call]


class _DoubleBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        return double_backward(args[:3], *args[3:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise RuntimeError("concat_message: third derivatives are not implemented; the ladder ends at the second")
