"""force_virial: from derivatives with respect to edge vectors to forces and to the virials of atoms, in float64.

``forces[i] = sum of g over the edges that i receives - the same over the edges that i sends``
``virials[i] = -1/4 sum of (g x D + D x g) over the edges that i receives and those that it sends``

Half of an edge's virial goes to either end, as is usual for pair potentials; whole or half lists make no difference.

Both are bilinear in g and D, so that two kernels that are each other's derivatives make the whole ladder: the sums, and
what hands gradients of atoms to edges. A third derivative is refused, as that of a model's energy is.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mdgnn.ops.csr import EdgeRows
from mdgnn.ops.declaration import Array, Flags, Op, Optionals, Tensors, contiguous
from mdgnn.ops.examples import Example
from mdgnn.ops.kernels import kernels_for


class Static(NamedTuple):
    edges: EdgeRows


def reference(gradients: Tensor, edges: EdgeRows, vectors: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """The specification, in plain torch; memory grows with 9 numbers an edge."""
    rows = edges.by_receiver
    assert rows.index is not None
    g, senders, n = gradients.to(torch.float64), rows.index, rows.n_rows
    receivers = torch.arange(n, device=g.device).repeat_interleave(rows.row_ptr.diff())
    forces = g.new_zeros(n, 3).index_add(0, receivers, g).index_add(0, senders, -g)
    if vectors is None:
        return forces, None
    outer = g[:, :, None] * vectors[:, None, :]
    share = -0.25 * (outer + outer.transpose(1, 2))
    return forces, g.new_zeros(n, 3, 3).index_add(0, receivers, share).index_add(0, senders, share)


def force_virial(gradients: Tensor, edges: EdgeRows, vectors: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Forces, and on request virials, of atoms from dE/dD.

    Sums run in the order of the edges: the same bits on every run and for any number of threads.

    Parameters
    ----------
    gradients : (E, 3) float32 or float64
        The derivative of the energy with respect to each edge vector D = r_j - r_i + S @ cell.
    edges : EdgeRows
    vectors : (E, 3) float64, optional
        D; with them virials are returned.

    Returns
    -------
    forces : (N, 3) float64
    virials : (N, 3, 3) float64 or None
        In the unit of the energy, symmetric. Their sum over the atoms of a structure is its virial, -dE/d(strain).
        Both are differentiable twice with respect to gradients and vectors.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    forces, virials = FORCE_VIRIAL(Static(edges), gradients, vectors)
    return forces, virials


# --- the kernels: inputs are gradients, vectors; outputs forces, virials ----------------------------------------------


def _sum(edges: EdgeRows, gradients: Tensor, vectors: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The forces and, given vectors, the virials."""
    rows = edges.by_receiver.addresses
    forces = gradients.new_empty(rows[3], 3, dtype=torch.float64)
    virials = None if vectors is None else forces.new_empty(rows[3], 3, 3)
    kernels, context = kernels_for(gradients)
    kernels.force_virial(
        itemsize=gradients.element_size(),
        rows=rows,
        columns=edges.numbers_by_sender.addresses,
        vectors=vectors,
        gradients=gradients,
        forces=forces,
        virials=virials,
        context=context,
    )
    return forces, virials


def _hand(
    edges: EdgeRows, forces: Tensor | None, virials: Tensor | None, vectors: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """(E, 3), what edges get of the gradients of their atoms' forces and, with vectors, virials."""
    out = edges.by_receiver.row_ptr.new_empty(edges.n_edges, 3, dtype=dtype)
    kernels, context = kernels_for(out)
    kernels.force_virial_backward(
        itemsize=out.element_size(),
        rows=edges.by_receiver.addresses,
        columns=edges.numbers_by_sender.addresses,
        vectors=vectors,
        grad_forces=forces,
        grad_virials=virials,
        out=out,
        context=context,
    )
    return out


def forward(static: Static, inputs: Tensors, needs_grad: Flags) -> Optionals:
    """Forces (N, 3) and, given vectors, virials (N, 3, 3); no graph is recorded."""
    return _sum(static.edges, *contiguous(inputs))


def backward(static: Static, grads: Optionals, inputs: Tensors, saved: Optionals, needs_grad: Flags) -> Optionals:
    """The gradients of gradients and vectors, which have the same part in the virial; no graph is recorded."""
    (forces, virials), (gradients, vectors), edges = contiguous(grads), contiguous(inputs), static.edges
    by_gradients = by_vectors = None
    if vectors is None or virials is None:
        vectors = virials = None
    if needs_grad[0]:
        by_gradients = _hand(edges, forces, virials, vectors, gradients.dtype)
    if needs_grad[1]:
        by_vectors = (
            torch.zeros_like(inputs[1])
            if virials is None
            else _hand(edges, None, virials, gradients.to(torch.float64), torch.float64)
        )
    return by_gradients, by_vectors


def double_backward(
    static: Static, grad2: Optionals, grads: Optionals, inputs: Tensors, needs_grad: Flags
) -> Optionals:
    """The gradient of ``<grad2, backward(grads, ...)>`` for grads, gradients and vectors: by the same two sums."""
    by_gradients, by_vectors = contiguous(grad2)
    (_, virials), (gradients, vectors), edges = contiguous(grads), contiguous(inputs), static.edges
    input_grads: list[Tensor | None] = [None] * 4
    if by_gradients is not None and (needs_grad[0] or needs_grad[1]):
        input_grads[:2] = _sum(edges, by_gradients, vectors if needs_grad[1] else None)
    if by_vectors is not None and needs_grad[1]:
        _, more = _sum(edges, by_vectors, gradients.to(torch.float64))
        assert more is not None
        input_grads[1] = more if input_grads[1] is None else input_grads[1] + more
    if by_vectors is not None and virials is not None and needs_grad[2]:
        input_grads[2] = _hand(edges, None, virials, by_vectors, gradients.dtype)
    if by_gradients is not None and virials is not None and needs_grad[3]:
        input_grads[3] = _hand(edges, None, virials, by_gradients.to(torch.float64), torch.float64)
    like = (*grads, *inputs)
    return [
        None if not w else torch.zeros_like(t) if g is None and t is not None else g
        for g, t, w in zip(input_grads, like, needs_grad, strict=True)
    ]


def _arguments(static: Static, gradients: Tensor, vectors: Tensor | None) -> tuple[Any, ...]:
    return gradients, static.edges, vectors


def _example(e: Example) -> tuple[Static, tuple[Tensor | None, ...]]:
    vectors = e.normal(e.n_edges, 3, dtype=torch.float64) if e.option("virials", True) else None
    return Static(e.edges()), (e.normal(e.n_edges, 3), vectors)


FORCE_VIRIAL = Op(
    "force_virial",
    "forces[i] = sum of g over received edges - over sent ones, virials[i] = -1/4 sum of (g x D + D x g) over both",
    force_virial,
    reference,
    _arguments,
    Static,
    inputs=(Array("gradients", "E 3"), Array("vectors", "E 3", torch.float64, optional=True)),
    outputs=(
        Array("forces", "N 3", torch.float64),
        Array("virials", "N 3 3", torch.float64, present=lambda static, inputs: inputs[1] is not None),
    ),
    forward=forward,
    backward=backward,
    double_backward=double_backward,
    example=_example,
    options=({}, {"virials": False}),
    partial_grads=True,
)
