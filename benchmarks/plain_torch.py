"""SimpleGNN, SchNet and PaiNN in plain torch, on the weights of ours: gathered rows, index_add, direct filters."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mdgnn import Graph


def sum_rows(messages: Tensor, receivers: Tensor, n: int) -> Tensor:
    return messages.new_zeros(n, *messages.shape[1:]).index_add(0, receivers, messages)


def filters(model: Any, r: Tensor) -> list[Tensor]:
    """(E, C) for each layer."""
    parts = model.filters
    basis, envelope = parts.basis(r), parts.envelope(r, model.cutoff)[:, None] / parts.divisor
    return [network(basis) * envelope for network in parts.networks]


def simple_gnn(model: Any, graph: Graph, vectors: Tensor) -> Tensor:
    """As the lecture writes it."""
    r = vectors.square().sum(1).sqrt()
    basis = torch.exp((r[:, None] - model.rbf_centers).square() * (-0.5 / model.rbf_width**2))
    types = model.elements.types(graph.atomic_numbers)
    h = model.atom_embedding(types)
    for layer in model.layers:
        messages = layer.message_mlp(torch.cat([h[graph.senders], h[graph.receivers], basis], dim=1))
        h = h + layer.update_mlp(torch.cat([h, sum_rows(messages, graph.receivers, len(h)) / layer.divisor], dim=1))
    return model.elements.energies(types, model.output_mlp(h).squeeze(1))


def schnet(model: Any, graph: Graph, vectors: Tensor) -> Tensor:
    r = vectors.square().sum(1).sqrt()
    types = model.elements.types(graph.atomic_numbers)
    h = model.embedding(types)
    for layer, w in zip(model.interactions, filters(model, r), strict=True):
        h = h + layer.update(sum_rows(layer.project(h)[graph.senders] * w, graph.receivers, len(h)))
    return model.elements.energies(types, model.output_mlp(h).squeeze(1))


def painn(model: Any, graph: Graph, vectors: Tensor) -> Tensor:
    r = vectors.square().sum(1).sqrt()
    unit = vectors / r[:, None]
    types = model.elements.types(graph.atomic_numbers)
    s = model.embedding(types)
    v = s.new_zeros(len(s), 3, s.shape[1])
    for layer, w in zip(model.layers, filters(model, r), strict=True):
        a, b, c = (layer.message_mlp(s)[graph.senders] * w).chunk(3, dim=1)
        dv = unit[:, :, None] * b[:, None] + v[graph.senders] * c[:, None]
        s, v = s + sum_rows(a, graph.receivers, len(s)), v + sum_rows(dv, graph.receivers, len(s))
        s, v = layer.update(s, v)
    return model.elements.energies(types, model.output_mlp(s).squeeze(1))


NETWORKS = {"SimpleGNN": simple_gnn, "SchNet": schnet, "PaiNN": painn}


def energy_and_forces(
    model: Any, graph: Graph, create_graph: bool = False, network: Callable[..., Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Energies (N,) and forces (N, 3); `network`: what gives the energies, instead of the functions above."""
    vectors = graph.vectors.detach().to(model.dtype).requires_grad_()
    energies = (network or NETWORKS[type(model).__name__])(model, graph, vectors)
    (g,) = torch.autograd.grad(energies.sum(), vectors, create_graph=create_graph)
    return energies, sum_rows(g, graph.receivers, graph.n_atoms) - sum_rows(g, graph.senders, graph.n_atoms)


def compiled(model: Any, graph: Graph) -> Callable[[], tuple[Tensor, Tensor]]:
    """The same by torch.compile, for the shapes of this graph; compiled before it returns."""
    network = torch.compile(NETWORKS[type(model).__name__], dynamic=False, fullgraph=True)

    def run() -> tuple[Tensor, Tensor]:
        return energy_and_forces(model, graph, network=network)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's compiler
        run()
    return run
