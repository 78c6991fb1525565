"""Errors of a prediction against its targets: the loss of training, and the sums that MAE and RMSE follow from."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mdgnn.data import Targets
from mdgnn.data.labels import QUANTITIES
from mdgnn.graph import Graph
from mdgnn.nn import Property
from mdgnn.potential import Prediction, stress


class Errors(NamedTuple):
    """Of one quantity: errors (n,) float64 where there is a target, the weight of each one's structure (n,), and what
    the loss takes as one unit of them."""

    errors: Tensor
    weight: Tensor
    unit: float = 1.0


def errors_of(
    prediction: Prediction, graph: Graph, targets: Targets, properties: Sequence[Property] = ()
) -> dict[str, Errors]:
    """Errors of energy per atom, of the components of forces and stress, and of properties (extensive ones per atom),
    as far as there are both.

    Targets that are NaN do not count: neither they nor, in the derivative, what was predicted for them.
    """
    result: dict[str, Errors] = {}
    n_atoms = torch.bincount(graph.structure, minlength=graph.n_structures).clamp(min=1)
    if targets.energy is not None:
        result["energy"] = _known((prediction.energy - targets.energy) / n_atoms, targets.energy, targets.weight)
    if targets.forces is not None and prediction.forces is not None:
        weight = targets.weight[graph.structure][:, None].expand(-1, 3)
        result["forces"] = _known(prediction.forces - targets.forces, targets.forces, weight)
    if targets.stress is not None and prediction.virial is not None:
        periodic = ~targets.stress.isnan().any(2).any(1)  # others may have no volume
        target, weight = targets.stress[periodic], targets.weight[periodic][:, None, None].expand(-1, 3, 3)
        result["stress"] = _known(stress(prediction.virial[periodic], graph.cells[periodic]) - target, target, weight)
    for p in properties:
        if prediction.properties is None or p.name not in targets.extra:
            continue
        target = targets.extra[p.name]
        error = prediction.properties[p.name] - target
        weight = targets.weight[graph.structure] if p.kind == "atomic" else targets.weight
        error = error / n_atoms if p.kind == "extensive" else error
        result[p.name] = _known(error, target, weight)._replace(unit=p.scale)
    return result


def _known(errors: Tensor, targets: Tensor, weight: Tensor) -> Errors:
    known = ~targets.isnan()
    return Errors(errors[known], weight[known])


def penalty(errors: Tensor, kind: str, delta: float) -> Tensor:
    """Of each error: its square, its size, or Huber's, which is e^2 / 2 up to delta, then delta (|e| - delta / 2)."""
    if kind == "mse":
        return errors.square()
    if kind == "mae":
        return errors.abs()
    return F.huber_loss(errors, torch.zeros_like(errors), reduction="none", delta=delta)


class Sums:
    """Count, sums of weights w, of w |e|, w e^2 and w times the penalty, by quantity; what several processes add up.

    Parameters
    ----------
    kind : "mse", "mae" or "huber"
    delta : float
        Of Huber's.
    names : sequence of str
        The quantities.
    """

    def __init__(self, kind: str = "mse", delta: float = 1.0, names: Sequence[str] = QUANTITIES):
        self.kind, self.delta, self.names = kind, delta, tuple(names)
        self.table = torch.zeros(len(self.names), 5, dtype=torch.float64)

    def add(self, errors: Mapping[str, Errors]) -> None:
        """Errors of a batch."""
        for row, name in enumerate(self.names):
            if name in errors:
                e, w = errors[name].errors.detach(), errors[name].weight
                loss = (w * penalty(e / errors[name].unit, self.kind, self.delta)).sum()
                n = torch.tensor(float(e.numel()), dtype=torch.float64, device=e.device)
                sums = [n, w.sum(), (w * e.abs()).sum(), (w * e.square()).sum(), loss]
                self.table[row] += torch.stack(sums).cpu()

    def figures(self) -> dict[str, float]:
        """energy_mae, energy_rmse ... (weighted means) of quantities with targets that weigh, in their own units."""
        result = {}
        for name, (_, weight, absolute, square, _) in zip(self.names, self.table.tolist(), strict=True):
            if weight:
                result[f"{name}_mae"], result[f"{name}_rmse"] = absolute / weight, math.sqrt(square / weight)
        return result

    def loss(self, weights: Mapping[str, float]) -> float:
        """The weighted sum of mean penalties, over counts as in `loss_of`, since a structure's weight is absolute."""
        rows = dict(zip(self.names, self.table.tolist(), strict=True))
        return float(sum(w * rows[name][4] / rows[name][0] for name, w in weights.items() if w and rows[name][0]))


def loss_of(
    errors: Mapping[str, Errors], weights: Mapping[str, float], counts: Mapping[str, float], kind: str, delta: float
) -> Tensor:
    """The weighted sum over quantities of (sum of penalties, times structures' weights) / count.

    The counts are given, since those of a batch that several processes share are not what one of them sees.
    Zero, without a derivative, where nothing with a weight has a target.
    """
    terms = [
        weights[name] / counts[name] * (e.weight * penalty(e.errors / e.unit, kind, delta)).sum()
        for name, e in errors.items()
        if weights.get(name) and counts.get(name)
    ]
    return torch.stack(terms).sum() if terms else torch.zeros((), dtype=torch.float64)
