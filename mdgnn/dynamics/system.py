"""The system of a run: atoms with a calculator, and the units that it works in."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from mdgnn.dynamics.compiled import CompiledResults
from mdgnn.dynamics.constraints import to_records
from mdgnn.dynamics.units import LJ, METAL, UnitSystem, units_of
from mdgnn.locate import locate, pretrained_names
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
    calculator, name, sha256 = named_calculator(calculator, device, dtype)
    to_records(atoms.constraints)  # raises for what no file can hold
    for sentence in remove_stale(atoms):
        note(sentence)
    atoms.calc = calculator
    members, units = _members(calculator), units_of(calculator)
    if units is LJ:
        atoms.set_masses(np.ones(len(atoms)))
    doubt = check_system(atoms, members, units)
    atoms.get_potential_energy()
    if doubt:
        note(doubt)
    return System(atoms, units, name, sha256, precision_of(calculator))


def check_system(atoms: Atoms, members: Sequence[MDGNNCalculator], units: UnitSystem) -> str:
    """Doubts about atoms that these models are to move, which may be right, in a sentence, or "".

    Raises
    ------
    ValueError
        For a structure that the models do not know, masses and momenta that cannot be, and what is denser than matter.
    """
    for member in members:
        check_atoms(atoms, member.info)
    _check_numbers(atoms)
    if units is not METAL:
        check_reduced_density(atoms)
        return ""
    return check_density(atoms) or _far_apart(atoms, max((m.info.cutoff for m in members), default=np.inf))


def named_calculator(calculator: str | Path | Calculator, device: str, dtype: str) -> tuple[Calculator, str, str]:
    """The calculator of a shipped model or model file, or the one given; what records call it; the file's SHA-256."""
    if not isinstance(calculator, (str, Path)):
        return calculator, type(calculator).__name__, ""
    name = str(calculator) if calculator in pretrained_names() else str(Path(calculator).resolve())
    content = locate(calculator)
    made = MDGNNCalculator(calculator, device, dtype)
    return made, name, hashlib.sha256(content.read_bytes()).hexdigest()


def _members(calculator: Calculator) -> list[MDGNNCalculator]:
    """Those that have its models; none of a calculator that has no model of ours."""
    if isinstance(calculator, Ensemble):
        return calculator.members
    if isinstance(calculator, CompiledResults):
        return [calculator.systems.calculator]
    return [calculator] if isinstance(calculator, MDGNNCalculator) else []


def precision_of(calculator: Calculator) -> dict[str, str]:
    """Device and dtype, which all members share; nothing is known of other calculators."""
    return {name: one.parameters[name] for one in _members(calculator) for name in ("device", "dtype")}


def calculator_sha256(system: System) -> Iterator[str]:
    """Those of what the calculator computes, as far as is known: models, or the parameters that ASE would store; none
    where a model file's is that. A calculator that shares one is the same."""
    if system.sha256:
        return
    if members := _members(system.atoms.calc):
        for digests in zip(*(member.digests() for member in members), strict=False):
            yield _sha256([*digests])
    else:
        parameters = getattr(system.atoms.calc, "parameters", None)
        items = parameters.items() if isinstance(parameters, Mapping) else ()
        yield _sha256({str(name): text for name, value in items if (text := _encoded(value))})


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    """Whether no atom sees another one, so that no force acts."""
    geometry = atoms.pbc, atoms.cell.array, atoms.positions
    if len(atoms) < 2 or not np.isfinite(cutoff) or len(primitive_neighbor_list("i", *geometry, cutoff)):
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
