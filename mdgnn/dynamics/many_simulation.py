"""Molecular dynamics of many small systems at once, each in a folder of its own."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError

from mdgnn._internal.file_names import shell_path
from mdgnn._internal.folder_lock import check_idle, lock_folder
from mdgnn._internal.run_errors import InterruptedRunError, RunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.dynamics import checkpoint, run_folder
from mdgnn.dynamics.checkpoint import Checkpoint
from mdgnn.dynamics.ensembles import NVE, Ensemble
from mdgnn.dynamics.many import ManyMolecularDynamics, check_structures, copy_of, on_engine
from mdgnn.dynamics.molecular_dynamics import MolecularDynamics, check_reduced_momenta
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.simulation import (
    LOOK,
    SOURCE,
    Run,
    check_same,
    checked_counts,
    continued,
    continued_settings,
    settings_of,
    source_of,
)
from mdgnn.dynamics.system import System, make_system, named_calculator
from mdgnn.dynamics.units import LJ, units_of


def simulate_many(
    structures: Sequence[Atoms],
    calculator: str | Path | Calculator,
    ensemble: Ensemble | None = None,
    *,
    folder: str | Path,
    steps: int = 1000,
    timestep: float | None = None,
    seed: int = 0,
    interval: int = 10,
    checkpoint_interval: int = 500,
    force: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    source: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Molecular dynamics of copies of the atoms, over threads; each has a folder.

    `restart_many` goes on with all of them, and `restart`, while they do not run, with one alone.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        As of `ManyMolecularDynamics`.
    calculator : str, Path or MDGNNCalculator
        The name of a shipped model, a model file, or a calculator on the engine.
    ensemble : NVE or Langevin
        By default ``NVE()``.
    folder : str or Path
        Gets systems.json, summary.json, and for each structure a folder, named by its number, of what `simulate`
        leaves, without plots.
    seed : int
        System k has ``numpy.random.default_rng([seed, k])``.
    steps, timestep, interval, checkpoint_interval, force, device, dtype, source, reporter
        As of `simulate`.

    Returns
    -------
    dict
        What summary.json holds; "errors" says which systems could not go on, and why.

    Raises
    ------
    ValueError, RunError, InUseError, OSError
        As `simulate`; the message has the structure's number.
    InterruptedRunError
        After SIGINT or SIGTERM; the last checkpoints are of the last step.
    """
    folder, reporter, source = Path(folder), reporter or Reporter(), dict(source or {})
    counts = checked_counts(steps, seed, interval, checkpoint_interval)
    with run_folder.hold(folder, force):
        given, model, sha256 = named_calculator(calculator, device, dtype)
        engine = on_engine(given)
        check_structures([copy_of(atoms, units_of(engine)) for atoms in structures], engine)
        ensemble = ensemble or NVE()
        systems = _systems(structures, ensemble, engine, reporter)
        systems = [replace(system, model=model, sha256=sha256) for system in systems]
        rngs = [np.random.default_rng([counts["seed"], k]) for k in range(len(systems))]
        many = ManyMolecularDynamics([s.atoms for s in systems], ensemble, engine, timestep, rngs)
        n_before = run_folder.read_systems(folder)[0] if run_folder.holds_many(folder) else 0
        before, places = run_folder.places(folder, n_before), run_folder.places(folder, len(systems))
        for place in {*before, *places}:
            check_idle(place)
        for place in before:  # an earlier run may have had more systems
            if place.is_dir():
                run_folder.clear(place)
                if not any(place.iterdir()):
                    place.rmdir()
        run_folder.clear(folder)
        for place in places:
            place.mkdir(exist_ok=True)
            run_folder.clear(place)
        run_folder.write_systems(folder, len(systems), source)
        runs = [
            _run(system, many, k, {**source, "index": k}, counts, place, reporter)
            for k, (system, place) in enumerate(zip(systems, places, strict=True))
        ]
        return _finish(many, runs, folder, source, counts, reporter, fresh=True)


def restart_many(
    folder: str | Path,
    *,
    steps: int | None = None,
    model: str | Path | None = None,
    calculator: Calculator | None = None,
    expected: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Continue all systems of a run by `simulate_many`, each from its checkpoint, bit for bit.

    After a kill they may be at different steps: those behind go first. One that could not go on ends there again.

    Parameters
    ----------
    folder : str or Path
    steps : int, optional
        Of the whole run, those done included; by default each has as many as before.
    model, calculator, expected, reporter
        As of `restart`.

    Returns
    -------
    dict
        What summary.json holds, as after `simulate_many`.

    Raises
    ------
    RunError, ValueError
        As `restart`; the message has the system's number. Also if a system had not begun when the run ended.
    InUseError
        While another job has the folder, or that of a system.
    InterruptedRunError
        As `simulate_many`.
    """
    folder, reporter = Path(folder), reporter or Reporter()
    if not folder.is_dir():
        raise RunError(f"there is no folder {folder} to restart from")
    with lock_folder(folder):
        n, source = run_folder.read_systems(folder)
        places = run_folder.places(folder, n)
        states, settings = _checkpoints(folder, places, steps, expected or {})
        systems, engine = _same_systems(states, settings, model, calculator, reporter)
        mds = [continued(*each) for each in zip(systems, settings, states, strict=True)]
        ensembles, rngs = [md.ensemble for md in mds], [md.rng for md in mds]
        many = ManyMolecularDynamics([md.atoms for md in mds], ensembles, engine, mds[0].timestep, rngs, fresh=False)
        runs = [
            Run(systems[k], md, settings[k], run_folder.Records(place, md.header(), states[k].lengths), place, reporter)
            for k, (md, place) in enumerate(zip(mds, places, strict=True))
        ]
        counts = {name: settings[0][name] for name in ("steps", "seed", "interval", "checkpoint_interval")}
        counts["steps"] = max(of_one["steps"] for of_one in settings)
        return _finish(many, runs, folder, source, counts, reporter, fresh=False)


def _checkpoints(
    folder: Path, places: Sequence[Path], steps: int | None, expected: Mapping[str, Any]
) -> tuple[list[Checkpoint], list[dict[str, Any]]]:
    """Those of all systems, and the settings that they go on with."""
    expected = {name: value for name, value in expected.items() if (name, value) != ("index", ":")}
    states: list[Checkpoint] = []
    settings: list[dict[str, Any]] = []
    for k, place in enumerate(places):
        with _of_system(k):
            check_idle(place)
            if not (path := place / run_folder.CHECKPOINT).is_file():
                raise RunError(
                    f"it had not begun when the run in {folder} ended, there is no {path}: begin again (--force, or "
                    "force=True)"
                )
            states.append(checkpoint.load(path))
            settings.append(continued_settings(states[k], steps, expected))
            for name in ("ensemble", "timestep", "interval", "checkpoint_interval"):
                if settings[k][name] != settings[0][name]:
                    raise RunError(f"its {name} is {settings[k][name]}, that of system 0 is {settings[0][name]}")
    if not states:
        raise RunError(f"the run in {folder} has no systems")
    return states, settings


def _same_systems(
    states: Sequence[Checkpoint],
    settings: Sequence[dict[str, Any]],
    model: str | Path | None,
    calculator: Calculator | None,
    reporter: Reporter,
) -> tuple[list[System], MDGNNCalculator]:
    """The atoms of checkpoints with the calculator of the run, which they share."""
    source, precision = source_of(states[0], settings[0], model, calculator)
    shared, name, sha256 = named_calculator(source, precision.get("device", "cpu"), precision.get("dtype", "float32"))
    engine = on_engine(shared)
    systems = []
    for k, state in enumerate(states):
        with _of_system(k):
            system = replace(make_system(state.atoms, engine, note=reporter.note), model=name, sha256=sha256)
            check_same(system, state, settings[k])
        settings[k]["model"] = name
        systems.append(system)
    return systems, engine


@contextmanager
def _of_system(k: int) -> Iterator[None]:
    """Say in an error which system it is about."""
    try:
        yield
    except RunError as error:
        raise RunError(f"system {k}: {error}") from None
    except ValueError as error:
        raise ValueError(f"system {k}: {error}") from None


def _finish(
    many: ManyMolecularDynamics,
    runs: list[Run],
    folder: Path,
    source: Mapping[str, Any],
    counts: Mapping[str, int],
    reporter: Reporter,
    fresh: bool,
) -> dict[str, Any]:
    """Take the steps that remain, write all there is to write, and return the summary of all."""
    begin, first = time.perf_counter(), [run.md.n_steps for run in runs]
    stopped = _advance(many, runs, counts["steps"], reporter, fresh)
    seconds = time.perf_counter() - begin
    with StopSignals():  # which come too late
        summaries = [run.end(run.md.n_steps - first[k], seconds) for k, run in enumerate(runs) if k not in many.failed]
        summary = {
            "command": "md",
            "settings": {**_common_settings(runs, source), **counts},
            "model_sha256": runs[0].system.sha256 if runs else "",
            "n_structures": len(runs),
            "steps": max((run.md.n_steps for run in runs), default=0),
            "mean_temperature_second_half": float(np.mean([s["mean_temperature_second_half"] for s in summaries] or 0)),
            "errors": {str(k): str(error) for k, error in many.failed.items()},
            "wall_time_s": time.perf_counter() - begin,
        }
        run_folder.write_summary(folder, summary)
    if stopped is not None:
        go_on = f"mdgnn md --restart {shell_path(folder)}"
        if not summary["model_sha256"]:  # the command line has no such calculators
            go_on = f"mdgnn.dynamics.restart_many({str(folder)!r}, calculator=...)"
        step = min(run.md.n_steps for k, run in enumerate(runs) if k not in many.failed)
        raise InterruptedRunError(stopped, f"stopped after step {step} of {counts['steps']}; go on: {go_on}")
    return summary


def _systems(
    structures: Sequence[Atoms], ensemble: Ensemble, calculator: MDGNNCalculator, reporter: Reporter
) -> list[System]:
    """Copies of structures, as `simulate` makes them; notes about them are told once."""
    notes: dict[str, None] = {}
    systems = []
    for k, atoms in enumerate(structures):
        try:
            systems.append(make_system(atoms.copy(), calculator, note=lambda sentence: notes.update({sentence: None})))
            if systems[-1].units is LJ:
                check_reduced_momenta(atoms, ensemble.temperature)  # those of the system are 1 by now
        except (ValueError, CalculatorError) as error:
            raise ValueError(f"structure {k}: {error}") from None
    for sentence in notes:
        reporter.note(sentence)
    return systems


def _run(
    system: System,
    many: ManyMolecularDynamics,
    k: int,
    source: Mapping[str, Any],
    counts: Mapping[str, int],
    folder: Path,
    reporter: Reporter,
) -> Run:
    """The files of one system, which the many move."""
    md = MolecularDynamics(system.atoms, many.ensembles[k], many.timestep, many.rngs[k], many.units, state={})
    settings = {**settings_of(system, md, source), **counts}
    return Run(system, md, settings, run_folder.Records(folder, md.header()), folder, reporter)


def _common_settings(runs: Sequence[Run], source: Mapping[str, Any]) -> dict[str, Any]:
    """Of all systems: where atoms come from is said of all together."""
    of_all = runs[0].settings if runs else {}
    own = {name: source[name] for name in SOURCE if source.get(name) is not None}
    return {name: value for name, value in of_all.items() if name not in SOURCE} | own


def _advance(many: ManyMolecularDynamics, runs: list[Run], steps: int, reporter: Reporter, fresh: bool) -> int | None:
    """All steps that remain, with what is to be recorded of them; the signal that ended them early."""
    seconds = LOOK  # of a step
    with StopSignals() as stop, reporter.progress("md", steps) as show:
        if fresh:
            for run in runs:
                run.begin()
        while (moving := _moving(many, runs)) and not stop.received:
            at = {k: runs[k].md.n_steps for k in moving}
            done = min(at.values())
            behind = [k for k in moving if at[k] == done]
            n = min(runs[k].steps_until_next(seconds, done) for k in behind)
            n = min([n, *(step - done for step in at.values() if step > done)])
            before = time.perf_counter()
            many.advance(n, behind)
            seconds = (time.perf_counter() - before) / n
            for k in behind:
                if k not in many.failed:
                    runs[k].md.n_steps = done + n
                    runs[k].record()
            show(done + n, f"{len(moving)} of {len(runs)} systems")
        for k, run in enumerate(runs):
            if k not in many.failed:
                run.save()
    return stop.received if _moving(many, runs) else None


def _moving(many: ManyMolecularDynamics, runs: list[Run]) -> list[int]:
    """Those that have steps to take."""
    return [k for k, run in enumerate(runs) if k not in many.failed and run.md.n_steps < run.settings["steps"]]
