"""The system of a run: atoms with a calculator, and the units that it works in."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.io.jsonio import encode

from mdgnn._internal.warn_user import warn_user
from mdgnn.calculators.checks import check_atoms
from mdgnn.calculators.ensemble import Ensemble
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.data.density import check_density, check_reduced_density
from mdgnn.dynamics.arrays_and_info import remove_stale
from mdgnn.dynamics.constraints import to_records
from mdgnn.dynamics.units import LJ, METAL, UnitSystem, units_of
from mdgnn.locate import locate, pretrained_names
from mdgnn.model_file import digests_of
from mdgnn.neighbors import primitive_neighbor_list
from mdgnn.threads import one_torch_thread

ATOMS_WORTH_THREADS = 200


@dataclass(frozen=True)
class System:
    """Atoms with their calculator.

    `model` says which it is in records: a shipped model's name, the absolute path of a model file, or the class of
    another calculator. `sha256` is that of the model file, "" where there is none. `precision` has device and dtype,
    where it is known what they are.
    """

    atoms: Atoms
    units: UnitSystem
    model: str
    sha256: str
    precision: dict[str, str]


def make_system(
    atoms: Atoms,
    calculator: str | Path | Calculator,
    device: str = "cpu",
    dtype: str = "float32",
    note: Callable[[str], None] = warn_user,
) -> System:
    """Give atoms a calculator, and the mass of reduced units where the model wants it.

    They lose the results of other calculations, and what no output can hold; a note says of what.

    Raises
    ------
    ValueError, FileNotFoundError
        For a device, model or structure that cannot be used; before anything is written.
    """
    name, sha256 = type(calculator).__name__, ""
    if isinstance(calculator, (str, Path)):
        name = str(calculator) if calculator in pretrained_names() else str(Path(calculator).resolve())
        content = locate(calculator)
        calculator = MDGNNCalculator(calculator, device, dtype)
        sha256 = hashlib.sha256(content.read_bytes()).hexdigest()
    to_records(atoms.constraints)  # raises for what no file can hold
    for sentence in remove_stale(atoms):
        note(sentence)
    atoms.calc = calculator
    members, units = _members(calculator), units_of(calculator)
    if units is LJ:
        atoms.set_masses(np.ones(len(atoms)))
    for member in members:
        check_atoms(atoms, member.model)
    _check_numbers(atoms)
    doubt = ""
    if units is METAL:
        doubt = check_density(atoms)
    else:
        check_reduced_density(atoms)
    atoms.get_potential_energy()
    if units is METAL and len(atoms) > 1 and not atoms.get_forces(apply_constraint=False).any():
        doubt = doubt or _far_apart(atoms, max((member.model.cutoff for member in members), default=np.inf))
    if doubt:
        note(doubt)
    return System(atoms, units, name, sha256, _precision(calculator))


def _members(calculator: Calculator) -> list[MDGNNCalculator]:
    """Those that have its models; none of a calculator that has no model of ours."""
    if isinstance(calculator, Ensemble):
        return calculator.members
    return [calculator] if isinstance(calculator, MDGNNCalculator) else []


def _precision(calculator: Calculator) -> dict[str, str]:
    """Device and dtype, which all members share; nothing is known of other calculators."""
    return {name: one.parameters[name] for one in _members(calculator) for name in ("device", "dtype")}


def calculator_sha256(system: System) -> list[str]:
    """Those of what the calculator computes, as far as is known: models, or the parameters that ASE would store; none
    where a model file's is that. A calculator that shares one is the same."""
    if system.sha256:
        return []
    contents: list[Any]
    if members := _members(system.atoms.calc):
        of_members = [digests_of(member.model) for member in members]
        contents = [[digests[place] for digests in of_members] for place in (0, -1)]
    else:
        parameters = getattr(system.atoms.calc, "parameters", None)
        items = parameters.items() if isinstance(parameters, Mapping) else ()
        contents = [{str(name): text for name, value in items if (text := _encoded(value))}]
    return [hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest() for content in contents]


def _encoded(value: Any) -> str:
    """Empty for what is no data, such as a function: its text would be another one in the next process."""
    try:
        return str(encode(value))
    except Exception:  # whatever a foreign object's code raises: no run ends for that
        return ""


def _check_numbers(atoms: Atoms) -> None:
    """Raise a ValueError for masses and momenta that a file cannot mean."""
    masses, momenta = atoms.get_masses(), atoms.get_momenta()
    for atom in np.flatnonzero(~(np.isfinite(masses) & (masses > 0))):
        raise ValueError(f"expected positive masses, got {masses[atom]} for atom {atom}")
    for atom in np.flatnonzero(~np.isfinite(momenta).all(axis=1)):
        raise ValueError(f"expected finite momenta, got {momenta[atom].tolist()} for atom {atom}")


def _far_apart(atoms: Atoms, cutoff: float) -> str:
    """Where the forces are 0: because no atom sees another one?"""
    geometry = atoms.pbc, atoms.cell.array, atoms.positions
    if not np.isfinite(cutoff) or len(primitive_neighbor_list("i", *geometry, cutoff)):
        return ""
    return (
        f"no two atoms are within the model's cutoff of {cutoff:g} Angstrom, so that no force acts: "
        "are the positions in Angstrom?"
    )


def suitable_threads(n_atoms: int) -> AbstractContextManager[None]:
    """One CPU thread for few atoms: waiting for a second costs more than it brings, on a busy machine tenfold.

    Results do not depend on the number of threads.
    """
    return one_torch_thread() if n_atoms < ATOMS_WORTH_THREADS else nullcontext()
