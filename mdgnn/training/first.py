"""What a model says of the data before it is trained: how a new one is given their size, and whether one is far off."""

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mdgnn.data import Dataset
from mdgnn.potential import Potential
from mdgnn.training.config import Config
from mdgnn.training.data import Limits, predictions
from mdgnn.training.references import rest_of
from mdgnn.training.schedules import last_weight
from mdgnn.training.suspects import ENERGY_UNITS

Array = NDArray[np.float64]
LOOKED_AT = 64  # structures
ABSURD = 100.0  # times the size of the labels


class First(NamedTuple):
    """Of structures of these numbers (S,): true and predicted energies per atom (2, S); root mean squares of components
    of true and predicted forces and of their errors (3, S); compositions (S, elements); weights (S,). NaN where nothing
    is known."""

    numbers: Sequence[int]
    energies: Array
    forces: Array
    counts: Array
    weights: Array


def first_of(model: Potential, dataset: Dataset, config: Config, numbers: Sequence[int] | None = None) -> First:
    """Look at structures of these numbers, or at some all over the data set."""
    if numbers is None:
        n = len(dataset)
        numbers = sorted({round(k) for k in np.linspace(0, n - 1, min(n, LOOKED_AT))})
    model = copy.deepcopy(model).requires_grad_(False)  # whose tables are kept
    limits = Limits(max_edges=min(Limits().max_edges, config.data.max_edges))
    parts: list[tuple[Array, ...]] = []
    for (graph, targets), prediction in predictions(model, dataset.subset(list(numbers)), limits):
        n_atoms = torch.bincount(graph.structure, minlength=graph.n_structures)
        nothing = torch.full((graph.n_structures,), math.nan, dtype=torch.float64)
        energies = [nothing if e is None else e / n_atoms for e in (targets.energy, prediction.energy)]
        forces = [nothing] * 3
        if targets.forces is not None and prediction.forces is not None:
            each = targets.forces, prediction.forces, prediction.forces - targets.forces
            square = torch.stack([f.square().mean(1) for f in each], dim=1)
            mean = square.new_zeros(graph.n_structures, 3).index_add(0, graph.structure, square) / n_atoms[:, None]
            forces = list(mean.sqrt().unbind(1))
        kinds = (graph.atomic_numbers[:, None] == torch.tensor(dataset.elements)).double()
        counts = kinds.new_zeros(graph.n_structures, kinds.shape[1]).index_add(0, graph.structure, kinds)
        columns = torch.stack([*energies, *forces]), counts.t(), targets.weight[None]
        parts.append(tuple(column.numpy() for column in columns))
    labels, table, weights = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
    return First(numbers, labels[:2], labels[2:], table.T, weights[0])


def calibrate(model: Potential, dataset: Dataset, config: Config) -> None:
    """Let the energies and forces of a new network begin with the size that those of the data have, by its last Linear.

    As drawn, energies are off by the size of forces or so, often ten or a hundred times what energies per atom differ
    by. The Linear is made smaller where it says more than the data, never larger, and its bias brings the median of the
    errors to zero. Medians over structures count, which neither repulsion where atoms nearly touch nor a wrong label
    moves.
    """
    linears = [m for m in model.output_mlp.modules() if isinstance(m, torch.nn.Linear)]
    if not linears:
        return
    seen, last = first_of(model, dataset, config), linears[-1]
    known = np.isfinite(seen.energies).all(0) & (seen.weights > 0)
    true, predicted, counts = seen.energies[0, known], seen.energies[1, known], seen.counts[known]
    ratios = [1.0]
    if len(true) > 2 * counts.shape[1]:
        shift = model.elements.shift[model.elements.types(torch.tensor(dataset.elements))].numpy()
        shares = counts / counts.sum(1, keepdims=True)
        ratios.append(_ratio(np.abs(rest_of(shares, true)), _from_median(predicted - shares @ shift)))
    with_forces = np.isfinite(seen.forces).all(0) & (seen.weights > 0)
    ratios.append(_ratio(seen.forces[0, with_forces], seen.forces[1, with_forces]))
    with torch.no_grad():
        last.weight.mul_(min(ratios))
        last.bias.mul_(min(ratios))
        true, predicted = first_of(model, dataset, config).energies[:, known]
        if len(true):
            last.bias.sub_(float(np.median(predicted - true)) / float(model.elements.scale[-1]))


def _from_median(values: Array) -> Array:
    return np.asarray(np.abs(values - np.median(values)))


def _ratio(a: Array, b: Array) -> float:
    """Of the medians; 1 where one of them says nothing."""
    if not len(a):
        return 1.0
    above, below = float(np.median(a)), float(np.median(b))
    return above / below if above > 0 and 0 < below < math.inf else 1.0


def absurd(model: Potential, dataset: Dataset, config: Config, statistics: dict[str, Any]) -> str:
    """A sentence about a model that is further off, before it is trained, than any sound one, or "".

    Parameters
    ----------
    statistics : dict
        What `build` has found out about the data.
    """
    seen = first_of(model, dataset, config)
    off, size = _errors(seen), _sizes(seen)
    largest = {"energy": max(size.values()), "forces": size["forces"]}  # of one unit of length times a force
    sound = all(not largest[name] or not off[name] > ABSURD * largest[name] for name in _learnt(config))
    return "" if sound else _sentence(seen, model, dataset, config, statistics)


def about(
    model: Potential, dataset: Dataset, config: Config, statistics: dict[str, Any], numbers: Sequence[int]
) -> str:
    """A sentence about how far off a model is of these structures before it is trained, and why that may be."""
    return _sentence(first_of(model, dataset, config, numbers), model, dataset, config, statistics)


def _sentence(seen: First, model: Potential, dataset: Dataset, config: Config, statistics: dict[str, Any]) -> str:
    off, size = _errors(seen), _sizes(seen)
    energy_unit, force_unit = ENERGY_UNITS[model.units]
    said = {
        "energy": f"energies are {off['energy']:.3g} {energy_unit} per atom off, where labels differ by "
        f"{size['energy']:.3g}",
        "forces": f"forces are {off['forces']:.3g} {force_unit} off, where labels are {size['forces']:.3g}",
    }
    known = [name for name in _learnt(config) if not math.isnan(off[name])]
    if not known:  # of properties alone
        return "what the model begins with or a label is amiss"
    true, *_, error = seen.forces
    if known[0] == "energy":
        true, error = seen.energies[0], seen.energies[1] - seen.energies[0]
    error = np.where(np.isnan(true), -1.0, np.where(np.isfinite(error), np.abs(error), math.inf))
    file, number = dataset.place(int(seen.numbers[int(error.argmax())]))
    return (
        f"before any training {' and '.join(said[name] for name in known)} (root mean squares); furthest off is "
        f"{f'{file}, ' if file else ''}frame {number}. {_reason(model, config, statistics)}"
    )


def _learnt(config: Config) -> list[str]:
    return [name for name in ("energy", "forces") if last_weight(getattr(config.loss, name))]


def _errors(seen: First) -> dict[str, float]:
    """Root mean squares; infinite where one is not finite, NaN where nothing is known."""
    energies, forces = seen.energies[1] - seen.energies[0], seen.forces[2]
    energy = _rms(energies, np.isfinite(seen.energies[0]), seen.weights)
    return {"energy": energy, "forces": _rms(forces, np.isfinite(seen.forces[0]), seen.weights)}


def _sizes(seen: First) -> dict[str, float]:
    """Of what has to be learnt: root mean squares of forces, and of what compositions leave of energies per atom."""
    known = np.isfinite(seen.energies[0]) & (seen.weights > 0)
    rest = seen.energies[0].copy()
    if known.any():
        rest[known] = rest_of(seen.counts[known] / seen.counts[known].sum(1, keepdims=True), rest[known])
    sizes = {"energy": rest, "forces": seen.forces[0]}
    result = {name: _rms(values, np.isfinite(values), seen.weights) for name, values in sizes.items()}
    return {name: 0.0 if math.isnan(value) else value for name, value in result.items()}


def _rms(values: Array, known: NDArray[np.bool_], weights: Array) -> float:
    known = known & (weights > 0)
    if not known.any():
        return math.nan
    with np.errstate(over="ignore"):
        square = float(np.average(np.square(values[known]), weights=weights[known]))
    return math.sqrt(square) if math.isfinite(square) else math.inf


def _reason(model: Potential, config: Config, statistics: dict[str, Any]) -> str:
    if config.model.start is not None:
        return f"Are energies and units of {config.model.start!r} those of the data?"
    options, section, given = model.config, config.model, []
    if "mean_neighbours" in section.options:
        of_data = f"the data have {statistics['mean_neighbours']:.4g}"
        given.append(f"mean_neighbours = {section.options['mean_neighbours']:g} ({of_data})")
    if options.repulsion:
        given.append(f"repulsion = {options.repulsion:g} (the least distance is {options.min_distance:.4g})")
    if section.scale != "rms_force":
        given.append(f"scale = {section.scale:g} (the root mean square of forces is {statistics['rms_force']:.4g})")
    if section.references != "least_squares":
        given.append(f"references = {section.references!r}")
    if given:
        return f"Does {' or '.join(given)} under [model] suit the data?"
    return "Are its labels right, or do its atoms nearly coincide?"
