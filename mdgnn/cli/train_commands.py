"""The interface of `mdgnn train`, `evaluate` and `plot`; what they need is imported when they run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mdgnn._internal.file_names import short_name
from mdgnn.cli.errors import errors_as_sentences, need_extra

ForceOption = Annotated[bool, typer.Option("--force", help="Replace an earlier run's files in the output folder.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Over what stands in the file, such as loss.forces=100."),
]


def train_command(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.toml", help="Sections model, data, loss ...")] = None,
    settings: SetOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder.", show_default="mdgnn-train-NAME")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Continue the run in this folder, bit for bit; only --set run.epochs=N may be more than it was.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Train a model. Ctrl-C ends a run in good order, and --resume goes on from there; also after a kill.

    Output: model.safetensors (the best model), summary.json, log.csv, checkpoints and pictures. Under torchrun, several
    processes train together.
    """
    if (config is None) == (resume is None):
        raise typer.BadParameter("give a configuration to start from, or --resume FOLDER, and not both")
    if resume is not None and (output is not None or force):
        raise typer.BadParameter("--resume writes to the folder it continues; --output and --force do not go with it")
    with errors_as_sentences():
        need_extra()
        from mdgnn._internal.user_modules import modules_of
        from mdgnn.cli import train

        with modules_of(""):
            if resume is not None:
                train.go_on(resume, settings or [])
            elif config is not None:
                train.start(config, settings or [], output or Path(f"mdgnn-train-{short_name(str(config))}"), force)


def evaluate_command(
    model: Annotated[str, typer.Argument(help="A shipped model's name or a model file.")],
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help="Files in any format ASE reads.")],
    output: Annotated[Path | None, typer.Option(help="Folder.", show_default="mdgnn-evaluate-NAME")] = None,
    energy: Annotated[str, typer.Option(help="Key of the energies in the files.")] = "energy",
    forces: Annotated[str, typer.Option(help="Key of the forces.")] = "forces",
    stress: Annotated[str, typer.Option(help="Key of the stresses.")] = "stress",
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME=KEY", help="Key of a property, if not its name; NAME= leaves it out."),
    ] = None,
    bad: Annotated[Literal["raise", "skip"], typer.Option(help="What to do about bad structures.")] = "raise",
    units: Annotated[
        Literal["model", "any"], typer.Option(help="any: numbers of implausible size are right.")
    ] = "model",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    format: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ASE's name of the files' format, such as extxyz.", show_default="guessed"),
    ] = None,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Module that may be imported for the class of the model, such as a.b."),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Errors of a model on labelled structures: overall, by config_type, forces and atomic properties by element.

    Output: errors.json, errors.csv, structures.csv and parity.png.
    """
    with errors_as_sentences():
        from mdgnn._internal.user_modules import modules_of
        from mdgnn.cli import evaluate
        from mdgnn.data import Keys

        keys = Keys(energy=energy, forces=forces, stress=stress)
        folder = output or Path(f"mdgnn-evaluate-{short_name(model)}")
        task = evaluate.Task(model, data, keys, bad, units, device, properties or [], format, trust or [])
        with modules_of(""):
            evaluate.evaluate(task, folder, force)


def plot_command(run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of mdgnn train.")]) -> None:
    """Draw a run of training, which may be under way: learning curve, parity, dimer curves."""
    with errors_as_sentences():
        need_extra()
        from mdgnn._internal.user_modules import modules_of
        from mdgnn.cli import train

        with modules_of(""):
            train.plot(run)
