"""Molecular dynamics of many small systems at once, each in a folder of its own."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError

from mdgnn._internal.file_names import shell_path
from mdgnn._internal.run_errors import InterruptedRunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator
from mdgnn.dynamics import run_folder
from mdgnn.dynamics.ensembles import NVE, Ensemble
from mdgnn.dynamics.many import ManyMolecularDynamics, check_structures, on_engine
from mdgnn.dynamics.molecular_dynamics import MolecularDynamics, check_reduced_momenta
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.simulation import LOOK, SOURCE, Run, checked_counts, settings_of
from mdgnn.dynamics.system import System, make_system, named_calculator
from mdgnn.dynamics.units import LJ


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
    """Molecular dynamics of copies of the atoms, over threads; each has a folder, from where `restart` goes on.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        As of `ManyMolecularDynamics`.
    calculator : str, Path or MDGNNCalculator
        The name of a shipped model, a model file, or a calculator on the engine.
    ensemble : NVE or Langevin
        By default ``NVE()``.
    folder : str or Path
        Gets summary.json, and for each structure a folder, named by its number, of what `simulate` leaves, without
        plots.
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
        check_structures(structures, engine)
        ensemble = ensemble or NVE()
        systems = _systems(structures, ensemble, engine, reporter)
        systems = [replace(system, model=model, sha256=sha256) for system in systems]
        rngs = [np.random.default_rng([counts["seed"], k]) for k in range(len(systems))]
        many = ManyMolecularDynamics([s.atoms for s in systems], ensemble, engine, timestep, rngs)
        for place in _places(folder, _n_structures_of(folder)):  # of an earlier run, which may have had more
            if place.is_dir():
                run_folder.clear(place)
                if not any(place.iterdir()):
                    place.rmdir()
        run_folder.clear(folder)
        runs = []
        for k, (system, place) in enumerate(zip(systems, _places(folder, len(systems)), strict=True)):
            place.mkdir(exist_ok=True)
            run_folder.clear(place)
            runs.append(_run(system, many, k, {**source, "index": k}, counts, place, reporter))
        begin = time.perf_counter()
        stopped = _advance(many, runs, counts["steps"], reporter)
        summaries = _end(many, runs, time.perf_counter() - begin)
        errors = {str(k): str(error) for k, error in many.failed.items()}
        summary = {
            "command": "md",
            "settings": _common_settings(runs, source) | counts,
            "model_sha256": sha256,
            "n_structures": len(runs),
            "steps": int(many.n_steps.max(initial=0)),
            "mean_temperature_second_half": float(np.mean([s["mean_temperature_second_half"] for s in summaries] or 0)),
            "errors": errors,
            "wall_time_s": time.perf_counter() - begin,
        }
        run_folder.write_summary(folder, summary)
    if stopped is not None:
        go_on = f"mdgnn md --restart {shell_path(runs[0].folder)}" if runs and sha256 else "mdgnn.dynamics.restart"
        message = f"stopped after step {summary['steps']} of {counts['steps']}; each goes on by itself: {go_on}"
        raise InterruptedRunError(stopped, message)
    return summary


def _places(folder: Path, n_structures: int) -> list[Path]:
    """The folders of so many systems."""
    width = len(str(max(n_structures - 1, 0)))
    return [folder / f"{k:0{width}d}" for k in range(n_structures)]


def _n_structures_of(folder: Path) -> int:
    """Of the run that left a summary there; 0 without one."""
    try:
        n = json.loads((folder / run_folder.SUMMARY).read_text())["n_structures"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return n if isinstance(n, int) else 0


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


def _advance(many: ManyMolecularDynamics, runs: list[Run], steps: int, reporter: Reporter) -> int | None:
    """All steps, with what is to be recorded of them; the signal that ended them early."""
    done, seconds = 0, LOOK
    with StopSignals() as stop, reporter.progress("md", steps) as show:
        for k, run in enumerate(runs):
            if k not in many.failed:
                run.begin()
        while done < steps and not stop.received and len(many.failed) < len(runs):
            n, before = runs[0].steps_until_next(seconds, done), time.perf_counter()
            many.advance(n)
            seconds, done = (time.perf_counter() - before) / n, done + n
            for k, run in enumerate(runs):
                if k not in many.failed:
                    run.md.n_steps = done
                    run.record()
            show(done, f"T {np.mean(many.temperatures):.4g}")
        for k, run in enumerate(runs):
            if k not in many.failed:
                run.save()
    return stop.received if done < steps else None


def _end(many: ManyMolecularDynamics, runs: list[Run], seconds: float) -> list[dict[str, Any]]:
    """Summaries of those that came to the end."""
    with StopSignals():  # which come too late
        return [run.end(run.md.n_steps, seconds) for k, run in enumerate(runs) if k not in many.failed]
