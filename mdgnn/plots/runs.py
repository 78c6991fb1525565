"""Figures of the logs of relaxation and dynamics."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mdgnn.plots.style import Array, line, new_figure, symbol

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_relaxation(log: Array, energy_unit: str, force_unit: str) -> "Figure":
    """Energy and largest force against the step; log (steps, 3) has columns step, energy, fmax."""
    from matplotlib.ticker import LogFormatter

    figure = new_figure(6, 5)
    top, bottom = figure.subplots(2, 1, sharex=True)
    marker = "o-" if len(log) < 60 else "-"
    line(top, log[:, 0], log[:, 1], marker, markersize=3)
    top.set_ylabel(f"energy ({symbol(energy_unit)})")
    line(bottom, log[:, 0], np.maximum(log[:, 2], 1e-12), marker, markersize=3, color="C1")
    bottom.set(xlabel="step", ylabel=f"largest force ({symbol(force_unit)})", yscale="log")
    for set_formatter in (bottom.yaxis.set_major_formatter, bottom.yaxis.set_minor_formatter):
        set_formatter(LogFormatter())  # powers of ten as formulas take a fifth of a second to set
    bottom.xaxis.get_major_locator().set_params(integer=True)
    return figure


def plot_energies(log: Array, n_atoms: int, time_unit: str, energy_unit: str) -> "Figure":
    """Energies per atom against time.

    log (frames, 6 or more) has columns step, time, total, potential, kinetic energy, temperature; a barostat's has
    volume, pressure and what is conserved instead of the total.
    """
    figure = new_figure(6, 5)
    top, bottom = figure.subplots(2, 1, sharex=True)
    time, energy = log[:, 1], log[:, 2:5] / n_atoms
    for column, name in enumerate(("total", "potential")):
        line(top, time, energy[:, column], lw=1, label=name)
    top.set_ylabel(f"energy per atom ({symbol(energy_unit)})")
    top.legend(loc="best")
    conserved, name = (log[:, 8] / n_atoms, "conserved") if log.shape[1] > 8 else (energy[:, 0], "total")
    line(bottom, time, conserved - conserved[0], lw=1)
    bottom.set(xlabel=f"time ({symbol(time_unit)})", ylabel=f"{name} − initial, per atom ({symbol(energy_unit)})")
    bottom.ticklabel_format(axis="y", scilimits=(-2, 3))
    return figure


def plot_temperature(log: Array, time_unit: str, temperature_unit: str, target: float | None) -> "Figure":
    """Temperature against time, the mean of its second half, and the thermostat's; log as in `plot_energies`."""
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    line(axes, log[:, 1], log[:, 5], lw=0.8, color="C3")
    second_half = log[len(log) // 2 :]
    mean = second_half[:, 5].mean()
    axes.plot(second_half[[0, -1], 1], [mean, mean], color="black", lw=1, label=f"mean {mean:.4g}")
    if target is not None:
        axes.axhline(target, color="C0", lw=1, ls="--", label=f"thermostat {target:g}")
    axes.set(xlabel=f"time ({symbol(time_unit)})", ylabel=f"temperature ({symbol(temperature_unit)})")
    axes.legend(loc="best")
    return figure


def plot_density(time: Array, quantities: Mapping[str, Array], time_unit: str, pressure: float) -> "Figure":
    """Density and pressure, by name with unit, against time; the means of their second halves and the barostat's."""
    figure = new_figure(6, 5)
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (name, values), color in zip(panels, quantities.items(), ("C2", "C4"), strict=True):
        line(axes, time, values, lw=0.8, color=color)
        half = len(time) // 2
        mean = values[half:].mean()
        axes.plot(time[[half, -1]], [mean, mean], color="black", lw=1, label=f"mean {mean:.4g}")
        quantity, unit = name.split(" ", 1)
        axes.set_ylabel(f"{quantity} ({symbol(unit.strip('()'))})")
    panels[1].axhline(pressure, color="C0", lw=1, ls="--", label=f"barostat {pressure:g}")
    panels[1].set_xlabel(f"time ({symbol(time_unit)})")
    for axes in panels:
        axes.legend(loc="best")
    return figure
