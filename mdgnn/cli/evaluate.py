"""`mdgnn evaluate`: from options to the comparison, and from it to tables."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from mdgnn.calculators import MDGNNCalculator
from mdgnn.cli.errors import CommandError, need_extra
from mdgnn.cli.terminal import show
from mdgnn.data.frames import FrameList, left_out, read_frames
from mdgnn.data.labels import Keys, PropertyKey, names_in
from mdgnn.dynamics.run_folder import clear, hold
from mdgnn.model_header import ModelInfo, StoredModel
from mdgnn.plots import draw
from mdgnn.training import comparison as comparing
from mdgnn.training import plots
from mdgnn.training.comparison import Comparison

PARITY = "parity.png"
ABREAST = 2  # quantities in a table, which a terminal of 80 columns shows


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


def _with_properties(keys: Keys, model: ModelInfo, settings: Sequence[str]) -> Keys:
    """The keys of all that a model predicts; settings are NAME=KEY, without a key for what is left out."""
    known = {p.name: PropertyKey(p.name, p.name, p.kind == "atomic") for p in model.properties}
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


def _model_of(task: Task) -> tuple[ModelInfo, Callable[[FrameList, Keys], Comparison]]:
    """What compares it with frames: without torch where a file's program says all that one of our models does."""
    stored = StoredModel.read(task.model)
    ours = ":" not in stored.header["architecture"]
    if ours and stored.precision is not None and stored.has_all_in_program and task.device == "cpu":
        calculator = MDGNNCalculator(task.model, dtype=stored.precision, too_close="ignore")
        kinds = {p.name: p.kind for p in calculator.info.properties}
        return calculator.info, partial(comparing.compare_frames, calculator.compute, kinds)
    need_extra()
    from mdgnn.data import Dataset
    from mdgnn.model_file import info_of, load
    from mdgnn.training import evaluate as evaluation

    model = load(task.model, task.trusted)

    def compare(frames: FrameList, keys: Keys) -> Comparison:
        dataset = Dataset(frames, model.cutoff, keys=keys)
        return evaluation.compare(model.to(task.device).requires_grad_(False), dataset, device=task.device)

    return info_of(model), compare


def _evaluate(task: Task, folder: Path) -> None:
    model, compare = _model_of(task)
    keys = _with_properties(task.keys, model, task.properties)
    units = model.units if task.units == "model" else "any"
    frames = read_frames(task.data, keys, bad=task.bad, need=(), units=units, format=task.format)
    comparison = compare(frames, keys)
    for p in keys.properties:
        if not len(comparison.pairs(p.name)[0]) and f"{p.name}={p.key}" in task.properties:
            raise CommandError(f"--property {p.name}: no structure has numbers under that key")
    if len(comparison.figures()) == 1:
        there = ", ".join(names_in(frames[0])) or "no labels"
        raise CommandError(
            f"expected labels to compare with: {', '.join(comparison.all_pairs())}; the data have none "
            f"under their keys (in the first structure there are: {there})"
        )
    if frames.skipped:
        typer.echo(f"mdgnn: {left_out(frames.skipped)}", err=True)
    clear(folder, (comparing.ERRORS, comparing.TABLE, comparing.STRUCTURES, PARITY))
    about = {"model": task.model, "data": task.data, "units": model.units, "skipped": [str(b) for b in frames.skipped]}
    comparing.write(comparison, folder, about)
    names = plots.names_of(model.properties)
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
