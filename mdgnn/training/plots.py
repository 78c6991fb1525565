"""Pictures of a run of training: how it went, how wrong the model is, and what it makes of two atoms."""

import io
import itertools
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mdgnn.graph import Graph
from mdgnn.models import Model, Property
from mdgnn.potential import evaluate

Array = NDArray[np.float64]
LEARNING, DIMERS = "learning.png", "dimers.png"
NAMES = {"energy": "energy per atom", "forces": "force component", "stress": "stress component"}
MANY = 3000  # points, of which single ones are no longer seen
MOST_CURVES = 10


def unit_of(quantity: str, units: str) -> str:
    """Of energy per atom, forces and stress, as it is written in pictures and tables; "" of what has its own."""
    energy, length = ("ε", "σ") if units == "lj" else ("eV", "Å")
    return {"energy": energy, "forces": f"{energy}/{length}", "stress": f"{energy}/{length}³"}.get(quantity, "")


def names_of(properties: Sequence[Property]) -> dict[str, str]:
    """What is written of each quantity, properties included."""
    return {**NAMES, **{p.name: f"{p.name} per atom" if p.kind == "extensive" else p.name for p in properties}}


def plot_learning(path: Path, rows: Sequence[Mapping[str, str]], units: str, names: Mapping[str, str] = NAMES) -> None:
    """Losses, errors of the quantities, and learning rate against the epoch, from the rows of a log."""

    def column(name: str) -> Array:
        return np.array([float(row[name]) if row[name] else np.nan for row in rows])

    epoch = column("epoch")
    known = [name.removesuffix("_mae") for name in rows[0] if name.endswith("_mae") and np.isfinite(column(name)).any()]
    figure = Figure(figsize=(6.5, 2.2 * (2 + len(known))), layout="constrained")
    panels = figure.subplots(2 + len(known), 1, sharex=True)
    marker = "o-" if len(rows) < 40 else "-"
    for name, label in (("train_loss", "training"), ("valid_loss", "validation")):
        panels[0].semilogy(epoch, column(name), marker, ms=3, lw=1.2, label=label)
    panels[0].set_ylabel("loss")
    for axes, quantity in zip(panels[1:], known, strict=False):
        for kind, style in (("rmse", "-"), ("mae", "--")):
            axes.semilogy(epoch, column(f"{quantity}_{kind}"), style, lw=1.2, color="C2", label=kind.upper())
        axes.set_ylabel(_with_unit(names[quantity], unit_of(quantity, units)))
    for axes in panels[:-1]:
        axes.legend(loc="upper right")
    panels[-1].semilogy(epoch, column("lr"), "-", lw=1.2, color="C3")
    panels[-1].set(xlabel="epoch", ylabel="learning rate")
    _save(figure, path)


def _with_unit(text: str, unit: str) -> str:
    return f"{text} ({unit})" if unit else text


def plot_parity(
    path: Path, pairs: Mapping[str, tuple[Array, Array]], units: str, names: Mapping[str, str] = NAMES
) -> None:
    """Predictions against the truth, by quantity; above each, its RMSE."""
    shown = {name: pair for name, pair in pairs.items() if len(pair[0])}
    figure = Figure(figsize=(4.2 * max(1, len(shown)), 4.4), layout="constrained")
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    for axes, (name, (truth, said)) in zip(panels, shown.items(), strict=False):
        unit = unit_of(name, units)
        _diagonal(axes, truth, said)
        rmse = float(np.sqrt(np.square(said - truth).mean()))
        axes.set(xlabel=_with_unit("reference", unit), ylabel=_with_unit("model", unit), aspect="equal")
        axes.set_title(f"{names[name]}, RMSE {rmse:.3g} {unit}".rstrip(), fontsize=10)
    _save(figure, path)


def _diagonal(axes: Axes, truth: Array, said: Array) -> None:
    both = np.concatenate([truth, said])
    low, high = float(both.min()), float(both.max())
    margin = 0.04 * (high - low) or 1.0
    ends = (low - margin, high + margin)
    axes.plot(ends, ends, color="0.6", lw=1, zorder=0)
    if len(truth) > MANY:
        axes.hexbin(truth, said, gridsize=80, bins="log", mincnt=1, extent=(*ends, *ends), cmap="viridis", linewidths=0)
    else:
        axes.plot(truth, said, "o", ms=3, alpha=0.5, mew=0)
    axes.set(xlim=ends, ylim=ends)
    axes.locator_params(nbins=6)


def dimer_curve(model: Model, pair: tuple[int, int], distances: Array) -> Array:
    """(n,) energies of two atoms at distances, less those of the atoms alone."""
    dimers = [Atoms(numbers=pair, positions=[[0, 0, 0], [r, 0, 0]]) for r in distances]
    alone = [Atoms(numbers=[z]) for z in pair]
    with torch.no_grad():
        energy = evaluate(model, Graph.from_atoms([*dimers, *alone], model.cutoff), forces=False).energy.numpy()
    result: Array = energy[: len(dimers)] - energy[len(dimers) :].sum()
    return result


def plot_dimers(path: Path, model: Model) -> None:
    """Energy against distance for pairs of the model's elements, at most ten of them, down to somewhat below the
    shortest distance in the training data, which is marked."""
    elements = model.elements if isinstance(model.elements, list) else [18]
    pairs = list(itertools.islice(itertools.combinations_with_replacement(elements, 2), MOST_CURVES))
    far = model.cutoff if np.isfinite(model.cutoff) else 4 * max(model.least_distance, 1.0)
    near = 0.9 * model.least_distance if 0 < model.least_distance < far else 0.3 * far
    r = np.linspace(near, 1.05 * far, 300)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    deepest = 0.0
    for pair in pairs:
        symbols = "-".join(chemical_symbols[z] for z in pair) if isinstance(model.elements, list) else "any two atoms"
        energy = dimer_curve(model, pair, r)
        deepest = min(deepest, float(energy.min()))
        axes.plot(r, energy, lw=1.3, label=symbols)
    if model.least_distance:
        axes.axvspan(near, model.least_distance, color="0.9", zorder=-1, label="closer than in the training data")
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    energy_unit, length = ("ε", "σ") if model.units == "lj" else ("eV", "Å")
    depth = max(-deepest, 1e-3)
    axes.set(xlabel=f"distance ({length})", ylabel=f"energy ({energy_unit})", xlim=(near, r[-1]))
    axes.set_ylim(-1.3 * depth, 2.0 * depth)
    axes.legend(loc="best", fontsize=9)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    """Pictures are whole at any moment: `mdgnn plot` may draw a run that draws itself, or that another one draws."""
    picture = io.BytesIO()
    figure.savefig(picture, dpi=120, format="png")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(picture.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
