"""Radial distributions."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from mdgnn.plots.process import Drawing
from mdgnn.plots.style import Array, new_figure, symbol

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.figure import Figure

MOST_PAIRS = 5_000_000  # of all frames together, in 150 bins


def radial_distribution(
    frames: Sequence["Atoms"], r_max: float, n_bins: int = 150, most_pairs: int = MOST_PAIRS
) -> tuple[Array, Array, int]:
    """Distances (n_bins,) and, at each, the mean number of neighbours of an atom per unit of distance.

    Of periodic frames, divided by the same number in an ideal gas of equal density: g(r), which tends to 1. Where the
    frames have more pairs within `r_max` than `most_pairs`, atoms drawn by lot stand for all: the third result is of
    how many in a frame.
    """
    edges = np.linspace(0, r_max, n_bins + 1)
    r = 0.5 * (edges[1:] + edges[:-1])
    total, rng, m = np.zeros(n_bins), np.random.default_rng(0), 0
    for atoms in frames:
        n = len(atoms)
        distances, m = _pairs(atoms, r_max, most_pairs // len(frames), rng)
        of_all = (n - 1) / (m - 1) if m < n else 1.0
        counts = np.histogram(distances, edges)[0] * of_all / m / (edges[1] - edges[0])
        total += counts * atoms.get_volume() / (4 * np.pi * r**2 * n) if atoms.pbc.all() else counts
    return r, total / len(frames), m


def _pairs(atoms: "Atoms", r_max: float, most: int, rng: np.random.Generator) -> tuple[Array, int]:
    """Distances of pairs within `r_max`, of as many atoms as have at most so many; their number is found by trying."""
    from mdgnn.neighbors import neighbor_list  # which the process that draws does without

    order, m = rng.permutation(len(atoms)), min(len(atoms), 200)
    while True:
        distances: Array = neighbor_list("d", atoms[np.sort(order[:m])], r_max)
        if m == len(atoms) or 16 * len(distances) > most:  # four times the atoms have sixteen times the pairs
            return distances, m
        m = min(len(atoms), 4 * m)


def distribution(frames: Mapping[str, Sequence["Atoms"]], length_unit: str, of: int) -> Drawing:
    """Radial distributions of several sets of frames, by name, in one figure; the frames may hold some of `of` atoms.

    Atoms without a finite position count for nothing.
    """
    sets = {name: [atoms[np.isfinite(atoms.positions).all(axis=1)] for atoms in some] for name, some in frames.items()}
    if not all(len(atoms) for images in sets.values() for atoms in images):
        raise ValueError("no atom has a finite position")
    periodic = bool(next(iter(sets.values()))[0].pbc.all())
    if periodic:
        r_max = 4.0 if length_unit == "sigma" else 8.0
    else:
        widest = max(float(np.ptp(atoms.positions, axis=0).max()) for images in sets.values() for atoms in images)
        r_max = min(1.1 * widest + 1, 8.0)  # an atom that flew off must not make all others a single peak
    curves, fewest = {}, of
    for name, images in sets.items():
        r, values, m = radial_distribution(images, r_max)
        if not periodic and len(images[0]) < of:
            values = values * (of - 1) / (len(images[0]) - 1)
        curves[name], fewest = (r, values), min(fewest, m)
    notes = [f"{fewest:,} of {of:,} atoms"] if fewest < of else []
    return partial(
        plot_distribution, curves=curves, periodic=periodic, r_max=r_max, length_unit=length_unit, notes=notes
    )


def plot_distribution(
    curves: Mapping[str, tuple[Array, Array]],
    periodic: bool,
    r_max: float,
    length_unit: str,
    notes: Sequence[str],
) -> "Figure":
    """Curves by name; periodic ones are relative to an ideal gas."""
    figure, unit = new_figure(6, 3.5), symbol(length_unit)
    axes = figure.subplots()
    for label, (r, values) in curves.items():
        axes.plot(r, values, lw=1.2, label=label)
    ylabel = "radial distribution g(r)" if periodic else f"neighbours per atom, dN/dr (1/{unit})"
    axes.set(xlabel=f"distance r ({unit})", ylabel=ylabel, xlim=(0, r_max))
    axes.set_ylim(bottom=0)
    axes.legend(loc="best", title="\n".join(notes) or None, title_fontsize=8)
    return figure
