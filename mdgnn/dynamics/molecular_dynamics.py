"""Molecular dynamics in memory: atoms with a calculator, an ensemble, and steps."""

from collections.abc import Iterator

import numpy as np
from ase import Atoms
from ase.constraints import FixCom
from ase.md.langevin import Langevin as AseLangevin
from ase.md.velocitydistribution import Stationary, ZeroRotation
from numpy.typing import NDArray

from mdgnn.calculators.checks import check_atoms
from mdgnn.dynamics import compiled, npt
from mdgnn.dynamics.compiled import CompiledSystems
from mdgnn.dynamics.constraints import check_dynamics
from mdgnn.dynamics.ensembles import Ensemble
from mdgnn.dynamics.npt import MTK, State
from mdgnn.dynamics.units import LJ, UnitSystem, units_of


class MolecularDynamics:
    """Atoms that move in an ensemble; nothing is written. `simulate` is this with a folder, checkpoints and signals.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator. They are moved in place, and get velocities at once: those of the ensemble's temperature,
        unless that is None and they have momenta. In reduced units their masses become 1.
    ensemble : NVE, Langevin or NPT
    timestep : float, optional
        In the model's units; by default 0.005 tau or 1 fs.
    rng : numpy.random.Generator or int
        Of the thermostat's noise, or its seed.
    units : UnitSystem, optional
        By default those of the calculator's model, else eV, Angstrom, fs and K.
    state : dict, optional
        What `state` returned, to go on from there bit for bit, with the momenta and constraints that atoms have.

    Attributes
    ----------
    integrator
        ASE's, which may be changed between steps; where steps are compiled its parameters hold for them too.
    n_steps : int
        Steps that this has taken.

    Raises
    ------
    ValueError
        For atoms without a calculator, a time step that cannot be, parameters, structures or constraints that the
        ensemble cannot have; in reduced units for momenta that stay beside masses set to other than 1.

    Examples
    --------
    ::

        atoms = Icosahedron("Ar", 2, latticeconstant=1.54)
        atoms.calc = MDGNNCalculator("lj")  # in reduced units
        md = MolecularDynamics(atoms, Langevin(temperature=0.2), rng=1)
        for _ in md.run(1000, interval=10):
            print(md.time, md.temperature)
    """

    def __init__(
        self,
        atoms: Atoms,
        ensemble: Ensemble,
        timestep: float | None = None,
        rng: np.random.Generator | int = 0,
        units: UnitSystem | None = None,
        state: State | None = None,
    ):
        if atoms.calc is None:
            raise ValueError("expected atoms with a calculator, got none: set atoms.calc")
        ensemble.check()
        check_timestep(timestep)
        self.units = units or units_of(atoms.calc)
        self.atoms, self.ensemble = atoms, ensemble.with_defaults(self.units)
        self.timestep = self.units.default_timestep if timestep is None else timestep
        self.rng = rng if isinstance(rng, np.random.Generator) else np.random.default_rng(rng)
        self.n_steps = 0
        if self.units is LJ:
            check_reduced_momenta(atoms, ensemble.temperature if state is None else None)
            atoms.set_masses(np.ones(len(atoms)))
        if state is None:
            prepare(atoms, ensemble, self.units, self.rng)
        self.integrator = self.ensemble.integrator(atoms, self.timestep, self.units, self.rng, state)
        self._systems: CompiledSystems | None = None

    def step(self) -> None:
        """One time step. Raises a RunError where a cell explodes, and what the calculator raises."""
        self.advance(1)

    @property
    def is_compiled(self) -> bool:
        """Whether many steps are one compiled call, and not ASE's one by one: of atoms, calculator, constraints and
        integrator as they are now."""
        return compiled.is_for(self.atoms) and compiled.has_steps_of(self.integrator)

    def advance(self, steps: int) -> None:
        """So many time steps, in one compiled call where the calculator runs on the engine. Raises as `step`."""
        steps = whole_number("steps", steps, 0)
        if self.is_compiled:
            self._advance_compiled(steps)
            return
        for _ in range(steps):
            self.integrator.step()
            self.n_steps += 1

    def _advance_compiled(self, steps: int) -> None:
        """The same, in the compiled loop; atoms' calculator gets its results."""
        atoms, ase = self.atoms, self.integrator
        systems = self._systems
        if systems is None or systems.calculator is not atoms.calc or systems.structures[0] is not atoms:
            check_atoms(atoms, atoms.calc.info)
            systems = CompiledSystems(atoms.calc)
            systems.add(atoms)
            self._systems = systems
        before = systems.n_steps[0]
        try:
            if isinstance(ase, AseLangevin):
                systems.langevin([0], ase.dt, [ase.fr], [ase.temp], [ase.rng], steps)
            else:
                systems.velocity_verlet([0], ase.dt, steps)
        finally:
            self.n_steps += systems.n_steps[0] - before
        if 0 in systems.failed:
            raise systems.failed[0]
        results = systems.results(0, atoms)
        if results is not None:
            atoms.calc.atoms, atoms.calc.results = atoms, results

    def run(self, steps: int, interval: int = 1) -> Iterator["MolecularDynamics"]:
        """Take so many steps; yields itself after each `interval` of them."""
        steps, interval = whole_number("steps", steps, 0), whole_number("interval", interval, 1)
        end = self.n_steps + steps
        while self.n_steps < end:
            self.advance(min(interval - self.n_steps % interval, end - self.n_steps))
            if self.n_steps % interval == 0:
                yield self

    @property
    def time(self) -> float:
        """In the model's units."""
        return self.n_steps * self.timestep

    @property
    def temperature(self) -> float:
        """ASE's, over 3 N degrees of freedom, less three where the centre of mass is held, as always under NPT."""
        n = len(self.atoms)
        held = n / (n - 1) if isinstance(self.integrator, MTK) else 1.0
        return float(self.atoms.get_temperature() / self.units.kelvin) * held

    def state(self) -> State:
        """The integrator's own variables; with atoms and random numbers, all that the next step depends on."""
        return self.integrator.state() if isinstance(self.integrator, MTK) else {}

    def header(self) -> list[str]:
        """Names of the columns of `row`, with units."""
        units = self.units
        energies = [f"{kind}_energy[{units.energy}]" for kind in ("total", "potential", "kinetic")]
        more = npt.header(units) if self.ensemble.name == "npt" else []
        return ["step", f"time[{units.time}]", *energies, f"temperature[{units.temperature}]", *more]

    def row(self) -> tuple[float, ...]:
        """Step, time, energies, temperature; under NPT also volume, pressure and the conserved energy."""
        potential, kinetic = float(self.atoms.get_potential_energy()), float(self.atoms.get_kinetic_energy())
        more = self.integrator.columns() if isinstance(self.integrator, MTK) else ()
        return (self.n_steps, self.time, potential + kinetic, potential, kinetic, self.temperature, *more)


def prepare(atoms: Atoms, ensemble: Ensemble, units: UnitSystem, rng: np.random.Generator) -> None:
    """Hold what the ensemble needs held, and give velocities to atoms that do not keep theirs."""
    ensemble.check_structure(atoms, "the structure")
    keep_momenta = ensemble.temperature is None and bool(np.any(atoms.get_momenta()))
    ensemble.constrain(atoms)
    check_dynamics(atoms)
    if not keep_momenta:
        temperature = ensemble.with_defaults(units).temperature
        assert temperature is not None
        draw_velocities(atoms, temperature * units.kelvin, rng)
    ensemble.settle(atoms)


def whole_number(name: str, value: int, least: int) -> int:
    """The value as Python's int, which JSON takes; a ValueError unless it is whole and at least `least`."""
    if not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"expected {name} to be a whole number of at least {least}, got {value!r}")
    return int(value)


def check_timestep(timestep: float | None) -> None:
    """Raise a ValueError unless it is above 0, or None."""
    if timestep is not None and not (np.isfinite(timestep) and timestep > 0):
        raise ValueError(f"expected a finite timestep above 0, got {timestep}")


def check_reduced_momenta(atoms: Atoms, temperature: float | None) -> None:
    """Raise a ValueError for momenta that stay, for want of a temperature, and belong to masses set to other than 1.

    Where no masses are set, momenta are taken as they are: a file may have them without masses.
    """
    if temperature is None and atoms.has("masses") and atoms.get_momenta().any():
        for atom in np.flatnonzero(atoms.get_masses() != 1):
            raise ValueError(
                f"expected a mass of 1, that of reduced units, got {atoms.get_masses()[atom]:g} for atom {atom}, which "
                "has a momentum: set masses before velocities, or give the ensemble a temperature"
            )


def draw_velocities(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann velocities; a free system at rest as a whole, and an open one without rotation.

    Taking the motion of the whole away does not cool: the rest is scaled to the kinetic energy that was drawn.
    """
    width = np.sqrt(atoms.get_masses() * temperature_K / LJ.kelvin)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * width[:, None])
    if len(atoms) == 1 or not all(isinstance(constraint, FixCom) for constraint in atoms.constraints):
        return
    Stationary(atoms)
    if not atoms.pbc.any():
        with np.errstate(divide="ignore", invalid="ignore"):  # a dimer has no moment about its own axis
            ZeroRotation(atoms)


def drift(log: NDArray[np.float64], n_atoms: int) -> dict[str, float]:
    """How well the total energy is conserved, per atom: its trend over the whole run, and the scatter about it."""
    t, energy = log[:, 1], log[:, 2] / n_atoms
    if len(log) < 3:
        return {"energy_drift_per_atom": float(energy[-1] - energy[0]), "energy_fluctuation_per_atom": 0.0}
    slope, offset = np.polyfit(t, energy, 1)
    scatter = float(np.std(energy - (slope * t + offset)))
    return {"energy_drift_per_atom": float(slope * (t[-1] - t[0])), "energy_fluctuation_per_atom": scatter}
