"""Pictures of a run of training: how it went, how wrong the model is, and what it makes of two atoms."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdgnn.plots.process import Drawing
from mdgnn.plots.style import line, literal, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
MANY = 3000  # points, of which single ones are no longer seen
SQUARES = 100  # a side, in which they are counted


def plot_learning(columns: Mapping[str, Array], errors: Mapping[str, str]) -> "Figure":
    """Losses, errors of the quantities, and learning rate against the epoch.

    columns has epoch, train_loss, valid_loss, lr and, for each quantity, quantity_rmse and quantity_mae; errors has the
    label of each quantity that is shown.
    """
    figure = new_figure(6.5, 2.2 * (2 + len(errors)))
    panels = figure.subplots(2 + len(errors), 1, sharex=True)
    epoch = columns["epoch"]
    marker = "o-" if len(epoch) < 40 else "-"
    for name, label in (("train_loss", "training"), ("valid_loss", "validation")):
        line(panels[0], epoch, columns[name], marker, ms=3, lw=1.2, label=label)
    panels[0].set_ylabel("loss")
    for axes, (quantity, label) in zip(panels[1:], errors.items(), strict=False):
        for kind, style in (("rmse", "-"), ("mae", "--")):
            line(axes, epoch, columns[f"{quantity}_{kind}"], style, lw=1.2, color="C2", label=kind.upper())
        axes.set_ylabel(literal(label))
    for axes in panels[:-1]:
        axes.legend(loc="upper right")
    line(panels[-1], epoch, columns["lr"], "-", lw=1.2, color="C3")
    panels[-1].set(xlabel="epoch", ylabel="learning rate")
    for axes in panels:
        axes.set_yscale("log")
    return figure


class Pairs(NamedTuple):
    """Predictions against the truth: each, or how many there are in each square of a grid.

    title, unit : str
    ends : (float, float)
        Of both axes.
    points : (2, n)
        Truth and prediction, if they are not many.
    counts : (SQUARES, SQUARES)
        By truth, then prediction, if they are.
    """

    title: str
    unit: str
    ends: tuple[float, float]
    points: Array | None
    counts: NDArray[np.int64] | None
    notes: list[str]


def pairs(truth: Array, said: Array, title: str, unit: str) -> Pairs:
    """What is drawn of predictions (n,) and what is true; the title gets their RMSE."""
    finite = np.isfinite(truth) & np.isfinite(said)
    with np.errstate(over="ignore", invalid="ignore"):
        title = f"{title}, RMSE {float(np.sqrt(np.square(said - truth).mean())):.3g} {unit}".rstrip()
    notes = [] if finite.all() else [f"{(~finite).sum():,} of {len(finite):,} points are not finite, and not shown"]
    if notes:
        truth, said = truth[finite], said[finite]
    if not len(truth):
        return Pairs(title, unit, (0.0, 1.0), np.zeros((2, 0)), None, notes)
    low, high = float(min(truth.min(), said.min())), float(max(truth.max(), said.max()))
    margin = 0.04 * (high - low) or max(abs(high), 1.0)
    ends = low - margin, high + margin
    if len(truth) <= MANY:
        return Pairs(title, unit, ends, np.stack([truth, said]), None, notes)
    column, row = (((x - ends[0]) * (SQUARES / (ends[1] - ends[0]))).astype(np.int64) for x in (truth, said))
    counts = np.bincount(column * SQUARES + row, minlength=SQUARES**2).reshape(SQUARES, SQUARES)
    return Pairs(title, unit, ends, None, counts, notes)


def parity(shown: Sequence[Pairs]) -> Drawing:
    """Predictions against the truth, a panel for each quantity."""
    return partial(plot_parity, shown=shown)


def plot_parity(shown: Sequence[Pairs]) -> "Figure":
    """Panels side by side; many points as the number of them in each square."""
    figure = new_figure(4.2 * max(1, len(shown)), 4.4)
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, some in zip(panels, shown, strict=False):
        _diagonal(axes, some)
        label = f" ({some.unit})" if some.unit else ""
        axes.set(xlabel=f"reference{label}", ylabel=f"model{label}", aspect="equal", xlim=some.ends, ylim=some.ends)
        axes.set_title(literal("\n".join([some.title, *some.notes])), fontsize=10)
        axes.locator_params(nbins=6)
    return figure


def _diagonal(axes: "Axes", some: Pairs) -> None:
    axes.plot(some.ends, some.ends, color="0.6", lw=1, zorder=0)
    if some.points is not None:
        axes.plot(*some.points, "o", ms=3, alpha=0.5, mew=0)
    elif some.counts is not None:
        counts = np.ma.masked_equal(some.counts.T, 0)
        axes.imshow(
            counts, extent=(*some.ends, *some.ends), origin="lower", norm="log", cmap="viridis", interpolation="nearest"
        )


def plot_dimers(r: Array, curves: Mapping[str, Array], energy_unit: str, length_unit: str, nearest: float) -> "Figure":
    """Energies by the name of the pair against the distance; what is nearer than `nearest`, of the training data, is
    marked."""
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for label, energy in curves.items():
        line(axes, r, energy, lw=1.3, label=label)
    if nearest:
        axes.axvspan(r[0], nearest, color="0.9", zorder=-1, label="closer than in the training data")
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    finite = [energy[np.isfinite(energy)] for energy in curves.values()]
    depth = max(1e-3, *(-float(energy.min()) for energy in finite if len(energy)), 1e-3)
    axes.set(xlabel=f"distance ({length_unit})", ylabel=f"energy ({energy_unit})", xlim=(r[0], r[-1]))
    axes.set_ylim(-1.3 * depth, 2.0 * depth)
    axes.legend(loc="best", fontsize=9)
    return figure
