"""Pictures of structures: atoms as spheres, seen from the front, and the cell around them."""

import itertools
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdgnn.plots.process import Drawing
from mdgnn.plots.style import new_figure, note

if TYPE_CHECKING:
    from ase import Atoms
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
MOST_ATOMS = 10_000
PANEL = 4.2  # inches
PIXELS = 480  # of a panel, about
CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
EDGES = [(a, b) for a, b in itertools.combinations(range(8), 2) if np.abs(CORNERS[a] - CORNERS[b]).sum() == 1]


class Scene(NamedTuple):
    """What is drawn of n atoms: coordinates to the right, upwards and towards the viewer, from the back to the front.

    positions, colours (n, 3); radii (n,); corners (8, 3) of the cell, if it is drawn; low, high (2,): what is seen.
    """

    positions: Array
    radii: Array
    colours: Array
    corners: Array | None
    low: Array
    high: Array
    notes: list[str]


def structures(frames: Mapping[str, "Atoms"], reduced: bool, of: int) -> Drawing:
    """Structures side by side, by name, which may hold some of `of` atoms; in reduced units spheres of diameter
    sigma."""
    return partial(plot_structures, scenes={name: scene(atoms, reduced, of) for name, atoms in frames.items()})


def scene(atoms: "Atoms", reduced: bool, of: int | None = None) -> Scene:
    """What is to be seen of a structure.

    Of more than 10,000 atoms as many are drawn, chosen by lot. Where a few are far from all others, or where atoms
    would be dots in their cell, the picture is of the others, or of the atoms. What is left out is noted.
    """
    from ase.data import covalent_radii
    from ase.data.colors import jmol_colors
    from ase.utils import rotate

    of = len(atoms) if of is None else of
    finite = np.flatnonzero(np.isfinite(atoms.positions).all(axis=1))
    if not len(finite):
        raise ValueError("no atom has a finite position")
    chosen = finite
    if len(finite) > MOST_ATOMS:
        chosen = np.random.default_rng(0).choice(finite, MOST_ATOMS, replace=False)
    notes = [f"{len(chosen):,} of {of:,} atoms"] if len(chosen) < of else []
    if len(finite) < len(atoms):
        notes.append(f"without a finite position: {len(atoms) - len(finite):,}")
    rotation = rotate("10x,-15y,0z")
    positions = atoms.positions[chosen] @ rotation
    back_to_front = np.argsort(positions[:, 2], kind="stable")
    positions, numbers = positions[back_to_front], atoms.numbers[chosen][back_to_front]
    radii = np.full(len(chosen), 0.5) if reduced else covalent_radii[numbers]
    low, high = _view(positions, radii)
    inside = ((positions > low) & (positions < high)).all(axis=1)
    if not inside.all():
        notes.append(f"far away, and not shown: {(~inside).sum():,} atoms")
        positions, numbers, radii = positions[inside], numbers[inside], radii[inside]
    colours = _by_depth(positions[:, 2]) if reduced else jmol_colors[numbers]
    corners = None
    if atoms.pbc.any():
        corners = CORNERS @ atoms.cell.array @ rotation
        around = np.minimum(low, corners.min(axis=0)), np.maximum(high, corners.max(axis=0))
        width = float((around[1] - around[0]).max())
        # A sphere should be three pixels wide, unless atoms fill the cell.
        if width > max(PIXELS / 3 * 2 * float(radii.mean()), 2 * float((high - low).max())):
            lengths = " x ".join(f"{length:.3g}" for length in atoms.cell.lengths())
            notes.append(f"the cell is much larger: {lengths} {'σ' if reduced else 'Å'}")
            corners = None
        else:
            low, high = around
    return Scene(positions, radii, colours, corners, low[:2], high[:2], notes)


def _view(positions: Array, radii: Array) -> tuple[Array, Array]:
    """Lower and upper corner (3,) of a box around all atoms, or most of them where the others are far away."""
    low, high = (positions - radii[:, None]).min(axis=0), (positions + radii[:, None]).max(axis=0)
    inner = np.quantile(positions, (0.1, 0.9), axis=0, method="nearest")
    inner += np.array([[-1], [1]]) * radii.max()
    margin = float((inner[1] - inner[0]).max())
    if (high - low).max() <= 10 * margin:
        return low, high
    return np.maximum(low, inner[0] - margin), np.minimum(high, inner[1] + margin)


def _by_depth(z: Array) -> Array:
    """(n, 3) colours, paler for atoms farther back, so that a cluster does not look flat."""
    near = ((z - z.min()) / max(float(np.ptp(z)), 1e-9))[:, None]
    colours: Array = (1 - near) * np.array([0.85, 0.90, 0.95]) + near * np.array([0.15, 0.45, 0.70])
    return colours


def plot_structures(scenes: Mapping[str, Scene]) -> "Figure":
    """Scenes side by side, by name, all on the same scale."""
    figure = new_figure(PANEL * len(scenes), PANEL)
    panels = figure.subplots(1, len(scenes), squeeze=False)[0]
    half = 0.52 * max(float((view.high - view.low).max()) for view in scenes.values())
    for axes, (name, view) in zip(panels, scenes.items(), strict=True):
        _draw_atoms(axes, view, 2 * half / PIXELS)
        if view.corners is not None:
            _draw_cell(axes, view.corners)
        x, y = 0.5 * (view.low + view.high)
        axes.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal", xticks=[], yticks=[])
        axes.set_frame_on(False)
        axes.set_title(name)
        note(axes, view.notes)
    return figure


def _draw_atoms(axes: "Axes", view: Scene, pixel: float) -> None:
    from matplotlib.collections import EllipseCollection

    widths = np.maximum(2 * view.radii, 3 * pixel)
    axes.add_collection(
        EllipseCollection(
            widths,
            widths,
            np.zeros(len(widths)),
            units="xy",
            offsets=view.positions[:, :2],
            offset_transform=axes.transData,
            facecolors=view.colours,
            edgecolors="black",
            linewidths=np.clip(0.03 * widths / pixel, 0.1, 1.0),
        ),
        autolim=False,
    )


def _draw_cell(axes: "Axes", corners: Array) -> None:
    """Twelve lines; the three that meet in the corner farthest from the viewer lie behind the atoms, dotted."""
    farthest = int(corners[:, 2].argmin())
    for edge in EDGES:
        behind = farthest in edge
        x, y = corners[list(edge), :2].T
        axes.plot(x, y, color="black", lw=0.8, ls=":" if behind else "-", zorder=0 if behind else 2)
