"""Relaxation and molecular dynamics of many small systems at once, in the compiled loop, over threads."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase import units as ase_units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from mdgnn._internal.file_names import shell_path
from mdgnn._internal.replace_file import replace_file
from mdgnn._internal.run_errors import InterruptedRunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.dynamics import run_folder
from mdgnn.dynamics.arrays_and_info import remove_stale
from mdgnn.dynamics.compiled import CompiledResults, CompiledSystems, constraint_that_is_not_compiled, why_not
from mdgnn.dynamics.ensembles import NVE, Ensemble, Langevin
from mdgnn.dynamics.molecular_dynamics import check_reduced_momenta, check_timestep, prepare, whole_number
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.system import check_system, named_calculator, precision_of
from mdgnn.dynamics.units import LJ, UnitSystem, units_of


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
    """After SIGINT or SIGTERM; `relaxations` has all systems as far as they came."""

    def __init__(self, signum: int, message: str, relaxations: list[ManyRelaxation]):
        super().__init__(signum, message)
        self.relaxations = relaxations


def relax_many(
    structures: Iterable[Atoms],
    calculator: str | Path | Calculator,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    folder: str | Path | None = None,
    force: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    source: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> list[ManyRelaxation]:
    """Move copies of the atoms by FIRE until the forces vanish; many systems at once, over threads.

    Each system has the steps and the bits that it has alone, for any number of threads; FIRE is ASE's. A system that
    the model cannot treat any more ends with an error, and the others go on.

    Parameters
    ----------
    structures : iterable of ase.Atoms
        They may differ in everything. Of constraints they may have FixAtoms or FixCom.
    calculator : str, Path or MDGNNCalculator
        The name of a shipped model, a model file, or a calculator on the engine.
    fmax : float
        Largest force allowed, in epsilon/sigma or eV/Angstrom.
    steps : int
        Of each system, after which it is given up.
    folder : str or Path, optional
        Where to leave final.xyz, a frame for each structure; log.csv, a row for each; and summary.json. Without it
        nothing is written.
    force : bool
        Replace an earlier run's files there.
    device, dtype : str
        Of the model, where the calculator is a name or file; the device is the CPU.
    source : mapping, optional
        Where the atoms come from, for the summary; "structure" is their name.
    reporter : Reporter, optional
        Gets notes and the progress; by default notes are warnings.

    Returns
    -------
    list of ManyRelaxation
        In the order of the structures.

    Raises
    ------
    ValueError
        For a parameter or structure that cannot be, before anything moves; the message has the structure's number.
    RunError, InUseError, OSError
        For a folder that is not empty, that another job has, or that cannot be written.
    InterruptedRelaxationsError
        After SIGINT or SIGTERM; files in the folder have what was done by then.

    Examples
    --------
    ::

        results = relax_many(ase.io.read("many.xyz", ":"), "lj", fmax=0.01)
        lowest = min(results, key=lambda result: result.energy)
    """
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f"expected a positive fmax, got {fmax}")
    steps, structures = whole_number("steps", steps, 0), list(structures)
    folder, reporter = None if folder is None else Path(folder), reporter or Reporter()
    with nullcontext() if folder is None else run_folder.hold(folder, force):
        given, model, sha256 = named_calculator(calculator, device, dtype)
        engine = on_engine(given)
        doubt = check_structures(structures, engine)
        settings = {**(source or {}), "model": model, **precision_of(engine), "fmax": fmax, "optimizer": "FIRE"}
        copies = [_copy(atoms, units_of(engine)) for atoms in structures]
        if doubt:
            reporter.note(doubt)
        if folder is not None:
            for sentence in dict.fromkeys(sentence for atoms in copies for sentence in remove_stale(atoms)):
                reporter.note(sentence)
            run_folder.clear(folder)
        begin = time.perf_counter()
        results, signum = _relax(copies, engine, fmax, steps, reporter)
        if folder is not None:
            summary = {"settings": {**settings, "steps": steps}, "model_sha256": sha256}
            with StopSignals():  # which come too late
                _write(folder, results, summary | {"wall_time_s": time.perf_counter() - begin}, units_of(engine))
    unfinished = sum(not (r.converged or r.error or r.steps == steps) for r in results)
    if unfinished and signum is not None:
        message = f"stopped after {len(results) - unfinished} of {len(results)} relaxations"
        if folder is not None:
            frames = folder / run_folder.FINAL
            go_on = f"mdgnn relax {shell_path(frames)} --index : --model {shell_path(model)}"
            go_on += f" --dtype {dtype} --fmax {float(fmax)!r} --steps {steps}"
            if not sha256:  # the command line has no such calculators
                go_on = f"mdgnn.dynamics.relax_many(ase.io.read({str(frames)!r}, ':'), calculator"
                go_on += f", fmax={float(fmax)!r}, steps={steps})"
            message += f"; go on: {go_on}"
        raise InterruptedRelaxationsError(signum, message, results)
    return results


def _relax(
    structures: list[Atoms], calculator: MDGNNCalculator, fmax: float, steps: int, reporter: Reporter
) -> tuple[list[ManyRelaxation], int | None]:
    """What came of them, and the signal that ended them early."""
    systems = CompiledSystems(calculator)
    which = [systems.add(atoms) for atoms in structures]
    done: dict[int, ManyRelaxation] = {}
    with StopSignals() as stop, reporter.progress("relax", len(structures)) as show:
        for k, converged, n in systems.relaxations(which, fmax, steps, lambda: stop.received is not None):
            done[k] = _relaxation(systems, k, converged, n)
            show(len(done), f"fmax {done[k].fmax:.4f}")
    return [done[k] for k in which], stop.received


def _write(folder: Path, results: list[ManyRelaxation], summary: dict[str, Any], units: UnitSystem) -> None:
    header = f"structure,steps,energy[{units.energy}],fmax[{units.force}],converged\n"
    rows = (f"{k},{r.steps},{r.energy!r},{r.fmax!r},{int(r.converged)}\n" for k, r in enumerate(results))
    replace_file(folder / run_folder.LOG, (header + "".join(rows)).encode())
    replace_file(folder / run_folder.FINAL, b"".join(run_folder.frame(r.atoms) for r in results))
    about = {
        "command": "relax",
        "units": {"energy": units.energy, "length": units.length},
        "n_structures": len(results),
        "n_converged": sum(r.converged for r in results),
        "errors": {str(k): r.error for k, r in enumerate(results) if r.error},
        "most_steps": max((r.steps for r in results), default=0),
    }
    run_folder.write_summary(folder, about | summary)


def _relaxation(systems: CompiledSystems, k: int, converged: bool, steps: int) -> ManyRelaxation:
    atoms = systems.structures[k]
    if k in systems.failed:
        return ManyRelaxation(atoms, False, steps, float("nan"), str(systems.failed[k]))
    results = systems.results(k, atoms)
    assert results is not None
    atoms.calc = SinglePointCalculator(atoms, energy=results["energy"], forces=results["forces"])
    return ManyRelaxation(atoms, converged, steps, float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0)))


def on_engine(calculator: Calculator) -> MDGNNCalculator:
    """This calculator; a ValueError unless the compiled loop can compute as it does."""
    if reason := why_not(calculator):
        raise ValueError(f"expected a calculator that runs on the engine, for many systems at once: {reason}")
    assert isinstance(calculator, MDGNNCalculator)
    return calculator


def check_structures(structures: Sequence[Atoms], calculator: MDGNNCalculator) -> str:
    """Doubts about the first structure of which there are some, as where it moves alone, in a sentence, or "".

    Raises
    ------
    ValueError
        That says which structure cannot be moved, and why.
    """
    doubts, units = {}, units_of(calculator)
    for k, atoms in enumerate(structures):
        try:
            if doubt := check_system(_copy(atoms, units), [calculator], units):
                doubts[k] = doubt
        except ValueError as error:
            raise ValueError(f"structure {k}: {error}") from None
        if name := constraint_that_is_not_compiled(atoms):
            raise ValueError(
                f"structure {k}: expected no constraints but FixAtoms or FixCom where many systems move at once, got "
                f"{name}; such a system moves alone"
            )
    for k, doubt in doubts.items():
        return f"structure {k}, the first of {len(doubts)}: {doubt}"
    return ""


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
        FixAtoms or FixCom. Between calls they may be changed, as may the calculator's parameters.
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
        Steps that each has taken, also in calls that an error or Ctrl-C ended; one that failed stands still.
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
        first: dict[int, int] = {}
        for k, atoms in enumerate(self.structures):
            if (before := first.setdefault(id(atoms), k)) != k:
                raise ValueError(
                    f"expected structures of their own, got the same Atoms for {before} and {k}: copy them"
                )
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for k, atoms in enumerate(self.structures):  # whose copies have copies of the loop's calculator
            atoms.calc = CompiledResults(self._systems, k)

    @property
    def n_steps(self) -> NDArray[np.int64]:
        """Of each system."""
        return np.array(self._systems.n_steps, dtype=np.int64)

    def advance(self, steps: int) -> None:
        """So many time steps of all systems that have not failed; every 0.1 s Python may interrupt."""
        steps = whole_number("steps", steps, 0)
        which, timestep = range(len(self.structures)), self.timestep * self.units.ase_time
        if which and isinstance(self.ensembles[0], Langevin):
            frictions = [float(one.friction) / self.units.ase_time for one in self.ensembles]  # type: ignore[attr-defined]
            kelvin = [float(one.temperature or 0.0) * self.units.kelvin for one in self.ensembles]
            temperatures = [ase_units.kB * one for one in kelvin]
            self._systems.langevin(which, timestep, frictions, temperatures, self.rngs, steps)
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
