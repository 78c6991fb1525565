"""What the pictures of a run of training show, and how they are labelled."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mdgnn.plots import Drawing
from mdgnn.plots import training as pictures
from mdgnn.properties import Property

if TYPE_CHECKING:
    from mdgnn.potential import Potential

Array = NDArray[np.float64]
LEARNING, DIMERS = "learning.png", "dimers.png"
NAMES = {"energy": "energy per atom", "forces": "force component", "stress": "stress component"}
MOST_CURVES = 10


def unit_of(quantity: str, units: str) -> str:
    """Of energy per atom, forces and stress, as it is written in pictures and tables; "" of what has its own."""
    energy, length = ("ε", "σ") if units == "lj" else ("eV", "Å")
    return {"energy": energy, "forces": f"{energy}/{length}", "stress": f"{energy}/{length}³"}.get(quantity, "")


def names_of(properties: Sequence[Property]) -> dict[str, str]:
    """What is written of each quantity, properties included."""
    return {**NAMES, **{p.name: f"{p.name} per atom" if p.kind == "extensive" else p.name for p in properties}}


def learning(rows: Sequence[Mapping[str, str]], units: str, names: Mapping[str, str] = NAMES) -> Drawing:
    """Losses, errors of the quantities, and learning rate against the epoch, from the rows of a log."""
    columns = {name: np.array([float(row[name]) if row[name] else np.nan for row in rows]) for name in rows[0]}
    known = [n.removesuffix("_mae") for n in columns if n.endswith("_mae") and np.isfinite(columns[n]).any()]
    labels = {q: f"{names[q]} ({unit_of(q, units)})" if unit_of(q, units) else names[q] for q in known}
    return partial(pictures.plot_learning, columns=columns, errors=labels)


def parity(pairs: Mapping[str, tuple[Array, Array]], units: str, names: Mapping[str, str] = NAMES) -> Drawing:
    """Predictions against the truth, by quantity; above each, its RMSE."""
    shown = {name: pair for name, pair in pairs.items() if len(pair[0])}
    return pictures.parity([pictures.pairs(*pair, names[name], unit_of(name, units)) for name, pair in shown.items()])


def dimer_curve(model: "Potential", pair: tuple[int, int], distances: Array) -> Array:
    """(n,) energies of two atoms at distances, less those of the atoms alone."""
    import torch

    from mdgnn.graph import Graph
    from mdgnn.potential import evaluate

    dimers = [Atoms(numbers=pair, positions=[[0, 0, 0], [r, 0, 0]]) for r in distances]
    alone = [Atoms(numbers=[z]) for z in pair]
    with torch.no_grad():
        energy = evaluate(model, Graph.from_atoms([*dimers, *alone], model.cutoff), forces=False).energy.numpy()
    result: Array = energy[: len(dimers)] - energy[len(dimers) :].sum()
    return result


def dimers(model: "Potential") -> Drawing:
    """Energy against distance for pairs of the model's elements, at most ten of them, down to somewhat below the
    shortest distance in the training data, which is marked."""
    known = model.config.elements
    elements = known if isinstance(known, tuple) else [18]
    pairs = list(itertools.islice(itertools.combinations_with_replacement(elements, 2), MOST_CURVES))
    far = model.cutoff if np.isfinite(model.cutoff) else 4 * max(model.min_distance, 1.0)
    near = 0.9 * model.min_distance if 0 < model.min_distance < far else 0.3 * far
    r = np.linspace(near, 1.05 * far, 300)
    curves = {}
    for pair in pairs:
        symbols = "-".join(chemical_symbols[z] for z in pair) if isinstance(known, tuple) else "any two atoms"
        curves[symbols] = dimer_curve(model, pair, r)
    energy_unit, length = ("ε", "σ") if model.units == "lj" else ("eV", "Å")
    return partial(
        pictures.plot_dimers, r=r, curves=curves, energy_unit=energy_unit, length_unit=length,
        nearest=model.min_distance,
    )  # fmt: skip
