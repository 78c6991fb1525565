"""Pictures of a run of molecular dynamics."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdgnn.dynamics import npt, run_folder, trajectory
from mdgnn.dynamics.ensembles import NPT
from mdgnn.dynamics.molecular_dynamics import MolecularDynamics
from mdgnn.dynamics.units import LJ
from mdgnn.plots import Drawing, draw, radial, runs, structures


def draw_run(md: MolecularDynamics, log: NDArray[np.float64], folder: Path) -> list[str]:
    """Energy, temperature, under NPT density, radial distribution and structures; the names of those that are there."""
    units, n, frames = md.units, len(md.atoms), folder / run_folder.TRAJECTORY

    def distribution() -> Drawing:
        half, stride = len(log) // 2, max(1, len(log) // trajectory.MOST)
        chosen = trajectory.sample_frames(frames, range(half, len(log), stride), len(log), n)
        return radial.distribution({f"mean of {len(chosen)} frames of the second half": chosen}, units.length, n)

    def before_and_after() -> Drawing:
        (before,) = trajectory.sample_frames(frames, [0], len(log), n)
        return structures.structures({"before": before, "after": md.atoms}, units is LJ, n)

    def density(pressure: float) -> Drawing:
        values = npt.densities(log[:, 6], md.atoms, units)
        quantities = {f"density ({units.density})": values, f"pressure ({units.pressure})": log[:, 7]}
        return partial(
            runs.plot_density, time=log[:, 1], quantities=quantities, time_unit=units.time, pressure=pressure
        )

    target = md.ensemble.temperature if md.ensemble.has_thermostat else None
    pictures: dict[str, Callable[[], Drawing]] = {
        "energy.png": lambda: partial(
            runs.plot_energies, log=log, n_atoms=n, time_unit=units.time, energy_unit=units.energy
        ),
        "temperature.png": lambda: partial(
            runs.plot_temperature, log=log, time_unit=units.time, temperature_unit=units.temperature, target=target
        ),
    }
    if isinstance(md.ensemble, NPT):
        pictures["density.png"] = partial(density, md.ensemble.pressure or 0.0)
    pictures |= {"radial_distribution.png": distribution, "structures.png": before_and_after}
    return draw(folder, pictures)
