"""How wrong a model is on a data set."""

from typing import Any

import numpy as np
import torch

from mdgnn.data import Dataset
from mdgnn.data.labels import QUANTITIES
from mdgnn.potential import Potential, stress
from mdgnn.training.comparison import Array, Comparison
from mdgnn.training.data import Limits, predictions, properties_of


def compare(
    model: Potential,
    dataset: Dataset,
    limits: Limits = Limits(),  # noqa: B008
    device: torch.device | str = "cpu",
) -> Comparison:
    """Evaluate a model on all structures of a data set, a batch at a time.

    Raises
    ------
    ValueError
        If the data set is empty, or has an element that the model does not know.
    """
    if not len(dataset):
        raise ValueError("expected structures to evaluate, got none")
    kinds = {p.name: p.kind for p in properties_of(model)}
    names = ("numbers", "structure", "n_atoms", *QUANTITIES, *kinds)
    parts: dict[str, list[Any]] = {name: [] for name in names}
    config_type: list[str] = []
    first = 0
    for (graph, targets), prediction in predictions(model, dataset, limits, device):
        s, n = graph.n_structures, graph.n_atoms
        parts["numbers"].append(graph.atomic_numbers.cpu().numpy())
        parts["structure"].append(graph.structure.cpu().numpy() + first)
        parts["n_atoms"].append(torch.bincount(graph.structure, minlength=s).cpu().numpy())
        said = prediction.energy if model.has_energy else None
        parts["energy"].append(_two(targets.energy, said, (s,)))
        parts["forces"].append(_two(targets.forces, prediction.forces, (n, 3)))
        said = None if prediction.virial is None or targets.stress is None else stress(prediction.virial, graph.cells)
        parts["stress"].append(_two(targets.stress, said, (s, 3, 3)))
        for name, kind in kinds.items():
            assert prediction.properties is not None
            parts[name].append(
                _two(targets.extra.get(name), prediction.properties[name], (n if kind == "atomic" else s,))
            )
        config_type += targets.config_type
        first += s
    paired = {*QUANTITIES, *kinds}
    joined: dict[str, Any] = {name: np.concatenate(parts[name], axis=int(name in paired)) for name in parts}
    properties = {name: joined.pop(name) for name in kinds}
    return Comparison(**joined, config_type=config_type, properties=properties, kinds=kinds)


def _two(truth: torch.Tensor | None, prediction: torch.Tensor | None, shape: tuple[int, ...]) -> Array:
    nothing = np.full(shape, np.nan)
    return np.stack([nothing if t is None else t.detach().cpu().numpy() for t in (truth, prediction)])
