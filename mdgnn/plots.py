"""Figures of relaxation and dynamics. They touch neither matplotlib's backend nor its global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.visualize.plot import plot_atoms
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from mdgnn.neighbors import neighbor_list

Array = NDArray[np.floating[Any]]


def plot_relaxation(path: Path, log: Array, energy_unit: str, force_unit: str) -> None:
    """Energy and largest force against the step; log (steps, 3) has columns step, energy, fmax."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    marker = "o-" if len(log) < 60 else "-"
    top.plot(log[:, 0], log[:, 1], marker, markersize=3)
    top.set_ylabel(f"energy ({_symbol(energy_unit)})")
    bottom.semilogy(log[:, 0], np.maximum(log[:, 2], 1e-12), marker, markersize=3, color="C1")
    bottom.set(xlabel="step", ylabel=f"largest force ({_symbol(force_unit)})")
    bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, path)


def plot_energies(path: Path, log: Array, n_atoms: int, time_unit: str, energy_unit: str) -> None:
    """Energies per atom against time.

    log (frames, 6 or more) has columns step, time, total, potential, kinetic energy, temperature; a barostat's has
    volume, pressure and what is conserved instead of the total.
    """
    figure = Figure(figsize=(6, 5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    time, energy = log[:, 1], log[:, 2:5] / n_atoms
    for column, name in enumerate(("total", "potential")):
        top.plot(time, energy[:, column], lw=1, label=name)
    top.set_ylabel(f"energy per atom ({_symbol(energy_unit)})")
    top.legend(loc="best")
    conserved, name = (log[:, 8] / n_atoms, "conserved") if log.shape[1] > 8 else (energy[:, 0], "total")
    bottom.plot(time, conserved - conserved[0], lw=1)
    bottom.set(xlabel=f"time ({_symbol(time_unit)})", ylabel=f"{name} − initial, per atom ({_symbol(energy_unit)})")
    bottom.ticklabel_format(axis="y", scilimits=(-2, 3))
    _save(figure, path)


def plot_temperature(path: Path, log: Array, time_unit: str, temperature_unit: str, target: float | None) -> None:
    """Temperature against time, the mean of its second half, and the thermostat's; log as in `plot_energies`."""
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(log[:, 1], log[:, 5], lw=0.8, color="C3")
    second_half = log[len(log) // 2 :]
    mean = second_half[:, 5].mean()
    axes.plot(second_half[[0, -1], 1], [mean, mean], color="black", lw=1, label=f"mean {mean:.4g}")
    if target is not None:
        axes.axhline(target, color="C0", lw=1, ls="--", label=f"thermostat {target:g}")
    axes.set(xlabel=f"time ({_symbol(time_unit)})", ylabel=f"temperature ({_symbol(temperature_unit)})")
    axes.legend(loc="best")
    _save(figure, path)


def plot_density(path: Path, time: Array, quantities: Mapping[str, Array], time_unit: str, pressure: float) -> None:
    """Density and pressure, by name with unit, against time; the means of their second halves and the barostat's."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for axes, (name, values), color in zip(panels, quantities.items(), ("C2", "C4"), strict=True):
        axes.plot(time, values, lw=0.8, color=color)
        half = len(time) // 2
        mean = values[half:].mean()
        axes.plot(time[[half, -1]], [mean, mean], color="black", lw=1, label=f"mean {mean:.4g}")
        quantity, unit = name.split(" ", 1)
        axes.set_ylabel(f"{quantity} ({_symbol(unit.strip('()'))})")
    panels[1].axhline(pressure, color="C0", lw=1, ls="--", label=f"barostat {pressure:g}")
    panels[1].set_xlabel(f"time ({_symbol(time_unit)})")
    for axes in panels:
        axes.legend(loc="best")
    _save(figure, path)


def radial_distribution(frames: Sequence[Atoms], r_max: float, n_bins: int = 150) -> tuple[Array, Array]:
    """Distances (n_bins,) and, at each, the mean number of neighbours of an atom per unit of distance.

    Of periodic frames, divided by the same number in an ideal gas of equal density: g(r), which tends to 1.
    """
    edges = np.linspace(0, r_max, n_bins + 1)
    r = 0.5 * (edges[1:] + edges[:-1])
    total = np.zeros(n_bins)
    for atoms in frames:
        counts = np.histogram(neighbor_list("d", atoms, r_max), edges)[0] / len(atoms) / (edges[1] - edges[0])
        total += counts * atoms.get_volume() / (4 * np.pi * r**2 * len(atoms)) if atoms.pbc.all() else counts
    return r, total / len(frames)


def plot_radial_distribution(path: Path, frames: Mapping[str, Sequence[Atoms]], length_unit: str) -> None:
    """Radial distribution of several sets of frames, by name, in one figure."""
    sets = list(frames.values())
    periodic = sets[0][0].pbc.all()
    unit = _symbol(length_unit)
    if periodic:
        r_max = 4.0 if length_unit == "sigma" else 8.0
    else:
        widest = max(float(np.ptp(atoms.positions, axis=0).max()) for images in sets for atoms in images)
        r_max = min(1.1 * widest + 1, 8.0)  # an atom that flew off must not make all others a single peak
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for label, images in frames.items():
        axes.plot(*radial_distribution(images, r_max), lw=1.2, label=label)
    ylabel = "radial distribution g(r)" if periodic else f"neighbours per atom, dN/dr (1/{unit})"
    axes.set(xlabel=f"distance r ({unit})", ylabel=ylabel, xlim=(0, r_max))
    axes.set_ylim(bottom=0)
    axes.legend(loc="best")
    _save(figure, path)


def plot_structures(path: Path, structures: Mapping[str, Atoms], reduced: bool = False) -> None:
    """Pictures of structures side by side; in reduced units spheres of diameter sigma."""
    figure = Figure(figsize=(4.2 * len(structures), 4.2), layout="constrained")
    panels = figure.subplots(1, len(structures), squeeze=False)[0]
    for axes, (name, atoms) in zip(panels, structures.items(), strict=True):
        look: dict[str, Any] = {"radii": 0.5, "colors": _by_depth(atoms)} if reduced else {}
        plot_atoms(atoms, axes, rotation="10x,-15y,0z", show_unit_cell=2 if atoms.pbc.any() else 0, **look)
        axes.set_title(name)
        axes.set_axis_off()
    # The same scale in every panel, and titles at one height.
    spans = [(np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())) for axes in panels]
    half = 0.5 * float(np.max(spans))
    for axes in panels:
        x, y = np.mean(axes.get_xlim()), np.mean(axes.get_ylim())
        axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
    _save(figure, path)


def _by_depth(atoms: Atoms) -> Array:
    """(N, 3) colours, paler for atoms farther back, so that a cluster does not look flat."""
    z = atoms.positions[:, 2]
    near = ((z - z.min()) / max(float(np.ptp(z)), 1e-9))[:, None]
    colours: Array = (1 - near) * np.array([0.85, 0.90, 0.95]) + near * np.array([0.15, 0.45, 0.70])
    return colours


def _symbol(unit: str) -> str:
    names = {"epsilon": "ε", "sigma": "σ", "tau": "τ", "kB": "k$_B$", "Angstrom": "Å"}
    parts = unit.replace("^3", "³").split("/")
    return "/".join(names.get(part.rstrip("³"), part.rstrip("³")) + "³" * part.endswith("³") for part in parts)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120, format="png")
