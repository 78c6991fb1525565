"""schnetpack's networks as a peer, where they are installed: ``pip install --no-deps schnetpack`` suffices.

The package itself also loads data sets and training, and does not import under torch 2.13: an empty one stands in.
"""

import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from clusters import CUTOFF
from torch import Tensor

from mdgnn import Graph

SPEC = find_spec("schnetpack")


def energy_and_forces_of(name: str, n_features: int, graph: Graph) -> Callable[[], tuple[Tensor, Tensor]]:
    """A call of SchNet or PaiNN, with 3 layers and random weights, on the edges of the graph."""
    assert SPEC is not None and SPEC.submodule_search_locations is not None
    if "schnetpack" not in sys.modules:
        package = ModuleType("schnetpack")
        package.__path__ = list(SPEC.submodule_search_locations)
        sys.modules["schnetpack"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit.script
        representations, parts = import_module("schnetpack.representation"), import_module("schnetpack.nn")
    activation = {"SchNet": parts.shifted_softplus, "PaiNN": torch.nn.functional.silu}[name]
    network = getattr(representations, name)(
        n_features, 3, parts.GaussianRBF(20, CUTOFF), parts.CosineCutoff(CUTOFF), activation=activation
    ).requires_grad_(False)
    readout = parts.build_mlp(n_features, 1, activation=activation).requires_grad_(False)
    receivers, senders = graph.receivers, graph.senders
    vectors = graph.vectors.float()

    def run() -> tuple[Tensor, Tensor]:
        r = vectors.detach().requires_grad_()
        inputs = {"_atomic_numbers": graph.atomic_numbers, "_Rij": r, "_idx_i": receivers, "_idx_j": senders}
        energies = readout(network(inputs)["scalar_representation"]).squeeze(-1)
        (g,) = torch.autograd.grad(energies.sum(), r)
        forces = torch.zeros(graph.n_atoms, 3).index_add(0, receivers, g).index_add(0, senders, -g)
        return energies.detach(), forces

    return run
