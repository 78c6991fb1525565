"""`mdgnn train`, `mdgnn evaluate` and `mdgnn plot`: from options to the work, and from results to tables."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from rich.console import Console
from rich.table import Table

from mdgnn.cli.errors import CommandError, InterruptedRunError
from mdgnn.cli.output import check_free, print_table
from mdgnn.data import Dataset, Keys, read_frames
from mdgnn.model_file import load
from mdgnn.training import evaluate as evaluation
from mdgnn.training import plots, run
from mdgnn.training.config import read
from mdgnn.training.folder import RunError
from mdgnn.training.losses import QUANTITIES
from mdgnn.training.outcome import redraw
from mdgnn.training.watch import InterruptedTrainingError

Result = TypeVar("Result")
PARITY = "parity.png"


def _sentences(work: Callable[[], Result]) -> Result:
    """Problems of a run, as the command line tells them."""
    try:
        return work()
    except InterruptedTrainingError as error:
        raise InterruptedRunError(error.signum, str(error)) from None
    except RunError as error:
        raise CommandError(str(error)) from None


def start(config: Path, settings: Sequence[str], folder: Path, force: bool) -> None:
    """Train, and say what came of it."""
    summary = _sentences(lambda: run.train(read(config, settings), folder, force))
    _tell(summary, folder)


def go_on(folder: Path, settings: Sequence[str]) -> None:
    """Continue a run, and say what came of it."""
    _tell(_sentences(lambda: run.resume(folder, settings)), folder)


def _tell(summary: dict[str, Any], folder: Path) -> None:
    if not summary:  # another process speaks
        return
    rows = {"steps": str(summary["steps"]), "best epoch": str(summary["best_epoch"])}
    units = load(folder / "model.safetensors").units
    for name, figures in summary["errors"].items():
        for quantity in QUANTITIES:
            if f"{quantity}_mae" in figures:
                mae, rmse = figures[f"{quantity}_mae"], figures[f"{quantity}_rmse"]
                unit = plots.unit_of(quantity, units)
                rows[f"{name}: {plots.NAMES[quantity]}"] = f"MAE {mae:.4g}, RMSE {rmse:.4g} {unit}"
    print_table(f"training in {folder}", {**rows, "model": str(folder / "model.safetensors")})


class Task(NamedTuple):
    """What is evaluated: a model on files, whose targets have these names."""

    model: str
    data: list[str]
    keys: Keys
    bad: Literal["raise", "skip"]
    units: str
    device: str


def evaluate(task: Task, folder: Path, force: bool) -> None:
    """Print the table of errors, and write it with parity plots."""
    ours = (evaluation.ERRORS, evaluation.TABLE, evaluation.STRUCTURES, PARITY)
    check_free(folder, force)
    model, keys = load(task.model), task.keys
    frames = read_frames(task.data, keys, bad=task.bad, need=(), units=model.units if task.units == "model" else "any")
    dataset = Dataset(frames, model.cutoff, keys=keys)
    comparison = evaluation.compare(model.to(task.device).requires_grad_(False), dataset, device=task.device)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ours:
        (folder / name).unlink(missing_ok=True)
    about = {"model": task.model, "data": task.data, "units": model.units, "skipped": [str(b) for b in frames.skipped]}
    _sentences(lambda: evaluation.write(comparison, folder, about))
    plots.plot_parity(folder / PARITY, {q: comparison.pairs(q) for q in QUANTITIES}, model.units)
    _print_errors(comparison.table(), model.units, f"{task.model} on {', '.join(task.data)}")


def _print_errors(table: dict[str, dict[str, float]], units: str, title: str) -> None:
    known = [q for q in QUANTITIES if f"{q}_mae" in table["all"]]
    shown = Table(title=title)
    shown.add_column("", no_wrap=True)
    shown.add_column("structures", justify="right")
    for quantity in known:
        for kind in ("MAE", "RMSE"):
            shown.add_column(f"{plots.NAMES[quantity]}\n{kind} ({plots.unit_of(quantity, units)})", justify="right")
    for name, row in table.items():
        cells = [row.get(f"{q}_{kind}") for q in known for kind in ("mae", "rmse")]
        shown.add_row(name, str(row["n_structures"]), *("" if c is None else f"{c:.5g}" for c in cells))
    Console().print(shown)


def plot(folder: Path) -> None:
    """Draw the pictures of a run."""
    for name in _sentences(lambda: redraw(folder)):
        Console().print(str(folder / name))
