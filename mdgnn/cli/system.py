"""The system of a run: atoms with a calculator, and the units their model works in."""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units

from mdgnn.calculators.calculator import MDGNNCalculator
from mdgnn.calculators.checks import check_atoms
from mdgnn.cli.constraints import to_records
from mdgnn.cli.errors import CommandError
from mdgnn.cli.kept import leave_out
from mdgnn.cli.output import note
from mdgnn.data.density import check_density, check_reduced_density
from mdgnn.locate import locate
from mdgnn.neighbors import primitive_neighbor_list
from mdgnn.threads import one_torch_thread

ATOMS_WORTH_THREADS = 200
GRAM_PER_CM3 = 1e-3 * units.kg / (1e-2 * units.m) ** 3


@dataclass(frozen=True)
class UnitSystem:
    """Names of the units, what they are in ASE's, and the defaults that go with them.

    In reduced units epsilon is 1 eV, sigma 1 Angstrom and the mass 1, so that tau is ASE's own unit of time.
    """

    energy: str
    length: str
    time: str
    temperature: str
    ase_time: float
    kelvin: float
    default_timestep: float
    default_temperature: float
    default_friction: float
    pressure: str
    ase_pressure: float
    density: str
    ase_density: float
    thermostat_time: float  # of npt, a hundred and a thousand default time steps, as ASE recommends
    barostat_time: float

    @property
    def force(self) -> str:
        return f"{self.energy}/{self.length}"


LJ = UnitSystem(
    energy="epsilon",
    length="sigma",
    time="tau",
    temperature="epsilon/kB",
    ase_time=1.0,
    kelvin=1 / units.kB,
    default_timestep=0.005,
    default_temperature=0.2,
    default_friction=0.5,
    pressure="epsilon/sigma^3",
    ase_pressure=1.0,
    density="1/sigma^3",
    ase_density=1.0,
    thermostat_time=0.5,
    barostat_time=5.0,
)
METAL = UnitSystem(
    energy="eV",
    length="Angstrom",
    time="fs",
    temperature="K",
    ase_time=units.fs,
    kelvin=1.0,
    default_timestep=1.0,
    default_temperature=300.0,
    default_friction=0.01,
    pressure="bar",
    ase_pressure=units.bar,
    density="g/cm^3",
    ase_density=GRAM_PER_CM3,
    thermostat_time=100.0,
    barostat_time=1000.0,
)


@dataclass(frozen=True)
class System:
    """Atoms with their calculator; `sha256` is that of the model file."""

    atoms: Atoms
    units: UnitSystem
    sha256: str


def make_system(atoms: Atoms, model: str, device: str, dtype: str) -> System:
    """Give atoms a calculator, and the mass of reduced units where the model wants it.

    They lose the results of other calculations, and what no output can hold; a note says of what.

    Raises
    ------
    CommandError, ValueError, FileNotFoundError
        For a device, model or structure that cannot be used; found before anything is written.
    """
    calculator = MDGNNCalculator(model, device, dtype)
    to_records(atoms.constraints)  # raises for what no file can hold
    for sentence in leave_out(atoms):
        note(sentence)
    atoms.calc = calculator
    unit_system = LJ if calculator.model.units == "lj" else METAL
    if unit_system is LJ:
        atoms.set_masses(np.ones(len(atoms)))
    check_atoms(atoms, calculator.model)
    _check_numbers(atoms)
    doubt = ""
    if unit_system is METAL:
        doubt = check_density(atoms)
    else:
        check_reduced_density(atoms)
    atoms.get_potential_energy()
    if unit_system is METAL and len(atoms) > 1 and not atoms.get_forces(apply_constraint=False).any():
        doubt = doubt or _far_apart(atoms, calculator.model.cutoff)
    if doubt:
        note(doubt)
    return System(atoms, unit_system, hashlib.sha256(locate(model).read_bytes()).hexdigest())


def _check_numbers(atoms: Atoms) -> None:
    """Raise a CommandError for masses and momenta that a file cannot mean."""
    masses, momenta = atoms.get_masses(), atoms.get_momenta()
    for atom in np.flatnonzero(~(np.isfinite(masses) & (masses > 0))):
        raise CommandError(f"expected positive masses, got {masses[atom]} for atom {atom}")
    for atom in np.flatnonzero(~np.isfinite(momenta).all(axis=1)):
        raise CommandError(f"expected finite momenta, got {momenta[atom].tolist()} for atom {atom}")


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
