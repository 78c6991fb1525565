"""Molecular dynamics in a folder, which can be stopped, killed and continued without a trace."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from mdgnn._internal.file_names import shell_path
from mdgnn._internal.folder_lock import check_idle, lock_folder
from mdgnn._internal.run_errors import InterruptedRunError, RunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.dynamics import checkpoint, npt, run_folder
from mdgnn.dynamics.checkpoint import Checkpoint
from mdgnn.dynamics.ensembles import NVE, Ensemble, make_ensemble
from mdgnn.dynamics.md_plots import draw_run
from mdgnn.dynamics.molecular_dynamics import (
    MolecularDynamics,
    check_reduced_momenta,
    check_timestep,
    drift,
    whole_number,
)
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.system import System, calculator_sha256, make_system, suitable_threads
from mdgnn.dynamics.units import LJ

LOOK = 0.1  # seconds, about, after which a signal is seen
SOURCE = ("structure", "index", "format")  # settings that say where the atoms come from


def simulate(
    atoms: Atoms,
    calculator: str | Path | Calculator | None = None,
    ensemble: Ensemble | None = None,
    *,
    folder: str | Path,
    steps: int = 1000,
    timestep: float | None = None,
    seed: int = 0,
    rng: np.random.Generator | None = None,
    interval: int = 10,
    checkpoint_interval: int = 500,
    force: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    source: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Molecular dynamics of a copy of the atoms; everything is left in `folder`, from where `restart` goes on.

    Parameters
    ----------
    atoms : ase.Atoms
        With their constraints, which hold, and momenta, which stay unless the ensemble has a temperature. In reduced
        units the masses of the copy are 1.
    calculator : str, Path or ASE calculator, optional
        The name of a shipped model, a model file, or any calculator; by default that of the atoms.
    ensemble : NVE, Langevin or NPT
        By default ``NVE()``.
    folder : str or Path
        Gets trajectory.xyz, log.csv, final.xyz, summary.json, checkpoint.npz and plots.
    steps : int
    timestep : float, optional
        In tau or fs; by default 0.005 tau or 1 fs.
    seed : int
        Of velocities and noise.
    rng : numpy.random.Generator, optional
        Of PCG64: one of that seed which has made the atoms, and is to go on.
    interval, checkpoint_interval : int
        Steps between records of trajectory and log, and between checkpoints.
    force : bool
        Replace an earlier run's files in the folder.
    device, dtype : str
        Of the model, where the calculator is a name or file.
    source : mapping, optional
        Where the atoms come from, for the records: "structure", their name, "index", "format".
    reporter : Reporter, optional
        Gets notes and the progress; by default notes are warnings.

    Returns
    -------
    dict
        What summary.json holds.

    Raises
    ------
    ValueError
        For a parameter or structure that cannot be, before anything is written.
    RunError, InUseError, OSError
        For a folder that is not empty, that another job has, or that cannot be written; for a cell that explodes.
        Whatever was written until then stays, as it does after errors of the calculator.
    InterruptedRunError
        After SIGINT or SIGTERM; the last checkpoint is of the last step.
    """
    folder, ensemble, reporter, source = Path(folder), ensemble or NVE(), reporter or Reporter(), source or {}
    ensemble.check()
    check_timestep(timestep)
    counts = checked_counts(steps, seed, interval, checkpoint_interval)
    rng = _checked_rng(rng, counts["seed"])
    calculator = atoms.calc if calculator is None else calculator
    if calculator is None:
        raise ValueError("expected a calculator, or atoms with one, got none")
    with run_folder.hold(folder, force):
        ensemble.check_structure(atoms, source.get("structure", "the structure"))
        system = make_system(atoms.copy(), calculator, device, dtype, reporter.note)
        if system.units is LJ:
            check_reduced_momenta(atoms, ensemble.temperature)  # those of the system are 1 by now
        md = MolecularDynamics(system.atoms, ensemble, timestep, rng, system.units)
        run_folder.clear(folder)
        records = run_folder.Records(folder, md.header())
        return Run(system, md, settings_of(system, md, source) | counts, records, folder, reporter).finish(fresh=True)


def checked_counts(steps: int, seed: int, interval: int, checkpoint_interval: int) -> dict[str, int]:
    """As settings. Raises ValueError, as the next."""
    return {
        "steps": whole_number("steps", steps, 0),
        "seed": whole_number("seed", seed, 0),
        "interval": whole_number("interval", interval, 1),
        "checkpoint_interval": whole_number("checkpoint_interval", checkpoint_interval, 1),
    }


def _checked_rng(rng: np.random.Generator | None, seed: int) -> np.random.Generator:
    rng = np.random.Generator(np.random.PCG64(seed)) if rng is None else rng
    if type(rng.bit_generator) is not np.random.PCG64:
        raise ValueError(f"expected random numbers of PCG64, which checkpoints hold, got {rng.bit_generator!r}")
    return rng


def settings_of(system: System, md: MolecularDynamics, source: Mapping[str, Any]) -> dict[str, Any]:
    """What a restart goes on with, and what records say of the run; its numbers of steps beside them."""
    return {
        "structure": source.get("structure", system.atoms.get_chemical_formula()),
        "model": system.model,
        "ensemble": md.ensemble.name,
        **{name: getattr(md.ensemble, name) for name in md.ensemble.parameters()},
        "timestep": md.timestep,
        "units": system.units.name,
        **system.precision,
        **({"calculator_sha256": digest} if (digest := next(calculator_sha256(system), "")) else {}),
        **{name: source[name] for name in SOURCE if source.get(name) is not None},
    }


def restart(
    folder: str | Path,
    *,
    steps: int | None = None,
    model: str | Path | None = None,
    calculator: Calculator | None = None,
    expected: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Continue the run in `folder` from its checkpoint, bit for bit as if it had never stopped.

    That takes a calculator whose results depend on the atoms alone, as those of models do. Where a checkpoint of format
    1 has constraints of which it does not know all, it is not so, and that is said.

    Parameters
    ----------
    folder : str or Path
    steps : int, optional
        Of the whole run, those done included; by default as before.
    model : str or Path, optional
        Another place of the same model file.
    calculator : ASE calculator, optional
        For a run with a calculator that no file holds: one of the same class, weights and parameters, device and dtype.
        Of a function that a calculator was given, or another object that is no data, nothing is known.
    expected : mapping, optional
        Settings that must be those of the run, by the names in its summary.
    reporter : Reporter, optional
        As of `simulate`.

    Returns
    -------
    dict
        What summary.json holds.

    Raises
    ------
    RunError
        For a checkpoint that is missing, damaged or of another run, and another calculator; and as `simulate`.
    ValueError
        For a run whose calculator is needed and not given, and steps that cannot be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise checkpoint.missing(folder / run_folder.CHECKPOINT)
    if run_folder.holds_many(folder):
        raise RunError(f"{folder} holds a run of many systems, which restart_many continues")
    reporter = reporter or Reporter()
    with lock_folder(folder):
        if run_folder.is_one_of_many(folder):
            check_idle(folder.resolve().parent)  # all of them have one lock
        state = checkpoint.load(folder / run_folder.CHECKPOINT)
        settings = continued_settings(state, steps, expected or {})
        if state.inexact:
            reporter.note(
                f"this checkpoint of an older version has not all of {', '.join(state.inexact)}, which is taken "
                "from its structure: the run goes on, but not bit for bit"
            )
        system = same_system(state, settings, model, calculator, reporter)
        settings["model"] = system.model
        md = continued(system, settings, state)
        records = run_folder.Records(folder, md.header(), state.lengths)
        return Run(system, md, settings, records, folder, reporter).finish(fresh=False)


def continued_settings(state: Checkpoint, steps: int | None, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the checkpoint, for so many steps in all. Raises RunError and ValueError."""
    settings = dict(state.settings)
    _check_expected(settings, expected)
    settings["steps"] = settings["steps"] if steps is None else whole_number("steps", steps, 0)
    if settings["steps"] < state.step:
        raise RunError(f"the run has done {state.step} steps already, more than the {settings['steps']} asked for")
    return settings


def same_system(
    state: Checkpoint,
    settings: Mapping[str, Any],
    model: str | Path | None,
    calculator: Calculator | None,
    reporter: Reporter,
) -> System:
    """The checkpoint's atoms with the calculator of the run. Raises RunError for another, ValueError for none."""
    source, precision = source_of(state, settings, model, calculator)
    system = make_system(state.atoms, source, note=reporter.note, **precision)
    check_same(system, state, settings)
    return system


def source_of(
    state: Checkpoint, settings: Mapping[str, Any], model: str | Path | None, calculator: Calculator | None
) -> tuple[Any, dict[str, str]]:
    """Where the calculator of the run comes from, and its device and dtype. Raises RunError and ValueError."""
    if not state.model_sha256 and calculator is None:
        raise ValueError(f"expected the calculator of this run, {settings['model']}, which no file holds, got none")
    if not state.model_sha256 and type(calculator).__name__ != settings["model"]:
        raise RunError(f"the run to continue has the calculator {settings['model']}, not {type(calculator).__name__}")
    precision = {name: settings[name] for name in ("device", "dtype") if state.model_sha256}
    return calculator or model or settings["model"], precision


def check_same(system: System, state: Checkpoint, settings: Mapping[str, Any]) -> None:
    """Raise a RunError unless the system has the calculator of the run."""
    if system.sha256 != state.model_sha256:
        raise RunError(f"the content of model {system.model} is not that of the run to continue")
    if "units" in settings:  # before, records said float32 on the CPU of any calculator
        _check_expected(settings, {"units": system.units.name, **system.precision})
    recorded = settings.get("calculator_sha256") or []  # none of old runs, and of those after them a list
    digests = [recorded] if isinstance(recorded, str) else recorded
    if digests and not system.sha256 and not any(digest in digests for digest in calculator_sha256(system)):
        raise RunError(
            f"the calculator {system.model} has other weights or parameters than that of the run to continue"
        )


def _check_expected(settings: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if name not in settings:
            raise RunError(f"the run to continue has no {name}")
        if value != settings[name]:
            raise RunError(f"{name} is {settings[name]} in the run to continue, not {value}")


def continued(system: System, settings: Mapping[str, Any], state: Checkpoint) -> MolecularDynamics:
    """The dynamics of a checkpoint, at its step."""
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = state.rng
    parameters = {name: settings.get(name) for name in ("temperature", "friction", "pressure")}
    ensemble = make_ensemble(settings["ensemble"], **parameters)
    md = MolecularDynamics(system.atoms, ensemble, settings["timestep"], rng, system.units, state.integrator)
    md.n_steps = state.step
    return md


class Run:
    """Dynamics at some step, and the files it writes."""

    def __init__(
        self,
        system: System,
        md: MolecularDynamics,
        settings: dict[str, Any],
        records: run_folder.Records,
        folder: Path,
        reporter: Reporter,
    ):
        self.system, self.md, self.settings = system, md, settings
        self.records, self.folder, self.reporter = records, folder, reporter

    def finish(self, fresh: bool) -> dict[str, Any]:
        """Take the remaining steps, write plots and summary, and return the summary.

        A restart, which is not fresh, has its first frame written already, also at step 0.
        """
        begin, first, md, steps = time.perf_counter(), self.md.n_steps, self.md, self.settings["steps"]
        seconds = LOOK  # of a step
        with (
            StopSignals() as stop,
            suitable_threads(len(md.atoms)),
            self.reporter.progress(f"md {self.settings['structure']}", steps) as show,
            np.errstate(over="ignore", invalid="ignore"),  # the calculator refuses what is not finite, in words
        ):
            if fresh:
                self.begin()
            while md.n_steps < steps and not stop.received:
                n = self.steps_until_next(seconds, md.n_steps) if md.is_compiled else 1
                before = time.perf_counter()
                md.advance(n)
                seconds = (time.perf_counter() - before) / n
                self.record()
                show(md.n_steps, f"E {md.atoms.get_potential_energy():.4f}, T {md.temperature:.4g}")
            self.save()
        if stop.received and md.n_steps < steps:
            go_on = f"mdgnn md --restart {shell_path(self.folder)}"
            if not self.system.sha256:  # the command line has no such calculators
                go_on = f"mdgnn.dynamics.restart({str(self.folder)!r}, calculator=...)"
            raise InterruptedRunError(stop.received, f"stopped after step {md.n_steps} of {steps}; go on: {go_on}")
        with StopSignals():  # which come too late
            summary = self.end(md.n_steps - first, time.perf_counter() - begin)
        draw_run(md, run_folder.read_log(self.folder), self.folder)
        return summary

    def begin(self) -> None:
        """Write the first frame and checkpoint."""
        self.records.add(self.md.atoms, self.md.row())
        self.save()

    def record(self) -> None:
        """After a step, what is due by then."""
        md = self.md
        if md.n_steps % self.settings["interval"] == 0:
            self.records.add(md.atoms, md.row())
        if md.n_steps % self.settings["checkpoint_interval"] == 0:
            self.save()

    def end(self, steps: int, seconds: float) -> dict[str, Any]:
        """Write the last structure and the summary, and return the summary; of this session, steps and time."""
        run_folder.write_final(self.folder, self.md.atoms)
        summary = self._summary(run_folder.read_log(self.folder))
        summary |= {"steps_in_this_session": steps, "wall_time_s": seconds}
        run_folder.write_summary(self.folder, summary)
        return summary

    def steps_until_next(self, seconds: float, n: int) -> int:
        """After n steps, until the next record, checkpoint or look at signals, where a step takes so long."""
        intervals: list[int] = [self.settings[name] for name in ("interval", "checkpoint_interval")]
        steps: int = self.settings["steps"]
        events = [interval - n % interval for interval in intervals]
        return max(1, min(*events, steps - n, int(LOOK / max(seconds, 1e-6))))

    def save(self) -> None:
        """Write a checkpoint."""
        md = self.md
        random = dict(md.rng.bit_generator.state)
        state = Checkpoint(
            md.atoms, md.n_steps, random, self.settings, self.system.sha256, self.records.lengths(), md.state()
        )
        checkpoint.save(self.folder / run_folder.CHECKPOINT, state)

    def _summary(self, log: NDArray[np.float64]) -> dict[str, Any]:
        md, units, atoms = self.md, self.md.units, self.md.atoms
        summary: dict[str, Any] = {
            "command": "md",
            "settings": self.settings,
            "model_sha256": self.system.sha256,
            "units": {name: getattr(units, name) for name in ("energy", "length", "time", "temperature")},
            "n_atoms": len(atoms),
            "steps": md.n_steps,
            "initial_total_energy": float(log[0, 2]),
            "final_total_energy": float(atoms.get_total_energy()),
            "mean_temperature_second_half": float(log[len(log) // 2 :, 5].mean()),
        }
        if md.ensemble.name == "nve":
            summary |= drift(log, len(atoms))
        if md.ensemble.name == "npt":
            summary["units"] |= {name: getattr(units, name) for name in ("pressure", "density")}
            summary |= npt.means(log, atoms, units)
            conserved = drift(log[:, [0, 1, 8]], len(atoms))
            summary |= {f"conserved_{name}": value for name, value in conserved.items()}
        return summary
