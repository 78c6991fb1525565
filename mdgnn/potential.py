"""From atomic energies to forces, virial and stress: once, for every model.

A model maps edge vectors to atomic energies. Everything else follows from g = dE/dD, the derivative with respect to the
edge vectors: the force on atom i is the sum of g over the edges that it receives minus the sum over those that it
sends, and the virial is -sum g x D, of which half of each edge's share belongs to either of its ends.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mdgnn._internal.torch_context import torch_context
from mdgnn.graph import Graph, mean_per_structure, sum_per_structure
from mdgnn.ops import force_virial, scatter_add


class Potential(Protocol):
    """What the calculator and the trainer need of a model.

    Attributes
    ----------
    cutoff : float
        Edges reach this far; infinite: all pairs of an open system.
    units : str
        "metal" (eV, Angstrom) or "lj" (epsilon, sigma, mass 1: numerically eV and Angstrom).
    readout : str
        "sum" for extensive properties such as the energy, "mean" for intensive ones.
    """

    cutoff: float
    units: str
    readout: str

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the model's arithmetic."""

    def atomic_energies(self, graph: Graph, vectors: Tensor) -> Tensor:
        """(E, 3) edge vectors in the model's dtype -> (N,) atomic energies."""


class Prediction(NamedTuple):
    """energy (S,), energies (N,), forces (N, 3), virial (S, 3, 3) and its shares of atoms (N, 3, 3), all float64; other
    properties by name, (S,) or of atoms (N,)."""

    energy: Tensor
    energies: Tensor
    forces: Tensor | None
    virial: Tensor | None
    virials: Tensor | None
    properties: Mapping[str, Tensor] | None = None


def total_energy(model: Potential, energies: Tensor, graph: Graph) -> Tensor:
    """(N,) atomic energies -> (S,) in float64: the sum, or the mean for an intensive readout."""
    return sum_per_structure(energies, graph) if model.readout == "sum" else mean_per_structure(energies, graph)


@torch_context()
def evaluate(
    model: Potential,
    graph: Graph,
    *,
    forces: bool = True,
    virial: bool = False,
    dtype: torch.dtype | None = None,
    create_graph: bool = False,
    properties: bool = False,
) -> Prediction:
    """Energies, and on request forces, virial and other properties, of all structures of a graph.

    Parameters
    ----------
    model : Potential
    graph : Graph
    dtype : torch.dtype, optional
        What the edge vectors are rounded to after differencing in float64; by default the model's `dtype`.
    create_graph : bool
        Keep what is needed to differentiate the results: training. Otherwise they are detached.
    properties : bool
        Whether those are wanted that the model has `heads` for; there may be none.

    Notes
    -----
    ``torch.inference_mode`` and ``torch.autocast`` around the call make no difference: forces need derivatives, and the
    model has a precision of its own.
    """
    dtype = dtype or model.dtype
    if graph.vectors.is_inference():
        graph = graph.clone()
    if not (forces or virial):
        with torch.set_grad_enabled(create_graph):
            energies, others = _outputs(model, graph, graph.vectors.to(dtype), properties)
            energies = energies[: graph.n_atoms]
            energy = total_energy(model, energies, graph)
            return Prediction(energy, energies.to(torch.float64), None, None, None, others)
    padded, vectors = graph.padded, graph.vectors.detach().to(dtype).requires_grad_()
    with torch.enable_grad():
        energies, others = _outputs(model, graph, vectors, properties)
        g = edge_gradient(model, energies, vectors, graph, create_graph)
        energies = (energies if create_graph else energies.detach())[: graph.n_atoms]
        energy = total_energy(model, energies, graph)
        found, virials = force_virial(g, padded.edges, graph.vectors.detach() if virial else None)
        virials = None if virials is None else virials[: graph.n_atoms]
        total = None if virials is None else total_virial(virials, graph)
    by_atom = found[: graph.n_atoms] if forces else None
    if others is not None and not create_graph:
        others = {name: values.detach() for name, values in others.items()}
    return Prediction(energy, energies.to(torch.float64), by_atom, total, virials, others)


def _outputs(
    model: Potential, graph: Graph, vectors: Tensor, properties: bool
) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Energies of the atoms of `graph.padded`, and on request what the model's heads say of the graph."""
    network: Any = model
    if not properties:
        return model.atomic_energies(graph.padded, vectors), None
    if getattr(network, "heads", None) is None:
        return model.atomic_energies(graph.padded, vectors), {}
    rows, features, pairs = network.atomic_features(graph.padded, vectors)
    return network.read_out(rows, features, pairs), network.heads(rows, features, graph)


def edge_gradient(
    model: Potential, energies: Tensor, vectors: Tensor, graph: Graph, create_graph: bool = False
) -> Tensor:
    """dE/dD (E, 3), from the atomic energies of `graph.padded`; E is what `total_energy` makes of them."""
    if not energies.requires_grad:  # a model whose energy does not depend on the edges
        return torch.zeros_like(vectors)
    share = torch.zeros_like(energies)  # of an atom's energy in E; padding has none
    share[: graph.n_atoms] = 1
    if model.readout != "sum":
        padded = graph.padded
        share = share / sum_per_structure(share, padded).clamp(min=1)[padded.structure]
    (g,) = torch.autograd.grad(energies, vectors, share, create_graph=create_graph, allow_unused=True)
    return torch.zeros_like(vectors) if g is None else g


def total_virial(virials: Tensor, graph: Graph) -> Tensor:
    """(N, 3, 3) virials of atoms -> (S, 3, 3), -sum g x D made symmetric, which equals -dE/d(strain)."""
    return scatter_add(virials.reshape(-1, 9), graph.by_structure, columns=graph.structures).reshape(-1, 3, 3)


def stress(virial: Tensor, cells: Tensor) -> Tensor:
    """(S, 3, 3) stress in energy per volume, positive under tension as in ASE: -virial / volume."""
    volume: Tensor = torch.linalg.det(cells).abs()
    return -virial / volume[:, None, None]
