"""Relax Lennard-Jones clusters and run molecular dynamics with the shipped model: python examples/demo.py OUTPUT

The clusters start from their best known shapes, every coordinate displaced by 0.1 sigma. What the learned potential
makes of them is judged by the true Lennard-Jones energy of the geometry it arrives at.
"""

import sys
from pathlib import Path

import ase.io
import numpy as np
from rich.console import Console
from rich.table import Table

from mdgnn.dynamics import NVE, Langevin, relax, simulate
from mdgnn.dynamics.lj_clusters import LJ_MINIMA, lj_cluster

SIZES = (13, 38, 55)


def relax_clusters(folder: Path) -> Table:
    """Relax the clusters; returns a table of energies in epsilon."""
    rng = np.random.default_rng(0)
    table = Table(title="Relaxed with the learned potential; energies in epsilon")
    columns = "atoms", "steps", "model", "true LJ energy there", "lowest known", "difference"
    for column in columns:
        table.add_column(column, justify="right")
    for n in SIZES:
        start = lj_cluster(str(n), rng)
        start.positions += rng.normal(0, 0.1, start.positions.shape)
        relaxed = relax(start, "lj", fmax=0.01, folder=folder / f"relax-lj{n}", force=True)
        true, lowest = relaxed.summary["true_lj_energy"], LJ_MINIMA[n]
        energies = relaxed.energy, true, lowest, true - lowest
        table.add_row(str(n), str(relaxed.steps), *(f"{energy:.6f}" for energy in energies))
    return table


def run_dynamics(folder: Path, steps: int) -> Table:
    """Langevin dynamics of the relaxed 55 atoms, then constant energy from where it ended; returns a table."""
    relaxed = ase.io.read(folder / "relax-lj55" / "final.xyz")
    hot, cluster = folder / "langevin-lj55", {"structure": "lj:55"}
    heated = simulate(
        relaxed, "lj", Langevin(temperature=0.2), timestep=0.005, steps=steps, folder=hot, force=True, source=cluster
    )
    warm = ase.io.read(hot / "final.xyz")  # with its momenta, which the next run keeps
    conserved = simulate(
        warm, "lj", NVE(), timestep=0.002, steps=steps, folder=folder / "nve-lj55", force=True, source=cluster
    )
    table = Table(title="Molecular dynamics of 55 atoms")
    for column in ("ensemble", "steps", "time step (tau)", "mean temperature (epsilon/kB)", "drift (epsilon/atom)"):
        table.add_column(column, justify="right")
    for run in (heated, conserved):
        settings, drift = run["settings"], run.get("energy_drift_per_atom")
        shown = "" if drift is None else f"{drift:.1e}"
        temperature = f"{run['mean_temperature_second_half']:.3f}"
        table.add_row(settings["ensemble"], str(run["steps"]), f"{settings['timestep']:g}", temperature, shown)
    return table


def main(folder: Path, steps: int = 3000) -> None:
    console = Console()
    console.print(relax_clusters(folder))
    console.print(run_dynamics(folder, steps))
    console.print(f"Trajectories, logs and plots are in {folder}/, for example {folder}/nve-lj55/energy.png")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python examples/demo.py OUTPUT [MD STEPS]")
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
