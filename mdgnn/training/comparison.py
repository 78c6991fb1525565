"""How wrong predictions are: overall, by element and by kind of structure. Without torch."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from mdgnn.data.labels import QUANTITIES, Keys, labels_of
from mdgnn.training.folder import replace_by, write_json

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
    properties : dict
        Truth and prediction of other properties by name, (2, S), or (2, N) of an atomic one, in their own units.
    kinds : dict of str
        Of these: "extensive", "intensive" or "atomic".
    """

    numbers: NDArray[np.int64]
    structure: NDArray[np.int64]
    n_atoms: NDArray[np.int64]
    energy: Array
    forces: Array
    stress: Array
    config_type: list[str]
    properties: dict[str, Array] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def pairs(self, quantity: str) -> tuple[Array, Array]:
        """Truth and prediction (n,) of what is known: energies and extensive properties per atom, components of forces
        and stress, other properties as they are."""
        values = self.properties[quantity] if quantity in self.properties else getattr(self, quantity)
        if quantity == "energy" or self.kinds.get(quantity) == "extensive":
            values = values / self.n_atoms
        known = ~np.isnan(values[0])
        return values[0][known], values[1][known]

    def all_pairs(self) -> dict[str, tuple[Array, Array]]:
        """`pairs` of all quantities."""
        return {quantity: self.pairs(quantity) for quantity in (*QUANTITIES, *self.properties)}

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
            {n: x[:, atoms if self.kinds[n] == "atomic" else chosen] for n, x in self.properties.items()},
            self.kinds,
        )

    def figures(self) -> dict[str, float]:
        """n_structures, and energy_mae, energy_rmse, forces_mae ... of what is known."""
        result: dict[str, float] = {"n_structures": len(self.n_atoms)}
        for quantity, pair in self.all_pairs().items():
            result |= _figures(quantity, *pair)
        return result

    def table(self) -> dict[str, dict[str, float]]:
        """Figures of "all", of each "config_type NAME" where there are several, and forces and atomic properties of
        each "element X"."""
        rows = {"all": self.figures()}
        names = sorted(set(self.config_type))
        if len(names) > 1:
            for name in names:
                chosen = np.array([c == name for c in self.config_type])
                rows[f"config_type {name or '(none)'}"] = self.of_structures(chosen).figures()
        elements = np.unique(self.numbers)
        of_atoms = {"forces": self.forces, **{n: x for n, x in self.properties.items() if self.kinds[n] == "atomic"}}
        for z in elements if len(elements) > 1 else []:
            row: dict[str, float] = {"n_structures": len(np.unique(self.structure[self.numbers == z]))}
            for quantity, values in of_atoms.items():
                there, said = values[:, self.numbers == z]
                known = ~np.isnan(there)
                row |= _figures(quantity, there[known], said[known])
            rows[f"element {chemical_symbols[z]}"] = row
        return rows


def _figures(quantity: str, truth: Array, prediction: Array) -> dict[str, float]:
    if not len(truth):
        return {}
    error = prediction - truth
    return {
        f"{quantity}_mae": float(np.abs(error).mean()),
        f"{quantity}_rmse": float(np.sqrt(np.square(error).mean())),
    }


def compare_frames(
    predict: Callable[[Atoms, bool, bool], dict[str, Any]],
    kinds: Mapping[str, str],
    frames: Sequence[Atoms],
    keys: Keys,
) -> Comparison:
    """Errors of energies, forces, stress and other properties on labelled structures.

    Parameters
    ----------
    predict : callable
        `MDGNNCalculator.compute`: of atoms, and whether with stress and with other properties.
    kinds : mapping of str
        "extensive", "intensive" or "atomic" of the model's other properties, by name.
    frames : sequence of ase.Atoms
        From `read_frames`.
    keys : Keys

    Raises
    ------
    ValueError
        If there are no structures, or one has an element that the model does not know.
    """
    if not len(frames):
        raise ValueError("expected structures to evaluate, got none")
    counts = np.array([len(atoms) for atoms in frames])
    ends = np.cumsum(counts)
    energy, forces = np.full((2, len(counts)), np.nan), np.full((2, int(ends[-1]), 3), np.nan)
    stress, config_type = np.full((2, len(counts), 3, 3), np.nan), list[str]()
    others = {name: np.full((2, int(ends[-1]) if kinds[name] == "atomic" else len(counts)), np.nan) for name in kinds}
    for k, end in enumerate(ends):
        atoms, of_atoms = frames[k], slice(end - counts[k], end)
        labels = labels_of(atoms, keys)
        try:
            said = predict(atoms, labels.stress is not None, bool(kinds))
        except ValueError as error:
            raise ValueError(f"structure {k}: {error}") from None
        config_type.append(labels.config_type)
        if "energy" in said:  # a model may have learnt other properties alone
            energy[1, k], forces[1, of_atoms] = said["energy"], said["forces"]
        for name, values in others.items():
            place = of_atoms if kinds[name] == "atomic" else slice(k, k + 1)
            values[1, place] = said[name]
            if name in labels.extra:
                values[0, place] = labels.extra[name]
        if labels.energy is not None:
            energy[0, k] = labels.energy[0]
        if labels.forces is not None:
            forces[0, of_atoms] = labels.forces
        if labels.stress is not None:
            stress[0, k], stress[1, k] = labels.stress[0], voigt_6_to_full_3x3_stress(said["stress"])
    numbers = np.concatenate([frames[k].numbers for k in range(len(counts))])
    structure = np.repeat(np.arange(len(counts)), counts)
    return Comparison(numbers, structure, counts, energy, forces, stress, config_type, others, dict(kinds))


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
    quantities = (*QUANTITIES, *comparison.properties)
    columns = ["n_structures", *(f"{q}_{kind}" for q in quantities for kind in ("mae", "rmse"))]
    rows = [[name, *(_text(row.get(c)) for c in columns)] for name, row in table.items()]
    replace_by(folder / TABLE, _csv([["group", *columns], *rows]))
    squares = np.square(comparison.forces[1] - comparison.forces[0]).sum(1)
    sums = np.bincount(comparison.structure, squares, minlength=len(comparison.n_atoms))
    rmse = np.sqrt(sums / (3 * comparison.n_atoms))
    of_structures = {n: x for n, x in comparison.properties.items() if comparison.kinds[n] != "atomic"}
    lines = zip(
        *(comparison.config_type, comparison.n_atoms, *comparison.energy, rmse),
        *(row for values in of_structures.values() for row in values),
        strict=True,
    )
    header = ["structure", "config_type", "n_atoms", "energy", "predicted_energy", "forces_rmse"]
    header += [name for n in of_structures for name in (n, f"predicted_{n}")]
    replace_by(
        folder / STRUCTURES, _csv([header, *([k, name, n, *map(_text, x)] for k, (name, n, *x) in enumerate(lines))])
    )


def _text(value: float | None) -> str:
    return "" if value is None or value != value else repr(value if isinstance(value, int) else float(value))


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
