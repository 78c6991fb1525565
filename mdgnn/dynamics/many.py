"""Molecular dynamics of many small systems at once, in the compiled loop, over threads; and what is checked of them."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase import units as ase_units
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.dynamics.compiled import CompiledResults, CompiledSystems, constraint_that_is_not_compiled, why_not
from mdgnn.dynamics.ensembles import NVE, Ensemble, Langevin
from mdgnn.dynamics.molecular_dynamics import check_reduced_momenta, check_timestep, prepare, whole_number
from mdgnn.dynamics.system import check_system
from mdgnn.dynamics.units import LJ, UnitSystem, units_of


def on_engine(calculator: Calculator) -> MDGNNCalculator:
    """This calculator; a ValueError unless the compiled loop can compute as it does."""
    if reason := why_not(calculator):
        raise ValueError(f"expected a calculator that runs on the engine, for many systems at once: {reason}")
    assert isinstance(calculator, MDGNNCalculator)
    return calculator


def check_structures(structures: Sequence[Atoms], calculator: MDGNNCalculator) -> str:
    """Doubts about the first structure of which there are some, as where it moves alone, in a sentence, or "".

    Structures as `copy_of` makes them.

    Raises
    ------
    ValueError
        That says which structure cannot be moved, and why.
    """
    doubts = {}
    for k, atoms in enumerate(structures):
        try:
            if doubt := check_structure(atoms, calculator):
                doubts[k] = doubt
        except ValueError as error:
            raise ValueError(f"structure {k}: {error}") from None
    for k, doubt in doubts.items():
        return f"structure {k}, the first of {len(doubts)}: {doubt}"
    return ""


def check_structure(atoms: Atoms, calculator: MDGNNCalculator) -> str:
    """Doubts about one. Raises a ValueError where it cannot be moved among many."""
    doubt = check_system(atoms, [calculator], units_of(calculator))
    if name := constraint_that_is_not_compiled(atoms):
        raise ValueError(
            f"expected no constraints but FixAtoms or FixCom where many systems move at once, got {name}; such a "
            "system moves alone"
        )
    return doubt


def copy_of(atoms: Atoms, units: UnitSystem) -> Atoms:
    """The same atoms without a calculator, with the masses of reduced units where these are the model's."""
    copy: Atoms = atoms.copy()
    if units is LJ:
        copy.set_masses(np.ones(len(copy)))
    return copy


def _same(things: Sequence[object]) -> tuple[int, int] | None:
    """The first two places that have one thing."""
    first: dict[int, int] = {}
    for k, thing in enumerate(things):
        if (before := first.setdefault(id(thing), k)) != k:
            return before, k
    return None


class ManyMolecularDynamics:
    """Many systems that move in an ensemble, over threads; each as `MolecularDynamics` would move it alone.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Moved in place; they get velocities at once, as those of `MolecularDynamics` do. Of constraints they may have
        FixAtoms or FixCom. Between calls they may be changed, as may the calculator's parameters.
    ensemble : NVE or Langevin, or a sequence of them
        Of all systems, or of each: temperatures may differ, as for replicas.
    calculator : str, Path or MDGNNCalculator
        The name of a shipped model, a model file, or a calculator on the engine.
    timestep : float, optional
        In the model's units; by default 0.005 tau or 1 fs.
    rng : int or sequence of numpy.random.Generator
        A seed, of which system k has ``numpy.random.default_rng([seed, k])``; or the generators of all systems.
    fresh : bool
        Whether the ensemble makes the atoms ready, as it does those of `MolecularDynamics`: holds what is to be held,
        and draws velocities where it has a temperature. Otherwise they go on as they are.

    Attributes
    ----------
    structures : list of ase.Atoms
    n_steps : numpy array of int
        Steps that the system in each place has taken, also in calls that an error or Ctrl-C ended; one that failed
        stands still.
    failed : dict
        By number of a system, why it moves no more.

    Raises
    ------
    ValueError
        As `MolecularDynamics`, with the number of the structure; for one that is denser than matter, for a calculator
        that is not on the engine, and ensembles that are not all NVE or all Langevin.

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
        fresh: bool = True,
    ):
        self.structures = list(structures)
        n = len(self.structures)
        ensembles = [ensemble] * n if isinstance(ensemble, Ensemble) else list(ensemble)
        if isinstance(rng, (int, np.integer)):
            seed = whole_number("rng", rng, 0)
            rng = [np.random.default_rng([seed, k]) for k in range(n)]
        self.rngs = list(rng)
        if len(ensembles) != n or len(self.rngs) != n:
            raise ValueError(
                f"expected an ensemble and random numbers for each of {n} structures, got {len(ensembles)} and "
                f"{len(self.rngs)}"
            )
        if same := _same(self.structures):
            raise ValueError(
                f"expected structures of their own, got the same Atoms for {same[0]} and {same[1]}: copy them"
            )
        if same := _same(self.rngs):
            raise ValueError(f"expected random numbers of its own for place {same[1]}, got those of place {same[0]}")
        kinds = {type(one) for one in ensembles}
        if len(kinds) > 1 or not kinds <= {NVE, Langevin}:
            names = ", ".join(sorted(kind.name for kind in kinds))
            raise ValueError(f"expected ensembles that are all nve or all langevin for many systems, got {names}")
        check_timestep(timestep)
        calculator = on_engine(MDGNNCalculator(calculator) if isinstance(calculator, (str, Path)) else calculator)
        self.units = units_of(calculator)
        self.timestep = self.units.default_timestep if timestep is None else timestep
        self.ensembles = [one.with_defaults(self.units) for one in ensembles]
        for one in ensembles:
            one.check()
        check_structures([copy_of(atoms, self.units) for atoms in self.structures], calculator)
        self._systems = CompiledSystems(calculator)
        self.failed = self._systems.failed
        for k, atoms in enumerate(self.structures):
            try:
                self._prepare(atoms, ensembles[k], self.rngs[k], fresh)
            except ValueError as error:
                raise ValueError(f"structure {k}: {error}") from None
            self._systems.add(atoms)
            atoms.calc = CompiledResults(self._systems, k)

    def _prepare(self, atoms: Atoms, ensemble: Ensemble, rng: np.random.Generator, fresh: bool) -> None:
        if self.units is LJ:
            check_reduced_momenta(atoms, ensemble.temperature if fresh else None)
            atoms.set_masses(np.ones(len(atoms)))
        if fresh:
            prepare(atoms, ensemble, self.units, rng)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for k, atoms in enumerate(self.structures):  # whose copies have copies of the loop's calculator
            atoms.calc = CompiledResults(self._systems, k)

    def replace(
        self,
        k: int,
        atoms: Atoms,
        ensemble: Ensemble | None = None,
        rng: np.random.Generator | None = None,
        fresh: bool = True,
    ) -> Atoms:
        """Put other atoms into place `k`, between calls; they move as they would alone, and their steps count from 0.

        Parameters
        ----------
        k : int
        atoms : ase.Atoms
            As the structures at first.
        ensemble : NVE or Langevin, optional
            Of the kind of all others; by default that of this place.
        rng : numpy.random.Generator, optional
            By default that of this place, as it is by now.
        fresh : bool
            As at first.

        Returns
        -------
        ase.Atoms
            Those that were there, as far as they came, with the calculator.

        Raises
        ------
        ValueError
            For what cannot be; then nothing has changed.
        IndexError
            If there is no such place.
        """
        before = self.structures[k]
        k = range(len(self.structures))[k]  # of a negative one
        for other, structure in enumerate(self.structures):
            if structure is atoms:
                raise ValueError(f"expected other atoms for place {k}, got those of place {other}: copy them")
        given = self.ensembles[k] if ensemble is None else ensemble
        if type(given) is not type(self.ensembles[k]):
            raise ValueError(f"expected an ensemble of the others' kind, {self.ensembles[k].name}, got {given.name}")
        given.check()
        rng = self.rngs[k] if rng is None else rng
        for other, generator in enumerate(self.rngs):
            if generator is rng and other != k:
                raise ValueError(f"expected random numbers of its own for place {k}, got those of place {other}")
        check_structure(copy_of(atoms, self.units), self._systems.calculator)
        self._prepare(atoms, given, rng, fresh)
        self._systems.replace(k, atoms)
        self.structures[k], self.ensembles[k], self.rngs[k] = atoms, given.with_defaults(self.units), rng
        atoms.calc = CompiledResults(self._systems, k)
        before.calc = self._systems.calculator
        return before

    @property
    def n_steps(self) -> NDArray[np.int64]:
        """Of the system in each place."""
        return np.array(self._systems.n_steps, dtype=np.int64)

    def advance(self, steps: int, which: Sequence[int] | None = None) -> None:
        """So many time steps of all systems, or of some, that have not failed; every 0.1 s Python may interrupt."""
        steps = whole_number("steps", steps, 0)
        which = range(len(self.structures)) if which is None else which
        timestep, ensembles = self.timestep * self.units.ase_time, [self.ensembles[k] for k in which]
        if ensembles and isinstance(ensembles[0], Langevin):
            frictions = [float(one.friction) / self.units.ase_time for one in ensembles]  # type: ignore[attr-defined]
            kelvin = [float(one.temperature or 0.0) * self.units.kelvin for one in ensembles]
            temperatures, rngs = [ase_units.kB * one for one in kelvin], [self.rngs[k] for k in which]
            self._systems.langevin(which, timestep, frictions, temperatures, rngs, steps)
        else:
            self._systems.velocity_verlet(which, timestep, steps)

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
