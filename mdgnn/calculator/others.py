"""Properties beside the energy, as results for ASE."""

from typing import Any

import numpy as np
import torch

from mdgnn.graph import Graph
from mdgnn.models import Model
from mdgnn.potential import evaluate


def others_of(model: Model, graph: Graph, dtype: torch.dtype) -> list[dict[str, Any]]:
    """By name, of each structure: a number, or (N,) of an atomic property; nothing of a model without any."""
    results: list[dict[str, Any]] = [{} for _ in range(graph.n_structures)]
    if model.heads is None:
        return results
    found = evaluate(model, graph, forces=False, dtype=dtype, properties=True).properties
    assert found is not None
    ends = torch.bincount(graph.structure, minlength=graph.n_structures).cumsum(0)[:-1].cpu().numpy()
    for p in model.heads.properties:
        values = found[p.name].cpu().numpy()
        parts = np.split(values, ends) if p.kind == "atomic" else values.tolist()
        for one, value in zip(results, parts, strict=True):
            one[p.name] = value
    return results
