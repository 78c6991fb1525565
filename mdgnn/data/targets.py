"""What a model is trained on: targets beside a graph, never in it, and batches of the two."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from ase import Atoms
from torch import Tensor

from mdgnn.data.labels import DEFAULT, Keys, labels_of
from mdgnn.graph import Graph


@dataclass(frozen=True)
class Targets:
    """Labels of a batch of S structures with N atoms, float64; NaN where a structure lacks one, None where all do.

    Attributes
    ----------
    energy : (S,), eV or epsilon
    forces : (N, 3), eV/Angstrom or epsilon/sigma
    stress : (S, 3, 3), eV/Angstrom^3 or epsilon/sigma^3
        ASE's sign: positive under tension.
    weight : (S,)
        Of the structures in losses.
    extra : dict
        Other labels by name: of structures (S,), or of atoms (N,) or (N, k).
    config_type : list of str
        Of each structure, "" where it has none.
    """

    energy: Tensor | None
    forces: Tensor | None
    stress: Tensor | None
    weight: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    config_type: list[str] = field(default_factory=list)

    def to(self, device: torch.device | str) -> "Targets":
        energy, forces, stress = (None if x is None else x.to(device) for x in (self.energy, self.forces, self.stress))
        extra = {name: tensor.to(device) for name, tensor in self.extra.items()}
        return Targets(energy, forces, stress, self.weight.to(device), extra, self.config_type)


def targets_of(atoms: Atoms, keys: Keys = DEFAULT) -> Targets:
    """`labels_of` one structure as tensors, which raises the same."""
    labels = labels_of(atoms, keys)
    energy, forces, stress = (
        None if x is None else torch.from_numpy(x) for x in (labels.energy, labels.forces, labels.stress)
    )
    extra = {name: torch.from_numpy(values) for name, values in labels.extra.items()}
    return Targets(energy, forces, stress, torch.from_numpy(labels.weight), extra, [labels.config_type])


class Sample(NamedTuple):
    """A graph and its targets, of one structure or of a batch."""

    graph: Graph
    targets: Targets

    def to(self, device: torch.device | str) -> "Sample":
        return Sample(self.graph.to(device), self.targets.to(device))


def collate(samples: Sequence[Sample]) -> Sample:
    """Join samples into one batch; structures and atoms keep their order.

    Raises
    ------
    ValueError
        For no samples, or an extra label that is one of structures here and of atoms there.
    """
    graphs = [sample.graph for sample in samples]
    targets = [sample.targets for sample in samples]
    extra = {}
    for name in dict.fromkeys(name for t in targets for name in t.extra):
        extra[name] = _join_extra(name, [t.extra.get(name) for t in targets], graphs)
    joined = Targets(
        _join([t.energy for t in targets], [(g.n_structures,) for g in graphs]),
        _join([t.forces for t in targets], [(g.n_atoms, 3) for g in graphs]),
        _join([t.stress for t in targets], [(g.n_structures, 3, 3) for g in graphs]),
        torch.cat([t.weight for t in targets]) if targets else torch.zeros(0, dtype=torch.float64),
        extra,
        [name for t in targets for name in t.config_type],
    )
    return Sample(Graph.batch(graphs), joined)


def _join(parts: list[Tensor | None], shapes: Sequence[tuple[int, ...]]) -> Tensor | None:
    """Concatenate along the first axis, with NaN for what is missing."""
    if all(part is None for part in parts):
        return None
    filled = [
        torch.full(shape, math.nan, dtype=torch.float64) if part is None else part
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return torch.cat(filled)


def _join_extra(name: str, parts: list[Tensor | None], graphs: list[Graph]) -> Any:
    """As `_join`; whether it belongs to structures or atoms shows where there are more atoms than structures."""
    of_atoms = of_structures = False
    columns: set[tuple[int, ...]] = set()
    for part, graph in zip(parts, graphs, strict=True):
        if part is None:
            continue
        columns.add(tuple(part.shape[1:]))
        if graph.n_atoms != graph.n_structures:
            of_atoms |= part.shape[0] == graph.n_atoms
            of_structures |= part.shape[0] == graph.n_structures
    if (of_atoms and of_structures) or len(columns) > 1:
        raise ValueError(f"expected {name!r} to have one shape in all structures, got labels of different shapes")
    tail = columns.pop()
    rows = [graph.n_structures if of_structures or not (of_atoms or tail) else graph.n_atoms for graph in graphs]
    return _join(parts, [(n, *tail) for n in rows])
