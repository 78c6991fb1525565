"""How wrong a model is on a data set: overall, by element and by kind of structure."""

import csv
import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mdgnn.data import Dataset
from mdgnn.potential import Potential, stress
from mdgnn.training.data import Limits, predictions
from mdgnn.training.folder import replace_by, write_json
from mdgnn.training.losses import QUANTITIES

Array = NDArray[np.float64]
ERRORS, TABLE, STRUCTURES = "errors.json", "errors.csv", "structures.csv"


@dataclass(frozen=True)
class Comparison:
    """What is true and what a model says, of S structures with N atoms; NaN where nothing is known.

    Attributes
    ----------
    numbers, structure : (N,) int
        Atomic number, and number of the structure, of each atom.
    n_atoms : (S,) int
    energy : (2, S)
        Truth and prediction; so are `forces` (2, N, 3) and `stress` (2, S, 3, 3), in the model's units.
    config_type : list of str
        Of each structure, "" where it has none.
    """

    numbers: NDArray[np.int64]
    structure: NDArray[np.int64]
    n_atoms: NDArray[np.int64]
    energy: Array
    forces: Array
    stress: Array
    config_type: list[str]

    def pairs(self, quantity: str) -> tuple[Array, Array]:
        """Truth and prediction (n,) of what is known: energies per atom, components of forces and stress."""
        values = self.energy / self.n_atoms if quantity == "energy" else getattr(self, quantity)
        known = ~np.isnan(values[0])
        return values[0][known], values[1][known]

    def of_structures(self, chosen: NDArray[np.bool_]) -> "Comparison":
        """Of some structures."""
        atoms = chosen[self.structure]
        return Comparison(
            self.numbers[atoms],
            (np.cumsum(chosen) - 1)[self.structure[atoms]],
            self.n_atoms[chosen],
            self.energy[:, chosen],
            self.forces[:, atoms],
            self.stress[:, chosen],
            [name for name, take in zip(self.config_type, chosen, strict=True) if take],
        )

    def figures(self) -> dict[str, float]:
        """n_structures, and energy_mae, energy_rmse, forces_mae ... of what is known."""
        result: dict[str, float] = {"n_structures": len(self.n_atoms)}
        for quantity in QUANTITIES:
            result |= _figures(quantity, *self.pairs(quantity))
        return result

    def table(self) -> dict[str, dict[str, float]]:
        """Figures of "all", of each "config_type NAME" where there are several, and forces of each "element X"."""
        rows = {"all": self.figures()}
        names = sorted(set(self.config_type))
        if len(names) > 1:
            for name in names:
                chosen = np.array([c == name for c in self.config_type])
                rows[f"config_type {name or '(none)'}"] = self.of_structures(chosen).figures()
        elements = np.unique(self.numbers)
        for z in elements if len(elements) > 1 else []:
            there, said = self.forces[:, self.numbers == z]
            known = ~np.isnan(there)
            n = len(np.unique(self.structure[self.numbers == z]))
            rows[f"element {chemical_symbols[z]}"] = {
                "n_structures": n,
                **_figures("forces", there[known], said[known]),
            }
        return rows


def _figures(quantity: str, truth: Array, prediction: Array) -> dict[str, float]:
    if not len(truth):
        return {}
    error = prediction - truth
    return {
        f"{quantity}_mae": float(np.abs(error).mean()),
        f"{quantity}_rmse": float(np.sqrt(np.square(error).mean())),
    }


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
    parts: dict[str, list[Any]] = {f.name: [] for f in fields(Comparison)}
    first = 0
    for (graph, targets), found in predictions(model, dataset, limits, device):
        s, n = graph.n_structures, graph.n_atoms
        parts["numbers"].append(graph.atomic_numbers.cpu().numpy())
        parts["structure"].append(graph.structure.cpu().numpy() + first)
        parts["n_atoms"].append(torch.bincount(graph.structure, minlength=s).cpu().numpy())
        parts["energy"].append(_two(targets.energy, found.energy, (s,)))
        parts["forces"].append(_two(targets.forces, found.forces, (n, 3)))
        said = None if found.virial is None or targets.stress is None else stress(found.virial, graph.cells)
        parts["stress"].append(_two(targets.stress, said, (s, 3, 3)))
        parts["config_type"] += targets.config_type
        first += s
    joined = {
        name: np.concatenate(parts[name], axis=1 if name in QUANTITIES else 0)
        for name in parts
        if name != "config_type"
    }
    return Comparison(**joined, config_type=parts["config_type"])


def _two(truth: torch.Tensor | None, prediction: torch.Tensor | None, shape: tuple[int, ...]) -> Array:
    nothing = np.full(shape, np.nan)
    return np.stack([nothing if t is None else t.detach().cpu().numpy() for t in (truth, prediction)])


def write(comparison: Comparison, folder: Path, about: dict[str, Any]) -> None:
    """errors.json, errors.csv (a row for each line of the table) and structures.csv (a row for each structure).

    Parameters
    ----------
    comparison : Comparison
    folder : Path
        Which exists.
    about : dict
        Model, data and units, for the JSON.
    """
    table = comparison.table()
    write_json(folder / ERRORS, {**about, "errors": table})
    columns = ["n_structures", *(f"{q}_{kind}" for q in QUANTITIES for kind in ("mae", "rmse"))]
    rows = [[name, *(_text(row.get(c)) for c in columns)] for name, row in table.items()]
    replace_by(folder / TABLE, _csv([["group", *columns], *rows]))
    squares = np.square(comparison.forces[1] - comparison.forces[0]).sum(1)
    sums = np.bincount(comparison.structure, squares, minlength=len(comparison.n_atoms))
    rmse = np.sqrt(sums / (3 * comparison.n_atoms))
    lines = zip(comparison.config_type, comparison.n_atoms, *comparison.energy, rmse, strict=True)
    header = ["structure", "config_type", "n_atoms", "energy", "predicted_energy", "forces_rmse"]
    replace_by(
        folder / STRUCTURES, _csv([header, *([k, name, n, *map(_text, x)] for k, (name, n, *x) in enumerate(lines))])
    )


def _text(value: float | None) -> str:
    return "" if value is None or value != value else repr(value if isinstance(value, int) else float(value))


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
