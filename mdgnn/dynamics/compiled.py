"""Atoms that the compiled loop moves: one or many, each as it would move alone, bit for bit.

The loop has the engine, neighbour lists with a skin, velocity Verlet, Langevin dynamics and FIRE, the latter three as
ASE has them. Atoms are the state: they are read before each call and written after it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, CalculatorError
from ase.constraints import FixAtoms, FixCom
from numpy.typing import NDArray

from mdgnn import _C
from mdgnn._internal.warn_user import warn_user
from mdgnn.calculators.checks import COINCIDENT
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.calculators.results import energy_results
from mdgnn.threads import get_num_threads

SKIN = 0.1  # of the neighbour list, as a part of the cutoff
BLOCK = 100  # steps, at most, whose noise is drawn at a time


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
    """The name of the first; FixAtoms and FixCom are."""
    return next((type(c).__name__ for c in atoms.constraints if type(c) not in (FixAtoms, FixCom)), "")


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
        cutoff, self.least = self.engine.cutoff, float(calculator.model.min_distance)
        limit = max(self.least, COINCIDENT) if calculator.too_close == "raise" else COINCIDENT
        self._systems = _C.Systems(self.engine._engine, cutoff, SKIN * cutoff, limit)
        self._were_close: set[int] = set()

    def add(self, atoms: Atoms) -> int:
        """One more system; its number.

        Raises
        ------
        ValueError
            For constraints other than FixAtoms and FixCom.
        """
        if name := constraint_that_is_not_compiled(atoms):
            raise ValueError(f"expected no constraints but FixAtoms and FixCom, got {name}")
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
        chosen = self._read(which)
        self._systems.find_forces(chosen, get_num_threads())
        self._look(which, chosen)

    def velocity_verlet(self, which: Sequence[int], timestep: float, steps: int) -> NDArray[np.int64]:
        """Constant energy; the time step in ASE's units. Returns the steps taken, fewer of those that fail."""
        chosen = self._read(which)
        self._systems.velocity_verlet(chosen, timestep, steps, get_num_threads())
        self._write(chosen)
        return self._look(which, chosen)[1]

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

        Each generator goes on by what its system needs for all steps, whether or not it fails. Returns the steps taken.
        """
        chosen = self._read(which)
        sizes = [len(self.structures[k]) for k in which]
        noise = [rng.standard_normal(steps * 6 * n) for rng, n in zip(rngs, sizes, strict=True)]
        energies = units.kB * np.asarray(temperatures_K, dtype=np.float64)
        together = np.concatenate([*noise, np.zeros(0)])
        self._systems.langevin(chosen, timestep, np.asarray(frictions), energies, together, steps, get_num_threads())
        self._write(chosen)
        return self._look(which, chosen)[1]

    def relax(
        self, which: Sequence[int], fmax: float, steps: Sequence[int]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Up to so many steps of FIRE for each, which goes on where it stopped. Whether they converged; steps taken."""
        chosen = self._read(which)
        self._systems.relax(chosen, fmax, np.asarray(steps, dtype=np.int64), get_num_threads())
        self._write(chosen)
        return self._look(which, chosen)

    def results(self, k: int) -> dict[str, Any]:
        """Those of the calculator, bit for bit, of a system that has not failed."""
        _, _, energies, forces = self._systems.get(k)
        return energy_results(float(energies.sum()), energies, forces, None, self.structures[k])

    def _read(self, which: Sequence[int]) -> NDArray[np.int64]:
        for k in which:
            atoms = self.structures[k]
            momenta = atoms.arrays.get("momenta")
            moved = self._systems.set(k, atoms.positions, np.zeros((len(atoms), 3)) if momenta is None else momenta)
            if moved:
                self.failed.pop(k, None)
        return np.asarray([k for k in which if k not in self.failed], dtype=np.int64)

    def _write(self, chosen: NDArray[np.int64]) -> None:
        for k in chosen.tolist():
            atoms = self.structures[k]
            positions, momenta, _, _ = self._systems.get(k)
            atoms.arrays["positions"][:] = positions
            if atoms.has("momenta") or momenta.any():
                atoms.set_array("momenta", momenta, float, (3,))

    def _look(self, which: Sequence[int], chosen: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Learn which failed, and warn of atoms that are too close, once of each system until they are not.

        Whether they converged, and steps taken: none of those that had failed before.
        """
        failed, converged, n_steps, closest = self._systems.states(chosen)
        for k in chosen[failed].tolist():
            self.failed[k] = self._error(k)
        if self.calculator.too_close == "warn":
            for k, distance in zip(chosen.tolist(), closest.tolist(), strict=True):
                if not distance < self.least:
                    self._were_close.discard(k)
                elif k not in self._were_close and k not in self.failed:
                    self._were_close.add(k)
                    system = f"system {k}: " if len(self.structures) > 1 else ""
                    warn_user(
                        f"{system}two atoms came as close as {distance:.3g}, closer than any in the model's training "
                        f"data ({self.least:.3g})"
                    )
        moved = np.isin(which, chosen)
        all_converged, all_steps = np.zeros(len(which), dtype=bool), np.zeros(len(which), dtype=np.int64)
        all_converged[moved], all_steps[moved] = converged, n_steps
        return all_converged, all_steps

    def _error(self, k: int) -> Exception:
        try:
            self.calculator.compute(self.structures[k])
        except (ValueError, CalculatorError) as error:
            return error
        return CalculatorError("the engine has no forces for these positions")


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
        for first in range(0, steps, BLOCK):
            self._block(min(BLOCK, steps - first))

    def _block(self, steps: int) -> None:
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
        self._systems = CompiledSystems(atoms.calc)
        self._systems.add(atoms)
        return self._systems
