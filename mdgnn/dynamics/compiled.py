"""Atoms that the compiled loop moves: one or many, each as it would move alone, bit for bit.

The loop has the engine, neighbour lists with a skin, velocity Verlet, Langevin dynamics and FIRE, the latter three as
ASE has them. Atoms are the state: they are read before each call and written after it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.constraints import FixAtoms, FixCom
from numpy.typing import NDArray

from mdgnn import _C
from mdgnn._internal.warn_user import warn_user
from mdgnn.calculators.caching_calculator import CachingCalculator, state_of
from mdgnn.calculators.checks import COINCIDENT, check_atoms
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.calculators.results import energy_results
from mdgnn.threads import get_num_threads

SKIN = 0.1  # of the neighbour list, as a part of the cutoff
SLICE = 0.1  # seconds, about, that the loop runs at a time


def why_not(calculator: Calculator | None) -> str:
    """What keeps the compiled loop from computing as this calculator does; "" where nothing does."""
    if type(calculator) is not MDGNNCalculator:
        return f"the calculator is {type(calculator).__name__}, not MDGNNCalculator"
    if calculator.engine is None:
        return f"the calculator's backend is {calculator.backend!r}, not 'engine'"
    if "calculate" in vars(calculator) or "compute" in vars(calculator):
        return "the calculator's methods have been replaced"
    return ""


def constraint_that_is_not_compiled(atoms: Atoms) -> str:
    """The name of the first; FixAtoms is, and FixCom without it, as ASE's result depends on the order of the two."""
    kinds = {type(constraint) for constraint in atoms.constraints}
    if FixAtoms in kinds and FixCom in kinds:
        return "both"
    return next((kind.__name__ for kind in kinds if kind not in (FixAtoms, FixCom)), "")


def is_for(atoms: Atoms) -> bool:
    """Whether the compiled loop can move atoms that have a calculator."""
    return not why_not(atoms.calc) and not constraint_that_is_not_compiled(atoms)


class CompiledSystems:
    """Systems of one calculator on the compiled loop.

    Parameters
    ----------
    calculator : MDGNNCalculator
        With the engine as its backend.

    Attributes
    ----------
    structures : list of ase.Atoms
        Moved in place. Between calls they may be changed, but for numbers, masses, cell and constraints.
    failed : dict
        By number of a system, the error that its calculator has for the positions where it stands: it moves no more.
    """

    def __init__(self, calculator: MDGNNCalculator):
        if reason := why_not(calculator):
            raise ValueError(f"expected a calculator that runs on the engine: {reason}")
        self.calculator, self.engine = calculator, calculator.engine
        assert self.engine is not None
        self.structures: list[Atoms] = []
        self.failed: dict[int, Exception] = {}
        cutoff, self.least = self.engine.cutoff, float(calculator.info.min_distance)
        limit = max(self.least, COINCIDENT) if calculator.too_close == "raise" else COINCIDENT
        self._systems = _C.Systems(self.engine._engine, cutoff, SKIN * cutoff, limit)
        self._were_close: set[int] = set()

    def add(self, atoms: Atoms) -> int:
        """One more system; its number.

        Raises
        ------
        ValueError
            For constraints other than FixAtoms or FixCom.
        """
        if name := constraint_that_is_not_compiled(atoms):
            raise ValueError(f"expected no constraints but FixAtoms or FixCom, got {name}")
        fixed = np.zeros(0, dtype=bool)
        for constraint in atoms.constraints:
            if type(constraint) is FixAtoms:
                fixed = fixed if len(fixed) else np.zeros(len(atoms), dtype=bool)
                fixed[constraint.index] = True
        together = any(type(constraint) is FixCom for constraint in atoms.constraints)
        cell, pbc = atoms.cell.array, np.asarray(atoms.pbc, dtype=bool)
        condition = float(np.linalg.cond(cell[pbc])) if pbc.any() else 1.0
        masses = atoms.get_masses()
        k: int = self._systems.add(atoms.numbers, masses, cell, pbc, condition, fixed, together)
        self.structures.append(atoms)
        return k

    def find_forces(self, which: Sequence[int]) -> None:
        """At the positions that atoms have."""
        self._read(which)
        self._systems.find_forces(self._moving(which), get_num_threads())
        self._write(which)

    def velocity_verlet(self, which: Sequence[int], timestep: float, steps: int) -> NDArray[np.int64]:
        """Constant energy; the time step in ASE's units. Returns the steps taken, fewer of those that fail."""

        def run(moving: list[int], steps: int) -> None:
            self._systems.velocity_verlet(moving, timestep, steps, get_num_threads())

        return self._slices(which, steps, run)

    def langevin(
        self,
        which: Sequence[int],
        timestep: float,
        frictions: Sequence[float],
        temperatures_K: Sequence[float],
        rngs: Sequence[Any],
        steps: int,
    ) -> NDArray[np.int64]:
        """Constant temperature; time step and frictions in ASE's units, noise as ASE's Langevin draws it.

        Where a system fails its generator may have gone on beyond the step. Returns the steps taken.
        """
        place = {k: n for n, k in enumerate(which)}

        def run(moving: list[int], steps: int) -> None:
            at = [place[k] for k in moving]
            noise = [
                rngs[n].standard_normal(steps * 6 * len(self.structures[k])) for n, k in zip(at, moving, strict=True)
            ]
            self._systems.langevin(
                moving,
                timestep,
                [frictions[n] for n in at],
                [units.kB * temperatures_K[n] for n in at],
                np.concatenate([*noise, np.zeros(0)]),
                steps,
                get_num_threads(),
            )

        return self._slices(which, steps, run)

    def relaxations(
        self, which: Iterable[int], fmax: float, steps: int, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[tuple[int, bool, int]]:
        """FIRE, up to so many steps of each, which goes on where it stopped before.

        Yields each system that ends: its number, whether it converged, and its steps. Between slices of time it asks
        whether to stop: then all end where they are.
        """
        taken = dict.fromkeys(which, 0)
        self._read(taken)
        block = 1
        while taken:
            moving = list(taken)
            begin = time.perf_counter()
            self._systems.relax(moving, fmax, [min(block, steps - taken[k]) for k in moving], get_num_threads())
            block = _next_block(block, time.perf_counter() - begin)
            failed, converged, n_steps = self._states(moving)
            end = stop()
            for k, has_failed, is_converged, n in zip(moving, failed, converged, n_steps, strict=True):
                taken[k] += n
                if is_converged or has_failed or end or taken[k] == steps:
                    self._write([k])
                    yield k, is_converged, taken.pop(k)

    def results(self, k: int) -> dict[str, Any]:
        """Those of the calculator, bit for bit, of a system that has not failed, where it stands."""
        _, _, energies, forces = self._systems.get(k)
        return energy_results(float(energies.sum()), energies, forces, None, self.structures[k])

    def stands_at(self, k: int, atoms: Atoms) -> bool:
        """Whether the loop has results for these atoms as a system's."""
        mine = self.structures[k]
        return (
            (atoms is mine or all(map(np.array_equal, state_of(atoms), state_of(mine))))
            and k not in self.failed
            and np.array_equal(self._systems.get(k)[0], atoms.positions)
        )

    def _slices(self, which: Sequence[int], steps: int, run: Callable[[list[int], int], None]) -> NDArray[np.int64]:
        """`steps` by `run`, in slices of time between which Python may interrupt; atoms are then as far as the loop."""
        self._read(which)
        taken = dict.fromkeys(which, 0)
        done, block = 0, 1
        try:
            while done < steps and (moving := self._moving(which)):
                block = min(block, steps - done)
                begin = time.perf_counter()
                run(moving, block)
                done += block
                for k, n in zip(moving, self._states(moving)[2], strict=True):
                    taken[k] += n
                block = _next_block(block, time.perf_counter() - begin)
        finally:
            self._write(which)
        return np.array(list(taken.values()), dtype=np.int64)

    def _moving(self, which: Iterable[int]) -> list[int]:
        return [k for k in which if k not in self.failed]

    def _read(self, which: Iterable[int]) -> None:
        for k in which:
            atoms = self.structures[k]
            momenta = atoms.arrays.get("momenta")
            moved = self._systems.set(k, atoms.positions, np.zeros((len(atoms), 3)) if momenta is None else momenta)
            if moved:
                self.failed.pop(k, None)

    def _write(self, chosen: Sequence[int]) -> None:
        """Give atoms positions and momenta, and learn why those that failed did."""
        for k in chosen:
            atoms = self.structures[k]
            positions, momenta, _, _ = self._systems.get(k)
            atoms.arrays["positions"][:] = positions
            if "momenta" in atoms.arrays:
                atoms.arrays["momenta"][:] = momenta
            elif momenta.any():
                atoms.arrays["momenta"] = momenta
        for k, failed in zip(chosen, self._states(chosen)[0], strict=True):
            if failed:
                self.failed[k] = self._error(k)

    def _states(self, which: Sequence[int]) -> tuple[list[bool], list[bool], list[int]]:
        """Whether they failed, whether they converged, and the steps of the last call; warns of atoms too close."""
        failed, converged, n_steps, closest = self._systems.states(np.asarray(which, dtype=np.int64))
        if self.calculator.too_close == "warn" and (closest < self.least).any():
            for k, distance, has_failed in zip(which, closest.tolist(), failed.tolist(), strict=True):
                if distance < self.least and not has_failed and k not in self._were_close:
                    self._were_close.add(k)
                    system = f"system {k}: " if len(self.structures) > 1 else ""
                    warn_user(
                        f"{system}two atoms came as close as {distance:.3g}, closer than any in the model's training "
                        f"data ({self.least:.3g})"
                    )
        return failed.tolist(), converged.tolist(), n_steps.tolist()

    def _error(self, k: int) -> Exception:
        try:
            self.calculator.compute(self.structures[k])
        except (ValueError, CalculatorError) as error:
            return error
        return CalculatorError("the engine has no forces for these positions")


def _next_block(block: int, seconds: float) -> int:
    """Steps that take a slice of time, where so many took so long; their number changes no bits."""
    return int(np.clip(block * SLICE / max(seconds, 1e-6), 1, 4 * block))


class CompiledResults(CachingCalculator):
    """The calculator of a system in the loop: what the loop has computed, and what else atoms are asked for."""

    def __init__(self, systems: CompiledSystems, k: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.systems, self.k = systems, k
        self.implemented_properties = systems.calculator.implemented_properties
        self.others = systems.calculator.others

    @property
    def units(self) -> str:
        """Those of the model."""
        return self.systems.calculator.units

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Take the loop's results where it stands at these positions, else compute them as the calculator does."""
        atoms = self.given(atoms)
        stress, others = self.wants_stress(atoms, properties), self.wants_others(properties)
        if stress or others or not self.systems.stands_at(self.k, atoms):
            self.results = self.systems.calculator.compute(atoms, stress=stress, others=others)
        else:
            self.results = self.systems.results(self.k)
        self.atoms = atoms


class CompiledIntegrator:
    """Velocity Verlet, or Langevin dynamics with ASE's noise, of atoms with a calculator; many steps in one call.

    Parameters
    ----------
    atoms : ase.Atoms
    timestep : float
        In ASE's units, as `friction`.
    friction, temperature_K : float, optional
        Of a thermostat.
    rng : optional
        Of its noise.
    """

    def __init__(
        self, atoms: Atoms, timestep: float, friction: float | None = None, temperature_K: float = 0.0, rng: Any = None
    ):
        self.atoms, self.dt, self.friction, self.temperature_K, self.rng = atoms, timestep, friction, temperature_K, rng
        self._systems: CompiledSystems | None = None
        self._made_of: Any = None

    def step(self) -> None:
        """One step; raises what the calculator raises."""
        self.run(1)

    def run(self, steps: int) -> None:
        """So many steps; raises what the calculator raises."""
        atoms, systems = self.atoms, self._current()
        if self.friction is None:
            systems.velocity_verlet([0], self.dt, steps)
        else:
            systems.langevin([0], self.dt, [self.friction], [self.temperature_K], [self.rng], steps)
        if 0 in systems.failed:
            raise systems.failed[0]
        atoms.calc.atoms, atoms.calc.results = atoms, systems.results(0)

    def _current(self) -> CompiledSystems:
        """Made anew where more than positions and momenta have changed."""
        atoms = self.atoms
        parts = (atoms.numbers, atoms.get_masses(), atoms.cell.array, atoms.pbc)
        objects = (atoms.calc.engine, atoms.calc.too_close, *atoms.constraints)
        if self._systems is not None:
            old_parts, old_objects = self._made_of
            same = all(map(np.array_equal, parts, old_parts)) and len(objects) == len(old_objects)
            if same and all(a is b or a == b for a, b in zip(objects, old_objects, strict=True)):
                return self._systems
        self._made_of = [np.array(part) for part in parts], objects
        check_atoms(atoms, atoms.calc.info)
        self._systems = CompiledSystems(atoms.calc)
        self._systems.add(atoms)
        return self._systems
