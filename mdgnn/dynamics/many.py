"""Relaxation and molecular dynamics of many small systems at once, in the compiled loop, over threads."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from mdgnn._internal.run_errors import InterruptedRunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.calculators.checks import check_atoms
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.dynamics.compiled import CompiledResults, CompiledSystems, constraint_that_is_not_compiled, why_not
from mdgnn.dynamics.ensembles import NVE, Ensemble, Langevin
from mdgnn.dynamics.molecular_dynamics import check_reduced_momenta, check_timestep, prepare, whole_number
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.units import LJ, UnitSystem, units_of

AT_ONCE = 10_000  # systems that are held by the loop at a time


@dataclass(frozen=True)
class ManyRelaxation:
    """What came of one of many relaxations.

    `atoms` have the energy and forces of where they are; `energy` and `fmax`, the largest force with what constraints
    take from it, are in the model's units. `error` says why a system could not go on, else it is empty.
    """

    atoms: Atoms
    converged: bool
    steps: int
    fmax: float
    error: str = ""

    @property
    def energy(self) -> float:
        """Of the model; not a number where there was an error."""
        return float("nan") if self.error else float(self.atoms.get_potential_energy(apply_constraint=False))


class InterruptedRelaxationsError(InterruptedRunError):
    """After SIGINT or SIGTERM; `relaxations` has those that were done, by number of the structure."""

    def __init__(self, signum: int, message: str, relaxations: dict[int, ManyRelaxation]):
        super().__init__(signum, message)
        self.relaxations = relaxations


def relax_many(
    structures: Iterable[Atoms],
    calculator: str | Path | Calculator,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    reporter: Reporter | None = None,
) -> list[ManyRelaxation]:
    """Move copies of the atoms by FIRE until the forces vanish; many systems at once, over threads.

    Each system has the steps and the bits that it has alone, for any number of threads; FIRE is ASE's. A system that
    the model cannot treat any more ends with an error, and the others go on.

    Parameters
    ----------
    structures : iterable of ase.Atoms
        They may differ in everything. Of constraints they may have FixAtoms and FixCom.
    calculator : str, Path or MDGNNCalculator
        The name of a shipped model, a model file, or a calculator on the engine.
    fmax : float
        Largest force allowed, in epsilon/sigma or eV/Angstrom.
    steps : int
        Of each system, after which it is given up.
    reporter : Reporter, optional
        Gets the progress.

    Returns
    -------
    list of ManyRelaxation
        In the order of the structures.

    Raises
    ------
    ValueError
        For a parameter or structure that cannot be, before anything moves; the message has the structure's number.
    InterruptedRelaxationsError
        After SIGINT or SIGTERM.

    Examples
    --------
    ::

        results = relax_many(ase.io.read("many.xyz", ":"), "lj", fmax=0.01)
        lowest = min(results, key=lambda result: result.energy)
    """
    structures = list(structures)
    done: dict[int, ManyRelaxation] = {}
    with StopSignals() as stop, (reporter or Reporter()).progress("relax", len(structures)) as show:
        for k, relaxation in relaxations(structures, calculator, fmax=fmax, steps=steps, stop=stop):
            done[k] = relaxation
            show(len(done), f"{sum(r.converged for r in done.values())} converged")
    if len(done) < len(structures):
        message = f"stopped after {len(done)} of {len(structures)} relaxations"
        raise InterruptedRelaxationsError(stop.received or 0, message, done)
    return [done[k] for k in range(len(structures))]


def relaxations(
    structures: Sequence[Atoms],
    calculator: str | Path | Calculator,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    stop: StopSignals | None = None,
) -> Iterator[tuple[int, ManyRelaxation]]:
    """`relax_many`, whose results are given as they come: number of the structure, and its relaxation.

    `stop`: ends early where a signal has been received.
    """
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f"expected a positive fmax, got {fmax}")
    steps = whole_number("steps", steps, 0)
    calculator = _calculator(calculator)
    units = units_of(calculator)
    check_structures(structures, calculator)
    for first in range(0, len(structures), AT_ONCE):
        systems = CompiledSystems(calculator)
        which = [systems.add(_copy(atoms, units)) for atoms in structures[first : first + AT_ONCE]]
        for k, converged, n_steps in systems.relaxations(which, fmax, steps):
            if k >= 0:
                yield first + k, _relaxation(systems, k, converged, n_steps)
            elif stop is not None and stop.received:
                return


def _relaxation(systems: CompiledSystems, k: int, converged: bool, steps: int) -> ManyRelaxation:
    atoms = systems.structures[k]
    if k in systems.failed:
        return ManyRelaxation(atoms, False, steps, float("nan"), str(systems.failed[k]))
    results = systems.results(k)
    atoms.calc = SinglePointCalculator(atoms, energy=results["energy"], forces=results["forces"])
    return ManyRelaxation(atoms, converged, steps, float(np.linalg.norm(atoms.get_forces(), axis=1).max()))


def _calculator(given: str | Path | Calculator) -> MDGNNCalculator:
    calculator = MDGNNCalculator(given) if isinstance(given, (str, Path)) else given
    if reason := why_not(calculator):
        raise ValueError(f"expected a calculator that runs on the engine, for many systems at once: {reason}")
    assert isinstance(calculator, MDGNNCalculator)
    return calculator


def check_structures(structures: Sequence[Atoms], calculator: MDGNNCalculator) -> None:
    """Raise a ValueError that says which structure cannot be moved, and why."""
    for k, atoms in enumerate(structures):
        try:
            check_atoms(atoms, calculator.model)
        except ValueError as error:
            raise ValueError(f"structure {k}: {error}") from None
        if name := constraint_that_is_not_compiled(atoms):
            raise ValueError(
                f"structure {k}: expected no constraints but FixAtoms and FixCom where many systems move at once, got "
                f"{name}; such a system moves alone"
            )


def _copy(atoms: Atoms, units: UnitSystem) -> Atoms:
    copy: Atoms = atoms.copy()
    if units is LJ:
        copy.set_masses(np.ones(len(copy)))
    return copy


class ManyMolecularDynamics:
    """Many systems that move in an ensemble, over threads; each as `MolecularDynamics` would move it alone.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Moved in place; they get velocities at once, as those of `MolecularDynamics` do. Of constraints they may have
        FixAtoms and FixCom. Between calls positions and momenta may be changed.
    ensemble : NVE or Langevin, or a sequence of them
        Of all systems, or of each: temperatures may differ, as for replicas.
    calculator : str, Path or MDGNNCalculator
        The name of a shipped model, a model file, or a calculator on the engine.
    timestep : float, optional
        In the model's units; by default 0.005 tau or 1 fs.
    rng : int or sequence of numpy.random.Generator
        A seed, of which system k has ``numpy.random.default_rng([seed, k])``; or the generators of all systems.

    Attributes
    ----------
    structures : list of ase.Atoms
    n_steps : numpy array of int
        Steps that each has taken; one that failed stands still.
    failed : dict
        By number of a system, why it moves no more.

    Raises
    ------
    ValueError
        As `MolecularDynamics`, with the number of the structure; for a calculator that is not on the engine, and
        ensembles that are not all NVE or all Langevin.

    Examples
    --------
    ::

        replicas = [cluster.copy() for _ in range(16)]
        ladder = [Langevin(temperature=t) for t in np.geomspace(0.1, 0.4, 16)]
        md = ManyMolecularDynamics(replicas, ladder, "lj")
        for _ in md.run(10_000, interval=100):
            energies = [atoms.get_potential_energy() for atoms in md.structures]
    """

    def __init__(
        self,
        structures: Iterable[Atoms],
        ensemble: Ensemble | Sequence[Ensemble],
        calculator: str | Path | Calculator,
        timestep: float | None = None,
        rng: int | Sequence[np.random.Generator] = 0,
    ):
        self.structures = list(structures)
        n = len(self.structures)
        ensembles = [ensemble] * n if isinstance(ensemble, Ensemble) else list(ensemble)
        self.rngs = [np.random.default_rng([rng, k]) for k in range(n)] if isinstance(rng, int) else list(rng)
        if len(ensembles) != n or len(self.rngs) != n:
            raise ValueError(
                f"expected an ensemble and random numbers for each of {n} structures, got {len(ensembles)} and "
                f"{len(self.rngs)}"
            )
        kinds = {type(one) for one in ensembles}
        if len(kinds) > 1 or not kinds <= {NVE, Langevin}:
            names = ", ".join(sorted(kind.name for kind in kinds))
            raise ValueError(f"expected ensembles that are all nve or all langevin for many systems, got {names}")
        check_timestep(timestep)
        calculator = _calculator(calculator)
        self.units = units_of(calculator)
        self.timestep = self.units.default_timestep if timestep is None else timestep
        self.ensembles = [one.with_defaults(self.units) for one in ensembles]
        for one in ensembles:
            one.check()
        check_structures(self.structures, calculator)
        self._systems = CompiledSystems(calculator)
        self.failed = self._systems.failed
        for k, atoms in enumerate(self.structures):
            try:
                if self.units is LJ:
                    check_reduced_momenta(atoms, ensembles[k].temperature)
                    atoms.set_masses(np.ones(len(atoms)))
                prepare(atoms, ensembles[k], self.units, self.rngs[k])
            except ValueError as error:
                raise ValueError(f"structure {k}: {error}") from None
            self._systems.add(atoms)
            atoms.calc = CompiledResults(self._systems, k)
        self.n_steps = np.zeros(n, dtype=np.int64)

    def advance(self, steps: int) -> None:
        """So many time steps of all systems that have not failed; every 0.1 s Python may interrupt."""
        which, timestep = range(len(self.structures)), self.timestep * self.units.ase_time
        if which and isinstance(self.ensembles[0], Langevin):
            frictions = [float(one.friction) / self.units.ase_time for one in self.ensembles]  # type: ignore[attr-defined]
            temperatures = [float(one.temperature or 0.0) * self.units.kelvin for one in self.ensembles]
            self.n_steps += self._systems.langevin(which, timestep, frictions, temperatures, self.rngs, steps)
        else:
            self.n_steps += self._systems.velocity_verlet(which, timestep, steps)

    def run(self, steps: int, interval: int = 1) -> Iterator["ManyMolecularDynamics"]:
        """Take so many steps; yields itself after each `interval` of them."""
        steps, interval = whole_number("steps", steps, 0), whole_number("interval", interval, 1)
        for done in range(0, steps, interval):
            self.advance(min(interval, steps - done))
            if done + interval <= steps:
                yield self

    @property
    def temperatures(self) -> list[float]:
        """Of each, as that of `MolecularDynamics`."""
        return [float(atoms.get_temperature() / self.units.kelvin) for atoms in self.structures]
