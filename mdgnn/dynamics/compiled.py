"""Atoms that the compiled loop moves: one or many, each as it would move alone, bit for bit.

The loop has the engine, neighbour lists with a skin, velocity Verlet, Langevin dynamics and FIRE, the latter three as
ASE has them. Atoms are the state: they are read before each call and written after it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.constraints import FixAtoms, FixCom
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from mdgnn import _C
from mdgnn._internal.warn_user import warn_user
from mdgnn.calculators.caching_calculator import CachingCalculator, same
from mdgnn.calculators.checks import COINCIDENT, check_atoms
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.calculators.results import energy_results
from mdgnn.threads import get_num_threads

SKIN = 0.1  # of the neighbour list, as a part of the cutoff
SLICE = 0.1  # seconds, about, that the loop runs at a time
WORTH_A_THREAD = 100_000  # random numbers, drawn in a millisecond

Made = tuple[bytes, bytes, bytes, bytes | None, list[tuple[str, bytes]]]


def why_not(calculator: Calculator | None) -> str:
    """What keeps the compiled loop from computing as this calculator does; "" where nothing does."""
    if type(calculator) is not MDGNNCalculator:
        return f"the calculator is {type(calculator).__name__}, not MDGNNCalculator"
    if calculator.engine is None:
        return f"the calculator's backend is {calculator.backend!r}, not 'engine'"
    if not calculator.info.has_energy:
        return "the model has learnt no energies"
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


def has_steps_of(integrator: Any) -> bool:
    """Whether the compiled loop takes the steps that this one of ASE's would take."""
    if "step" in vars(integrator):  # replaced
        return False
    if type(integrator) is Langevin:
        return np.ndim(integrator.fr) == np.ndim(integrator.temp) == 0 and not integrator.fix_com
    return type(integrator) is VelocityVerlet


class CompiledSystems:
    """Systems of one calculator on the compiled loop.

    Parameters
    ----------
    calculator : MDGNNCalculator
        With the engine as its backend.

    Attributes
    ----------
    structures : list of ase.Atoms
        Moved in place. Between calls they may be changed, as may the calculator's parameters.
    n_steps : list of int
        That each has taken, also in calls that an error or Ctrl-C ended.
    failed : dict
        By number of a system, the error that its calculator has for the positions where it stands: it moves no more.
    """

    def __init__(self, calculator: MDGNNCalculator):
        self.calculator = calculator
        self.structures: list[Atoms] = []
        self.n_steps: list[int] = []
        self.failed: dict[int, Exception] = {}
        self._were_close: set[int] = set()
        self._made_of: list[Made] = []
        self._model: tuple[Any, float] | None = None  # engine and least distance that the compiled systems have
        self._systems: _C.Systems
        self._follow_calculator()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is compiled, which is made anew of atoms and calculator."""
        state = self.__dict__ | {"_model": None}
        del state["_systems"]
        return state

    def add(self, atoms: Atoms) -> int:
        """One more system; its number.

        Raises
        ------
        ValueError
            For constraints other than FixAtoms or FixCom.
        """
        self._follow_calculator()
        k = len(self.structures)
        made_of = _made_of(atoms)
        self._put(k, atoms)
        self.structures.append(atoms)
        self._made_of.append(made_of)
        self.n_steps.append(0)
        return k

    def replace(self, k: int, atoms: Atoms) -> None:
        """Put other atoms into the place of system k; nothing of what was there is left. Raises as `add`."""
        self._follow_calculator()
        made_of = _made_of(atoms)
        self._put(k, atoms)
        self.structures[k], self._made_of[k], self.n_steps[k] = atoms, made_of, 0
        self.failed.pop(k, None)
        self._were_close.discard(k)

    def _put(self, k: int, atoms: Atoms) -> None:
        """Give the compiled system all but positions and momenta."""
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
        self._systems.put(k, atoms.numbers, atoms.get_masses(), cell, pbc, condition, fixed, together)

    def _follow_calculator(self) -> None:
        """Make all systems anew where the calculator has another engine, or refuses other distances."""
        calculator = self.calculator
        if reason := why_not(calculator):
            raise ValueError(f"expected a calculator that runs on the engine: {reason}")
        engine = calculator.engine
        assert engine is not None
        self.least = float(calculator.info.min_distance)
        limit = max(self.least, COINCIDENT) if calculator.too_close == "raise" else COINCIDENT
        if self._model is not None and self._model[0] is engine and self._model[1] == limit:
            return
        self._model = None
        self._systems = _C.Systems(engine._engine, engine.cutoff, SKIN * engine.cutoff, limit)
        for k, atoms in enumerate(self.structures):
            with self._named(k):
                if k not in self.failed:
                    check_atoms(atoms, calculator.info)
                self._put(k, atoms)
            self._made_of[k] = _made_of(atoms)
        self.failed.clear()
        self._model = engine, limit

    def _follow_atoms(self, k: int) -> None:
        """Make a system anew where more than positions and momenta of its atoms have changed."""
        atoms = self.structures[k]
        made_of = _made_of(atoms)
        if made_of != self._made_of[k]:
            with self._named(k):
                check_atoms(atoms, self.calculator.info)
                self._put(k, atoms)
            self._made_of[k] = made_of
            self.failed.pop(k, None)

    @contextmanager
    def _named(self, k: int) -> Iterator[None]:
        """Say in a ValueError which of many systems it is about."""
        try:
            yield
        except ValueError as error:
            if len(self.structures) == 1:
                raise
            raise ValueError(f"system {k}: {error}") from None

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
        temperatures: Sequence[float],
        rngs: Sequence[Any],
        steps: int,
    ) -> NDArray[np.int64]:
        """Constant temperature; all in ASE's units, temperatures as kB T; noise as ASE's Langevin draws it.

        Each has a generator of its own: which one draws when depends on the time that steps take. Where a system fails
        its generator may have gone on beyond the step. Returns the steps taken.
        """
        place = {k: n for n, k in enumerate(which)}

        def run(moving: list[int], steps: int) -> None:
            at = [place[k] for k in moving]
            sizes = [steps * 6 * len(self.structures[k]) for k in moving]
            noise = np.empty(sum(sizes))
            _draw([rngs[n] for n in at], np.split(noise, np.cumsum(sizes)[:-1]))
            self._systems.langevin(
                moving,
                timestep,
                [frictions[n] for n in at],
                [temperatures[n] for n in at],
                noise,
                steps,
                get_num_threads(),
            )

        return self._slices(which, steps, run)

    def relaxations(
        self,
        which: Iterable[int],
        fmax: float,
        steps: int,
        stop: Callable[[], bool] = lambda: False,
        refill: Callable[[int], bool] = lambda k: False,
    ) -> Iterator[tuple[int, bool, int]]:
        """FIRE, up to so many steps of each, which goes on where it stopped before.

        Yields each system that ends: its number, whether it converged, and its steps. After that `refill` may replace
        it, and says whether it has: then that one is relaxed too. Between slices of time `stop` is asked whether all
        are to end where they are.
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
                taken[k] = n
                if is_converged or has_failed or end or taken[k] == steps:
                    self._write([k])
                    yield k, is_converged, taken.pop(k)
                    if not end and refill(k):
                        taken[k] = 0
                        self._read([k])

    def results(self, k: int, atoms: Atoms) -> dict[str, Any] | None:
        """Those of the calculator, bit for bit, where the system is as these atoms; None where there are none."""
        if self._model is None or self._model[0] is not self.calculator.engine or k in self.failed:
            return None
        positions, _, _, known, energies, forces = self._systems.get(k)
        if not known or not same(positions, atoms.positions) or _made_of(atoms)[:3] != self._made_of[k][:3]:
            return None
        return energy_results(float(energies.sum()), energies, forces, None, atoms)

    def _slices(self, which: Sequence[int], steps: int, run: Callable[[list[int], int], None]) -> NDArray[np.int64]:
        """`steps` by `run`, in slices of time between which Python may interrupt; atoms are then as far as the loop."""
        before = np.array([self.n_steps[k] for k in which], dtype=np.int64)
        self._read(which)
        done, block = 0, 1
        try:
            while done < steps and (moving := self._moving(which)):
                block = min(block, steps - done)
                begin = time.perf_counter()
                run(moving, block)
                done += block
                self._states(moving)
                block = _next_block(block, time.perf_counter() - begin)
        finally:
            self._write(which)
        return np.array([self.n_steps[k] for k in which], dtype=np.int64) - before

    def _moving(self, which: Iterable[int]) -> list[int]:
        return [k for k in which if k not in self.failed]

    def _read(self, which: Iterable[int]) -> None:
        self._follow_calculator()
        for k in which:
            self._follow_atoms(k)
            atoms = self.structures[k]
            momenta = atoms.arrays.get("momenta")
            moved = self._systems.set(k, atoms.positions, np.zeros((len(atoms), 3)) if momenta is None else momenta)
            if moved:
                self.failed.pop(k, None)

    def _write(self, chosen: Sequence[int]) -> None:
        """Give atoms positions and momenta, count their steps, and learn why those that failed did."""
        for k in chosen:
            atoms = self.structures[k]
            positions, momenta, n_steps, *_ = self._systems.get(k)
            self.n_steps[k] += n_steps
            atoms.arrays["positions"][:] = positions
            if "momenta" in atoms.arrays:
                atoms.arrays["momenta"][:] = momenta
            elif momenta.any():
                atoms.arrays["momenta"] = momenta
        for k, failed in zip(chosen, self._states(chosen)[0], strict=True):
            if failed:
                self.failed[k] = self._error(k)

    def _states(self, which: Sequence[int]) -> tuple[list[bool], list[bool], list[int]]:
        """Whether they failed, whether they converged, and the steps of this call; warns of atoms too close."""
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


def _draw(rngs: Sequence[Any], parts: Sequence[NDArray[np.float64]]) -> None:
    """Fill each part with normal numbers from its own generator, over threads: numpy's draw without the GIL."""

    errors: list[BaseException] = []

    def draw(first: int, step: int) -> None:
        try:
            for rng, part in zip(rngs[first::step], parts[first::step], strict=True):
                if isinstance(rng, np.random.Generator):
                    rng.standard_normal(out=part)
                else:
                    part[:] = rng.standard_normal(len(part))
        except BaseException as error:
            errors.append(error)

    n = get_num_threads() if sum(len(part) for part in parts) > WORTH_A_THREAD else 1
    threads = [Thread(target=draw, args=(first, n)) for first in range(1, n)]
    for thread in threads:
        thread.start()
    draw(0, n)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _next_block(block: int, seconds: float) -> int:
    """Steps that take a slice of time, where so many took so long; their number changes no bits."""
    return int(np.clip(block * SLICE / max(seconds, 1e-6), 1, 4 * block))


def _made_of(atoms: Atoms) -> Made:
    """All of atoms that a step depends on but positions and momenta; first what results depend on."""
    masses = atoms.arrays.get("masses")
    held = [(type(one).__name__, one.index.tobytes() if type(one) is FixAtoms else b"") for one in atoms.constraints]
    numbers, cell, pbc = (part.tobytes() for part in (atoms.numbers, atoms.cell.array, atoms.pbc))
    return numbers, cell, pbc, None if masses is None else masses.tobytes(), held


def _itself(calculator: Calculator) -> Calculator:
    return calculator


class CompiledResults(CachingCalculator):
    """The calculator of a system in the loop: what the loop has computed, and what else atoms are asked for.

    A copy of it belongs to no loop: it is a copy of the loop's calculator.
    """

    def __init__(self, systems: CompiledSystems, k: int):
        super().__init__()  # type: ignore[no-untyped-call]
        self.systems, self.k = systems, k
        self.implemented_properties = systems.calculator.implemented_properties
        self.others = systems.calculator.others

    def __reduce__(self) -> tuple[Callable[[Calculator], Calculator], tuple[Calculator]]:
        return _itself, (self.systems.calculator,)

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
        results = None if stress or others else self.systems.results(self.k, atoms)
        if results is None:
            results = self.systems.calculator.compute(atoms, stress=stress, others=others)
        self.results, self.atoms = results, atoms
