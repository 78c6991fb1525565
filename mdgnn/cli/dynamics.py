"""`mdgnn relax` and `mdgnn md`: from options to `mdgnn.dynamics`, and from its results to tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mdgnn import dynamics
from mdgnn.cli.errors import CommandError
from mdgnn.cli.terminal import TerminalReporter, print_table
from mdgnn.dynamics.ensembles import make_ensemble
from mdgnn.model_header import read_header


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
    index: int | None = None
    format: str | None = None

    def read(self, rng: np.random.Generator, reporter: TerminalReporter) -> Atoms:
        """The structure."""
        units = read_header(self.model)["units"]
        return dynamics.read_structure(self.structure, rng, self.index, self.format, units, reporter.note)

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


def simulate(options: RunOptions, ensemble: str, parameters: Mapping[str, float], settings: Mapping[str, Any]) -> None:
    """Run molecular dynamics, and say what came of it."""
    chosen, reporter = make_ensemble(ensemble, **parameters), TerminalReporter()
    rng = np.random.Generator(np.random.PCG64(options.seed))
    atoms = options.read(rng, reporter)
    common = options.of_run(reporter)
    summary = dynamics.simulate(atoms, options.model, chosen, seed=options.seed, rng=rng, **common, **settings)
    _print_summary(summary, options.folder)


def restart(folder: Path, given: Mapping[str, Any]) -> None:
    """Continue a run, and say what came of it; options that are given again must be the run's."""
    again = {name: given[name] for name in ("steps", "model") if name in given}
    expected = {name: value for name, value in given.items() if name not in again}
    _print_summary(dynamics.restart(folder, expected=expected, reporter=TerminalReporter(), **again), folder)


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
