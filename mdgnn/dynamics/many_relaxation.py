"""Relaxation of many small systems at once, in the compiled loop, over threads."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator

from mdgnn._internal.file_names import shell_path
from mdgnn._internal.replace_file import replace_file
from mdgnn._internal.run_errors import InterruptedRunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.dynamics import run_folder
from mdgnn.dynamics.arrays_and_info import remove_stale
from mdgnn.dynamics.compiled import CompiledSystems
from mdgnn.dynamics.many import check_structure, check_structures, copy_of, on_engine
from mdgnn.dynamics.molecular_dynamics import whole_number
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.system import named_calculator, precision_of
from mdgnn.dynamics.units import UnitSystem, units_of


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


class UnwrittenRelaxationsError(OSError):
    """The folder could not be written, such as on a full disk; `relaxations` has what was to be there."""

    def __init__(self, error: OSError, relaxations: list[ManyRelaxation]):
        super().__init__(error.errno, error.strerror or str(error), error.filename)
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
    UnwrittenRelaxationsError
        For a folder that cannot be written in the end; it has the results.
    InterruptedRelaxationsError
        After SIGINT or SIGTERM; files in the folder have what was done by then.

    Examples
    --------
    ::

        results = relax_many(ase.io.read("many.xyz", ":"), "lj", fmax=0.01)
        lowest = min(results, key=lambda result: result.energy)
    """
    _check_fmax(fmax)
    steps, structures = whole_number("steps", steps, 0), list(structures)
    folder, reporter = None if folder is None else Path(folder), reporter or Reporter()
    with nullcontext() if folder is None else run_folder.hold(folder, force):
        given, model, sha256 = named_calculator(calculator, device, dtype)
        engine = on_engine(given)
        copies = [copy_of(atoms, units_of(engine)) for atoms in structures]
        doubt = check_structures(copies, engine)
        settings = {**(source or {}), "model": model, **precision_of(engine), "fmax": fmax, "optimizer": "FIRE"}
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
                try:
                    _write(folder, results, summary | {"wall_time_s": time.perf_counter() - begin}, units_of(engine))
                except OSError as error:
                    raise UnwrittenRelaxationsError(error, results) from error
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


def relax_as_completed(
    structures: Iterable[Atoms],
    calculator: str | Path | Calculator,
    *,
    fmax: float = 0.01,
    steps: int = 1000,
    in_flight: int = 256,
    device: str = "cpu",
    dtype: str = "float32",
) -> Iterator[tuple[int, ManyRelaxation]]:
    """The relaxations of `relax_many`, bit for bit, of any number of structures, each given out when it ends.

    Its place is taken by the next structure, so that no more are in memory than move at a time.

    Parameters
    ----------
    structures : iterable of ase.Atoms
        Asked for the next one when there is a place.
    calculator, fmax, steps, device, dtype
        As of `relax_many`.
    in_flight : int
        How many move at a time.

    Yields
    ------
    int, ManyRelaxation
        The structure's number, in the order in which they end. One that cannot be moved has an `error`.

    Raises
    ------
    ValueError
        For a parameter or calculator that cannot be, at the call.

    Examples
    --------
    ::

        for k, result in relax_as_completed(candidates(), "lj", fmax=0.01):
            if result.converged:
                database.write(result.atoms, number=k)
    """
    _check_fmax(fmax)
    steps, in_flight = whole_number("steps", steps, 0), whole_number("in_flight", in_flight, 1)
    engine = on_engine(named_calculator(calculator, device, dtype)[0])

    def prepared(atoms: Atoms) -> Atoms:
        copy = copy_of(atoms, units_of(engine))
        check_structure(copy, engine)
        return copy

    return _relaxations(structures, prepared, engine, fmax, steps, in_flight, lambda: False)


def _check_fmax(fmax: float) -> None:
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f"expected a positive fmax, got {fmax}")


def _relax(
    structures: list[Atoms], calculator: MDGNNCalculator, fmax: float, steps: int, reporter: Reporter
) -> tuple[list[ManyRelaxation], int | None]:
    """What came of them, and the signal that ended them early."""
    done: dict[int, ManyRelaxation] = {}
    with StopSignals() as stop, reporter.progress("relax", len(structures)) as show:
        every = len(structures), lambda: stop.received is not None
        for k, result in _relaxations(structures, lambda atoms: atoms, calculator, fmax, steps, *every):
            done[k] = result
            show(len(done), f"fmax {result.fmax:.4f}")
    return [done[k] for k in range(len(structures))], stop.received


def _relaxations(
    structures: Iterable[Atoms],
    prepared: Callable[[Atoms], Atoms],
    calculator: MDGNNCalculator,
    fmax: float,
    steps: int,
    in_flight: int,
    stop: Callable[[], bool],
) -> Iterator[tuple[int, ManyRelaxation]]:
    """Each as it ends; those that cannot be prepared end with an error."""
    systems, coming = CompiledSystems(calculator), enumerate(structures)
    numbers: list[int] = []  # by place, of the structure that is there
    refused: list[tuple[int, ManyRelaxation]] = []

    def refill(place: int) -> bool:
        for k, atoms in coming:
            try:
                copy = prepared(atoms)
            except ValueError as error:
                refused.append((k, ManyRelaxation(atoms.copy(), False, 0, float("nan"), str(error))))
                continue
            if place == len(numbers):
                numbers.append(k)
                systems.add(copy)
            else:
                numbers[place] = k
                systems.replace(place, copy)
            return True
        return False

    while len(numbers) < in_flight and refill(len(numbers)):
        pass
    for place, converged, n in systems.relaxations(range(len(numbers)), fmax, steps, stop, refill):
        yield from refused
        refused.clear()
        yield numbers[place], _relaxation(systems, place, converged, n)
    yield from refused


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
    forces = atoms.get_forces() if atoms.constraints else results["forces"]  # the former takes 50 us
    return ManyRelaxation(atoms, converged, steps, float(np.linalg.norm(forces, axis=1).max(initial=0)))
