"""`mdgnn md`: molecular dynamics that can be stopped, killed and continued without a trace."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixCom
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from numpy.typing import NDArray

from mdgnn._internal.folder_lock import lock_folder
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.cli import checkpoint, frames, npt, output
from mdgnn.cli.checkpoint import Checkpoint
from mdgnn.cli.constraints import check_dynamics, rest
from mdgnn.cli.errors import CommandError, InterruptedRunError
from mdgnn.cli.names import pasted
from mdgnn.cli.settings import MDSettings
from mdgnn.cli.structures import read_structure
from mdgnn.cli.system import LJ, System, UnitSystem, make_system, suitable_threads
from mdgnn.locate import pretrained_names
from mdgnn.model_file import read_header
from mdgnn.plots import Drawing, draw, radial, runs, structures


def start(settings: MDSettings, folder: Path, force: bool = False, atoms: Atoms | None = None) -> dict[str, Any]:
    """Simulate a structure, or the atoms given, and leave everything in `folder`; returns the summary.

    Raises
    ------
    CommandError, InUseError, ValueError, RuntimeError, OSError
        Whatever was written until then stays.
    """
    settings.check()
    with output.hold(folder, force):
        return _start(settings, folder, atoms)


def _start(settings: MDSettings, folder: Path, atoms: Atoms | None) -> dict[str, Any]:
    rng = np.random.Generator(np.random.PCG64(settings.seed))
    if atoms is None:
        of_model = read_header(settings.model)["units"]
        atoms = read_structure(settings.structure, rng, settings.index, settings.format, of_model)
    else:
        atoms = atoms.copy()
    at_pressure, thermostat = settings.ensemble == "npt", settings.ensemble == "langevin"
    if at_pressure:
        npt.check_structure(atoms, settings.structure)
    system = make_system(atoms, settings.model, settings.device, settings.dtype)
    units = system.units
    keep = settings.temperature is None and bool(np.any(atoms.get_momenta()))
    temperature = units.default_temperature if settings.temperature is None else settings.temperature
    settings = replace(
        settings,
        model=_absolute(settings.model),
        temperature=temperature,
        timestep=units.default_timestep if settings.timestep is None else settings.timestep,
        friction=units.default_friction if settings.friction is None and thermostat else settings.friction,
        pressure=0.0 if settings.pressure is None and at_pressure else settings.pressure,
    )
    # One atom alone may drift; of more, a thermostat would let the centre of mass wander off.
    if thermostat and len(atoms) > 1 and not atoms.pbc.any() and not atoms.constraints:
        atoms.set_constraint(rest())
    check_dynamics(atoms)
    if not keep:
        draw_velocities(atoms, temperature * units.kelvin, rng)
    if at_pressure:
        npt.rest(atoms)
    output.clear(folder)
    records = output.Records(folder, _header(settings, units))
    return Simulation(system, settings, rng, records, folder).run()


def restart(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Continue the run in `folder` from its checkpoint, bit for bit as if it had never stopped.

    Where a checkpoint of format 1 has constraints of which it does not know all, that is said, and not so.

    Parameters
    ----------
    folder : Path
    given : dict
        Settings that the user repeats; they must agree with the checkpoint's. Only "steps" may differ, and "model" may
        name another place of the same file.

    Raises
    ------
    CommandError, InUseError, ValueError, RuntimeError, OSError
    """
    if not folder.is_dir():
        raise checkpoint.missing(folder / output.CHECKPOINT)
    with lock_folder(folder):
        return _go_on(folder, given)


def _go_on(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    state = checkpoint.load(folder / output.CHECKPOINT)
    settings = MDSettings(**state.settings)
    for name, value in given.items():
        there = getattr(settings, name)
        if name not in ("steps", "model") and value != there:
            if there is None:
                raise CommandError(f"the run to continue has no {name}")
            raise CommandError(f"{name} is {there} in the run to continue, not {value}")
    settings = replace(
        settings,
        steps=given.get("steps", settings.steps),
        model=_absolute(given.get("model", settings.model)),
    )
    if settings.steps < state.step:
        raise CommandError(f"the run has done {state.step} steps already, more than the {settings.steps} asked for")
    if settings.ensemble == "npt":
        npt.check_state(state.integrator)
    if state.forgotten:
        output.note(
            f"this checkpoint of an older version has not all of {', '.join(state.forgotten)}, which is taken from its "
            "structure: the run goes on, but not bit for bit"
        )
    system = make_system(state.atoms, settings.model, settings.device, settings.dtype)
    if system.sha256 != state.model_sha256:
        raise CommandError(f"the content of model {settings.model} is not that of the run to continue")
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = state.rng
    records = output.Records(folder, _header(settings, system.units), state.lengths)
    return Simulation(system, settings, rng, records, folder, state).run()


def draw_velocities(atoms: Atoms, temperature_K: float, rng: np.random.Generator) -> None:
    """Maxwell-Boltzmann velocities; a free system at rest as a whole, and an open one without rotation.

    Taking the motion of the whole away does not cool: the rest is scaled to the kinetic energy that was drawn.
    """
    width = np.sqrt(atoms.get_masses() * temperature_K / LJ.kelvin)
    atoms.set_momenta(rng.standard_normal((len(atoms), 3)) * width[:, None])
    if len(atoms) == 1 or not all(isinstance(constraint, FixCom) for constraint in atoms.constraints):
        return
    Stationary(atoms)
    if not atoms.pbc.any():
        with np.errstate(divide="ignore", invalid="ignore"):  # a dimer has no moment about its own axis
            ZeroRotation(atoms)


def _absolute(model: str) -> str:
    """A model file's path as it holds in any working directory; names of shipped models stay."""
    return model if model in pretrained_names() else str(Path(model).resolve())


def _header(settings: MDSettings, units: UnitSystem) -> list[str]:
    energies = [f"{kind}_energy[{units.energy}]" for kind in ("total", "potential", "kinetic")]
    more = npt.header(units) if settings.ensemble == "npt" else []
    return ["step", f"time[{units.time}]", *energies, f"temperature[{units.temperature}]", *more]


class Simulation:
    """A run at some step: the dynamics, its random numbers, and the files it writes."""

    def __init__(
        self,
        system: System,
        settings: MDSettings,
        rng: np.random.Generator,
        records: output.Records,
        folder: Path,
        state: Checkpoint | None = None,
    ):
        self.atoms, self.units, self.sha256 = system.atoms, system.units, system.sha256
        self.settings, self.rng, self.records, self.folder = settings, rng, records, folder
        self.fresh = state is None  # a restart from step 0 finds that step's frame written already
        self.step = 0 if state is None else state.step
        values = asdict(settings)
        self.temperature, self.timestep, self.friction = (values[k] for k in ("temperature", "timestep", "friction"))
        self.dynamics = self._dynamics(None if state is None else state.integrator)

    def run(self) -> dict[str, Any]:
        """Take the remaining steps, write plots and summary, and return the summary."""
        begin, first, settings = time.perf_counter(), self.step, self.settings
        with (
            StopSignals() as stop,
            self.records,
            suitable_threads(len(self.atoms)),
            output.progress(f"md {settings.structure}", settings.steps) as show,
            np.errstate(over="ignore", invalid="ignore"),  # the calculator refuses what is not finite, in words
        ):
            if self.fresh:
                self._record()
                self._save()
            while self.step < settings.steps and not stop.received:
                self.dynamics.step()
                self.step += 1
                if self.step % settings.interval == 0:
                    self._record()
                if self.step % settings.checkpoint_interval == 0:
                    self._save()
                show(self.step, self._state())
            self._save()
        if stop.received and self.step < settings.steps:
            message = (
                f"stopped after step {self.step} of {settings.steps}; go on: mdgnn md --restart {pasted(self.folder)}"
            )
            raise InterruptedRunError(stop.received, message)
        with StopSignals():  # which come too late
            output.write_final(self.folder, self.atoms)
            log = output.read_log(self.folder)
            summary = self._summary(log)
            summary |= {"steps_in_this_session": self.step - first, "wall_time_s": time.perf_counter() - begin}
            output.write_summary(self.folder, summary)
        self._plot(log)
        return summary

    def _dynamics(self, state: npt.State | None) -> Any:
        unit = self.units.ase_time
        if self.settings.pressure is not None:
            return npt.NPT(
                self.atoms, self.timestep * unit, self.temperature, self.settings.pressure, self.units, state
            )
        if self.settings.ensemble == "nve":
            return VelocityVerlet(self.atoms, self.timestep * unit)
        return Langevin(
            self.atoms,
            self.timestep * unit,
            temperature_K=self.temperature * self.units.kelvin,
            friction=self.friction / unit,
            fixcm=False,
            rng=self.rng,
        )

    def _kinetic_temperature(self) -> float:
        """ASE's: over 3 N degrees of freedom, less three where the centre of mass is held, as always under npt."""
        n = len(self.atoms)
        held = n / (n - 1) if isinstance(self.dynamics, npt.NPT) else 1.0
        return float(self.atoms.get_temperature() / self.units.kelvin) * held

    def _state(self) -> str:
        return f"E {self.atoms.get_potential_energy():.4f}, T {self._kinetic_temperature():.4g}"

    def _record(self) -> None:
        potential, kinetic = float(self.atoms.get_potential_energy()), float(self.atoms.get_kinetic_energy())
        energies = potential + kinetic, potential, kinetic
        row = self.step, self.step * self.timestep, *energies, self._kinetic_temperature()
        more = self.dynamics.columns() if isinstance(self.dynamics, npt.NPT) else ()
        self.records.add(self.atoms, (*row, *more))

    def _save(self) -> None:
        state = Checkpoint(
            self.atoms,
            self.step,
            dict(self.rng.bit_generator.state),
            self.settings.used(),
            self.sha256,
            self.records.lengths(),
            self.dynamics.state() if isinstance(self.dynamics, npt.NPT) else {},
        )
        checkpoint.save(self.folder / output.CHECKPOINT, state)

    def _summary(self, log: NDArray[np.float64]) -> dict[str, Any]:
        units = self.units
        summary = {
            "command": "md",
            "settings": self.settings.used(),
            "model_sha256": self.sha256,
            "units": {name: getattr(units, name) for name in ("energy", "length", "time", "temperature")},
            "n_atoms": len(self.atoms),
            "steps": self.step,
            "initial_total_energy": log[0, 2],
            "final_total_energy": float(self.atoms.get_total_energy()),
            "mean_temperature_second_half": float(log[len(log) // 2 :, 5].mean()),
        }
        if self.settings.ensemble == "nve":
            summary |= drift(log, len(self.atoms))
        if self.settings.ensemble == "npt":
            summary["units"] |= {name: getattr(units, name) for name in ("pressure", "density")}
            summary |= npt.means(log, self.atoms, units)
            conserved = drift(log[:, [0, 1, 8]], len(self.atoms))
            summary |= {f"conserved_{name}": value for name, value in conserved.items()}
        return summary

    def _plot(self, log: NDArray[np.float64]) -> None:
        units, n, settings, trajectory = self.units, len(self.atoms), self.settings, self.folder / output.TRAJECTORY

        def distribution() -> Drawing:
            half, stride = len(log) // 2, max(1, len(log) // frames.MOST)
            chosen = frames.some(trajectory, range(half, len(log), stride), len(log), n)
            return radial.distribution({f"mean of {len(chosen)} frames of the second half": chosen}, units.length, n)

        def before_and_after() -> Drawing:
            (before,) = frames.some(trajectory, [0], len(log), n)
            return structures.structures({"before": before, "after": self.atoms}, units is LJ, n)

        def density() -> Drawing:
            values = npt.densities(log[:, 6], self.atoms, units)
            quantities = {f"density ({units.density})": values, f"pressure ({units.pressure})": log[:, 7]}
            return partial(
                runs.plot_density,
                time=log[:, 1],
                quantities=quantities,
                time_unit=units.time,
                pressure=settings.pressure or 0.0,
            )

        pictures: dict[str, Callable[[], Drawing]] = {
            "energy.png": lambda: partial(
                runs.plot_energies, log=log, n_atoms=n, time_unit=units.time, energy_unit=units.energy
            ),
            "temperature.png": lambda: partial(
                runs.plot_temperature,
                log=log,
                time_unit=units.time,
                temperature_unit=units.temperature,
                target=None if settings.ensemble == "nve" else self.temperature,
            ),
            **({} if settings.pressure is None else {"density.png": density}),
            "radial_distribution.png": distribution,
            "structures.png": before_and_after,
        }
        draw(self.folder, pictures)


def drift(log: NDArray[np.float64], n_atoms: int) -> dict[str, float]:
    """How well the total energy is conserved, per atom: its trend over the whole run, and the scatter about it."""
    t, energy = log[:, 1], log[:, 2] / n_atoms
    if len(log) < 3:
        return {"energy_drift_per_atom": float(energy[-1] - energy[0]), "energy_fluctuation_per_atom": 0.0}
    slope, offset = np.polyfit(t, energy, 1)
    scatter = float(np.std(energy - (slope * t + offset)))
    return {"energy_drift_per_atom": float(slope * (t[-1] - t[0])), "energy_fluctuation_per_atom": scatter}
