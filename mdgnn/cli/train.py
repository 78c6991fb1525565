"""`mdgnn train`, `mdgnn evaluate` and `mdgnn plot`: from options to the work, and from results to tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from mdgnn.cli.terminal import print_table
from mdgnn.model_file import load
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


def plot(folder: Path) -> None:
    """Draw the pictures of a run."""
    for name in redraw(folder):
        typer.echo(folder / name)
