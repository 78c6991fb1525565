"""`mdgnn relax` and `mdgnn md`: from options to `mdgnn.dynamics`, and from its results to tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms

from mdgnn import dynamics
from mdgnn.cli.errors import CommandError
from mdgnn.cli.terminal import TerminalReporter, print_table
from mdgnn.dynamics import run_folder
from mdgnn.dynamics.ensembles import make_ensemble
from mdgnn.dynamics.units import LJ, METAL
from mdgnn.model_header import read_header

UNITS = {units.name: units for units in (LJ, METAL)}


@dataclass(frozen=True)
class RunOptions:
    """What `mdgnn relax` and `mdgnn md` have in common."""

    structure: str
    folder: Path
    force: bool
    model: str = "lj"
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    index: int | Literal[":"] | None = None
    format: str | None = None

    def read(self, rng: np.random.Generator, reporter: TerminalReporter) -> Atoms:
        """The structure."""
        assert self.index != ":"
        units = read_header(self.model)["units"]
        return dynamics.read_structure(self.structure, rng, self.index, self.format, units, reporter.note)

    def read_all(self, reporter: TerminalReporter) -> list[Atoms]:
        """All structures of the file."""
        return dynamics.read_structures(self.structure, self.format, read_header(self.model)["units"], reporter.note)

    def of_run(self, reporter: TerminalReporter) -> dict[str, Any]:
        """For `dynamics.relax` and `dynamics.simulate`."""
        source = {"structure": self.structure, "seed": self.seed, "index": self.index, "format": self.format}
        return {
            **{"folder": self.folder, "force": self.force, "device": self.device, "dtype": self.dtype},
            **{"source": source, "reporter": reporter},
        }


def relax(options: RunOptions, **settings: Any) -> None:
    """Relax, and say what came of it; raises a CommandError if it did not converge."""
    reporter = TerminalReporter()
    atoms = options.read(np.random.default_rng(options.seed), reporter)
    summary = dynamics.relax(atoms, options.model, **settings, **options.of_run(reporter)).summary
    energy, length = summary["units"]["energy"], summary["units"]["length"]
    rows = {
        "steps": str(summary["steps"]),
        "energy": f"{summary['final_energy']:.6f} {energy} (at the start {summary['initial_energy']:.6f})",
        "largest force": f"{summary['final_fmax']:.6f} {energy}/{length}",
    }
    if "true_lj_energy" in summary:
        rows["true Lennard-Jones energy"] = f"{summary['true_lj_energy']:.6f} {energy}"
    if summary.get("lowest_known_lj_energy") is not None:
        rows["lowest known"] = f"{summary['lowest_known_lj_energy']:.6f} {energy}"
    print_table(f"{options.structure} relaxed with {options.model}", {**rows, "output": str(options.folder)})
    if not summary["converged"]:
        raise CommandError(
            f"not converged: after {summary['steps']} steps the largest force is {summary['final_fmax']:.4g}, "
            f"more than {settings['fmax']:g} {energy}/{length}"
        )


def relax_many(options: RunOptions, fmax: float, steps: int) -> None:
    """Relax all structures of a file, and say what came of them; raises a CommandError if one did not converge."""
    reporter = TerminalReporter()
    common = options.of_run(reporter)
    results = dynamics.relax_many(options.read_all(reporter), options.model, fmax=fmax, steps=steps, **common)
    units = UNITS[read_header(options.model)["units"]]
    rows = {
        "structures": str(len(results)),
        "converged": str(sum(r.converged for r in results)),
        "steps": f"{min(r.steps for r in results)} to {max(r.steps for r in results)}",
    }
    if energies := {r.energy: k for k, r in enumerate(results) if r.converged}:
        rows["lowest energy"] = f"{min(energies):.6f} {units.energy} (structure {energies[min(energies)]})"
    print_table(f"{options.structure} relaxed with {options.model}", {**rows, "output": str(options.folder)})
    for k, result in enumerate(results):
        if result.error:
            raise CommandError(f"structure {k}, the first of {sum(bool(r.error) for r in results)}: {result.error}")
    if missing := [k for k, r in enumerate(results) if not r.converged]:
        raise CommandError(
            f"not converged: {len(missing)} of {len(results)} structures, the first of them {missing[0]}, have forces "
            f"of more than {fmax:g} {units.energy}/{units.length} after {steps} steps"
        )


def simulate(options: RunOptions, ensemble: str, parameters: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    """Run molecular dynamics, and say what came of it."""
    chosen, reporter = make_ensemble(ensemble, **parameters), TerminalReporter()
    rng = np.random.Generator(np.random.PCG64(options.seed))
    atoms = options.read(rng, reporter)
    common = options.of_run(reporter)
    summary = dynamics.simulate(atoms, options.model, chosen, seed=options.seed, rng=rng, **common, **settings)
    _print_summary(summary, options.folder)


def simulate_many(
    options: RunOptions, ensemble: str, parameters: Mapping[str, float], settings: Mapping[str, Any]
) -> None:
    """Run molecular dynamics of all structures of a file; raises a CommandError if one could not go on."""
    chosen, reporter = make_ensemble(ensemble, **parameters), TerminalReporter()
    structures = options.read_all(reporter)
    common = options.of_run(reporter)
    summary = dynamics.simulate_many(structures, options.model, chosen, seed=options.seed, **common, **settings)
    _print_summary_of_many(summary, options.folder)


def restart(folder: Path, given: Mapping[str, Any]) -> None:
    """Continue a run, of one system or of many, and say what came of it; options given again must be the run's."""
    again = {name: given[name] for name in ("steps", "model") if name in given}
    expected = {name: value for name, value in given.items() if name not in again}
    many = run_folder.holds_many(folder)
    go_on, show = (dynamics.restart_many, _print_summary_of_many) if many else (dynamics.restart, _print_summary)
    show(go_on(folder, expected=expected, reporter=TerminalReporter(), **again), folder)


def _print_summary_of_many(summary: Mapping[str, Any], folder: Path) -> None:
    """Raises a CommandError if a system could not go on."""
    settings = summary["settings"]
    units = UNITS[settings["units"]] if settings.get("units") else METAL
    rows = {
        "structures": str(summary["n_structures"]),
        "steps": str(summary["steps"]),
        "mean temperature": f"{summary['mean_temperature_second_half']:.4g} {units.temperature} (second half)",
        "output": str(folder),
    }
    of = settings.get("structure", f"{summary['n_structures']} systems")
    print_table(f"{settings.get('ensemble', 'md')} of {of} with {settings.get('model', '')}", rows)
    for k, error in summary["errors"].items():
        raise CommandError(f"structure {k}, the first of {len(summary['errors'])} that could not go on: {error}")


def _print_summary(summary: Mapping[str, Any], folder: Path) -> None:
    units, settings = summary["units"], summary["settings"]
    energy = units["energy"]
    rows = {
        "steps": f"{summary['steps']} of {settings['timestep']:g} {units['time']}",
        "mean temperature": f"{summary['mean_temperature_second_half']:.4g} {units['temperature']} (second half)",
        "total energy": f"{summary['final_total_energy']:.6f} {energy}",
        "at the start": f"{summary['initial_total_energy']:.6f} {energy}",
    }
    if "energy_drift_per_atom" in summary:
        rows["drift per atom"] = f"{summary['energy_drift_per_atom']:.2e} {energy}"
    if settings["ensemble"] == "npt":
        rows["mean pressure"] = f"{summary['mean_pressure_second_half']:.4g} {units['pressure']} (second half)"
        rows["mean density"] = f"{summary['mean_density_second_half']:.4g} {units['density']} (second half)"
        rows["drift per atom"] = f"{summary['conserved_energy_drift_per_atom']:.2e} {energy} (of what npt conserves)"
    title = f"{settings['ensemble']} of {settings['structure']} with {settings['model']}"
    print_table(title, {**rows, "output": str(folder)})
