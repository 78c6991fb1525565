"""What a network need not learn of a property: its mean by element or by composition, and its spread."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdgnn.data import Dataset
from mdgnn.nn import Property
from mdgnn.training.sections import PropertySection

Array = NDArray[np.float64]
ROUNDING = 1e-12  # of numbers beside what they were subtracted from


class Labels(NamedTuple):
    """Numbers (n,) and what atoms each belongs to: how many of each element (n, elements)."""

    values: Array
    counts: Array


def summarize_properties(
    dataset: Dataset, sections: Sequence[PropertySection], elements: Sequence[int], one_kind: bool
) -> list[Property]:
    """Look at every structure once; those without a weight do not count.

    Parameters
    ----------
    dataset : Dataset
        The training set, with a number for each of the properties in some structure with a weight.
    sections : sequence of PropertySection
    elements : sequence of int
        Of the model.
    one_kind : bool
        All atoms are alike to it.
    """
    parts: dict[str, list[tuple[Array, Array]]] = {section.name: [] for section in sections}
    for k in range(len(dataset) if sections else 0):
        graph, targets = dataset[k]
        if not targets.weight > 0:
            continue
        kinds = graph.atomic_numbers.numpy()[:, None] == np.asarray(elements)
        kinds = kinds.any(1, keepdims=True) if one_kind else kinds
        for section in sections:
            counts = kinds if section.kind == "atomic" else kinds.sum(0, keepdims=True)
            parts[section.name].append((targets.extra[section.name].numpy(), counts.astype(np.float64)))
    properties = []
    for section in sections:
        values, counts = map(np.concatenate, zip(*parts[section.name], strict=True))
        known = ~np.isnan(values)
        properties.append(standardize(section.name, section.kind, Labels(values[known], counts[known])))
    return properties


def standardize(name: str, kind: str, labels: Labels) -> Property:
    """The property with shift and scale that leave the network numbers of size one.

    Parameters
    ----------
    name, kind : str
    labels : Labels
        At least one.
    """
    values, counts = labels
    whole = values / counts.sum(1) if kind == "extensive" else values
    if kind == "intensive":
        shift = np.array([values.mean()])
        rest = values - shift
    elif kind == "extensive":
        shift = np.linalg.lstsq(counts, values, rcond=None)[0]
        rest = (values - counts @ shift) / counts.sum(1)
    else:
        n = counts.sum(0)
        shift = np.where(n > 0, counts.T @ values / np.maximum(n, 1), values.mean())  # of elements without any
        rest = values - counts @ shift
    return Property(name, kind, [float(x) for x in shift], _size(rest, whole))


def _size(rest: Array, whole: Array) -> float:
    """Root mean square of what is left; where that is but rounding, of all there was; where that is zero, 1."""
    left, there = (math.sqrt(float(np.square(x).mean())) for x in (rest, whole))
    return left if left > ROUNDING * there else there or 1.0
