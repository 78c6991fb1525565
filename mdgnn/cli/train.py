"""`mdgnn train`, `mdgnn evaluate` and `mdgnn plot`: from options to the work, and from results to tables."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from mdgnn.cli.errors import CommandError
from mdgnn.cli.terminal import print_table, show
from mdgnn.data import Dataset, Keys, PropertyKey, read_frames
from mdgnn.data.frames import left_out
from mdgnn.data.labels import names_in
from mdgnn.dynamics.run_folder import clear, hold
from mdgnn.model_file import load
from mdgnn.plots import draw
from mdgnn.potential import Potential
from mdgnn.training import evaluate as evaluation
from mdgnn.training import plots, run
from mdgnn.training.config import read
from mdgnn.training.data import properties_of
from mdgnn.training.outcome import redraw

PARITY = "parity.png"
ABREAST = 2  # quantities in a table, which a terminal of 80 columns shows


def start(config: Path, settings: Sequence[str], folder: Path, force: bool) -> None:
    """Train, and say what came of it."""
    summary = run.train(read(config, settings), folder, force)
    _tell(summary, folder)


def go_on(folder: Path, settings: Sequence[str]) -> None:
    """Continue a run, and say what came of it."""
    _tell(run.resume(folder, settings), folder)


def _tell(summary: dict[str, Any], folder: Path) -> None:
    if not summary:  # another process speaks
        return
    rows = {"steps": str(summary["steps"]), "best epoch": str(summary["best_epoch"])}
    model = load(folder / "model.safetensors")
    names = plots.names_of(properties_of(model))
    for name, figures in summary["errors"].items():
        for quantity in names:
            if f"{quantity}_mae" in figures:
                mae, rmse = figures[f"{quantity}_mae"], figures[f"{quantity}_rmse"]
                unit = plots.unit_of(quantity, model.units)
                rows[f"{name}: {names[quantity]}"] = f"MAE {mae:.4g}, RMSE {rmse:.4g} {unit}".rstrip()
    print_table(f"training in {folder}", {**rows, "model": str(folder / "model.safetensors")})


class Task(NamedTuple):
    """What is evaluated: a model on files, whose targets have these names; of properties, NAME=KEY if it is another,
    NAME= if one is left out."""

    model: str
    data: list[str]
    keys: Keys
    bad: Literal["raise", "skip"]
    units: str
    device: str
    properties: Sequence[str] = ()
    format: str | None = None  # ASE's name of that of the files, where it is not guessed
    trusted: Sequence[str] = ()  # modules that the model's class may be imported from


def _with_properties(keys: Keys, model: Potential, settings: Sequence[str]) -> Keys:
    """The keys of all that a model predicts; settings are NAME=KEY, without a key for what is left out."""
    known = {p.name: PropertyKey(p.name, p.name, p.kind == "atomic") for p in properties_of(model)}
    for setting in settings:
        name, equals, key = setting.partition("=")
        if not equals or name not in known:
            names = ", ".join(known) or "none"
            raise CommandError(f"expected --property NAME=KEY with a property of the model ({names}), got {setting!r}")
        known[name] = known[name]._replace(key=key)
    if not model.has_energy:
        keys = replace(keys, energy="", forces="", stress="")
    return replace(keys, properties=tuple(p for p in known.values() if p.key))


def evaluate(task: Task, folder: Path, force: bool) -> None:
    """Print the table of errors, and write it with parity plots."""
    with hold(folder, force):
        _evaluate(task, folder)


def _evaluate(task: Task, folder: Path) -> None:
    model = load(task.model, task.trusted)
    keys = _with_properties(task.keys, model, task.properties)
    units = model.units if task.units == "model" else "any"
    frames = read_frames(task.data, keys, bad=task.bad, need=(), units=units, format=task.format)
    dataset = Dataset(frames, model.cutoff, keys=keys)
    comparison = evaluation.compare(model.to(task.device).requires_grad_(False), dataset, device=task.device)
    for p in keys.properties:
        if not len(comparison.pairs(p.name)[0]) and f"{p.name}={p.key}" in task.properties:
            raise CommandError(f"--property {p.name}: no structure has numbers under that key")
    if len(comparison.figures()) == 1:
        there = ", ".join(names_in(dataset.frame(0))) or "no labels"
        raise CommandError(
            f"expected labels to compare with: {', '.join(comparison.all_pairs())}; the data have none "
            f"under their keys (in the first structure there are: {there})"
        )
    if frames.skipped:
        typer.echo(f"mdgnn: {left_out(frames.skipped)}", err=True)
    clear(folder, (evaluation.ERRORS, evaluation.TABLE, evaluation.STRUCTURES, PARITY))
    about = {"model": task.model, "data": task.data, "units": model.units, "skipped": [str(b) for b in frames.skipped]}
    evaluation.write(comparison, folder, about)
    names = plots.names_of(properties_of(model))
    draw(folder, {PARITY: lambda: plots.parity(comparison.all_pairs(), model.units, names)})
    _print_errors(comparison.table(), names, model.units, f"{task.model} on {', '.join(task.data)}")


def _print_errors(table: dict[str, dict[str, float]], names: dict[str, str], units: str, title: str) -> None:
    known = [q for q in names if f"{q}_mae" in table["all"]]
    for first in range(0, len(known), ABREAST):
        some = {q: (names[q], plots.unit_of(q, units)) for q in known[first : first + ABREAST]}
        _print_some(table, some, "" if first else title)


def _print_some(table: dict[str, dict[str, float]], quantities: dict[str, tuple[str, str]], title: str) -> None:
    """Names and units of the quantities are given."""
    shown = Table(title=Text(title))
    shown.add_column("", no_wrap=True)
    shown.add_column("structures", justify="right")
    for name, unit in quantities.values():
        for kind in ("MAE", "RMSE"):
            shown.add_column(f"{name}\n{kind}{f' ({unit})' if unit else ''}", justify="right", overflow="fold")
    for name, row in table.items():
        cells = [row.get(f"{q}_{kind}") for q in quantities for kind in ("mae", "rmse")]
        shown.add_row(Text(name), str(row["n_structures"]), *("" if c is None else f"{c:.5g}" for c in cells))
    show(shown)


def plot(folder: Path) -> None:
    """Draw the pictures of a run."""
    for name in redraw(folder):
        typer.echo(folder / name)
