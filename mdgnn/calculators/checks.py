"""Sentences about atoms that a model cannot treat, and results that are none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError

from mdgnn.model_header import ModelInfo
from mdgnn.neighbors import Edges

COINCIDENT = 1e-8  # closer atoms are at one place: images differ by rounding


def check_atoms(atoms: Atoms, model: ModelInfo) -> None:
    """Raise a ValueError that names the first atom a model cannot treat."""
    if len(atoms) == 0:
        raise ValueError("expected at least one atom, got an empty Atoms object")
    if not np.isfinite(atoms.positions).all():
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1))
        raise ValueError(f"expected finite positions, got {atoms.positions[bad[0]].tolist()} for atom {bad[0]}")
    if not np.isfinite(atoms.cell.array).all():
        raise ValueError(f"expected a finite cell, got {atoms.cell.array.tolist()}")
    for axis in np.flatnonzero(atoms.pbc):
        if not atoms.cell.array[axis].any():
            raise ValueError(
                f"expected a cell vector on periodic axis {axis}, got a zero vector; set pbc to False if it has none"
            )
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) and np.linalg.matrix_rank(periodic) < len(periodic):
        raise ValueError(
            f"expected different directions of periodic cell vectors, got a singular cell {periodic.tolist()}"
        )
    numbers, symbols = atoms.numbers, atoms.symbols
    if model.elements == "any":
        other = np.flatnonzero(numbers != numbers[0])
        if len(other):
            raise ValueError(
                "this model takes a single species as its particle, "
                f"got {symbols[0]} for atom 0 and {symbols[other[0]]} for atom {other[0]}"
            )
        return
    known = list(model.elements)
    unknown = np.flatnonzero(~np.isin(numbers, known))
    if len(unknown):
        names = ", ".join(Atoms(numbers=known).get_chemical_symbols())
        raise ValueError(
            f"the model knows the elements {names}; atom {unknown[0]} is {symbols[unknown[0]]} "
            f"(atomic number {numbers[unknown[0]]})"
        )


def has_volume(atoms: Atoms) -> bool:
    return bool(abs(np.linalg.det(atoms.cell.array)) > 0)


def volume_of(atoms: Atoms) -> float:
    """Raise a PropertyNotImplementedError unless the cell has a volume, for stress."""
    volume = float(abs(np.linalg.det(atoms.cell.array)))
    if not volume > 0:
        raise PropertyNotImplementedError("stress needs a cell with a positive volume; this one has none")
    return volume


def check_distances(edges: Edges, least: float) -> str:
    """Raise a ValueError that names two atoms at one place; a sentence where two are closer than `least`, else ""."""
    if not len(edges.distances) or edges.distances.min() >= max(least, COINCIDENT):
        return ""
    e = int(edges.distances.argmin())
    i = int(np.searchsorted(edges.row_ptr, e, side="right")) - 1
    j, distance = edges.senders[e], edges.distances[e]
    if distance < COINCIDENT:
        raise ValueError(f"expected atoms at different places, but atoms {i} and {j} coincide")
    return f"atoms {i} and {j} are {distance:.3g} apart, closer than any in the model's training data ({least:.3g})"


def check_distances_of_batch(edges: Edges, structures: Sequence[Atoms], least: float, first: int) -> str:
    """`check_distances` of each structure, which the sentence numbers from `first` on; that of the first too close."""
    if not len(edges.distances) or edges.distances.min() >= max(least, COINCIDENT):
        return ""
    end, told = 0, ""
    for number, atoms in enumerate(structures, first):
        begin, end = end, end + len(atoms)
        rows = edges.row_ptr[begin : end + 1]
        own = slice(rows[0], rows[-1])
        try:
            sentence = check_distances(
                edges._replace(
                    row_ptr=rows - rows[0], senders=edges.senders[own] - begin, distances=edges.distances[own]
                ),
                least,
            )
        except ValueError as error:
            raise ValueError(f"structure {number}: {error}") from None
        told = told or (sentence and f"structure {number}: {sentence}")
    return told


def raise_for_results(results: dict[str, Any]) -> None:
    """Raise a CalculatorError that says which result is not finite: nothing must go on from there."""
    for name, value in results.items():
        if not np.isfinite(value).all():
            where = ""
            if np.ndim(value) and name != "stress":
                rows = np.isfinite(np.reshape(value, (len(value), -1))).all(axis=1)
                where = f" for atom {int(np.flatnonzero(~rows)[0])}"
            raise CalculatorError(f"the model returned {name} that are not finite{where}; atoms may be too close")
