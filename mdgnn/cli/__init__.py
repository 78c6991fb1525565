"""The command line: `mdgnn relax`, `mdgnn md`, `mdgnn info`, `mdgnn dataset`, `mdgnn train`, `evaluate` and `plot`.

This file is the interface alone. What a command needs is imported when it runs, so that `mdgnn --help` is fast.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mdgnn._internal.file_names import short_name
from mdgnn.cli.dataset_commands import dataset
from mdgnn.cli.errors import CommandError, errors_as_sentences
from mdgnn.cli.train_commands import evaluate_command, plot_command, train_command

app = typer.Typer(
    help="Relaxation and molecular dynamics with graph-neural-network potentials.",
    epilog="Units follow the model: reduced Lennard-Jones units (epsilon, sigma, tau = sigma sqrt(m/epsilon)) "
    "if it says so, else eV, Angstrom, fs and K.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(dataset, name="dataset")
app.command("train")(train_command)
app.command("evaluate")(evaluate_command)
app.command("plot")(plot_command)

# As in mdgnn.dynamics, which is not imported here; a test compares them.
Optimizer = Literal["BFGS", "LBFGS", "FIRE", "FIRE2", "BFGSLineSearch", "LBFGSLineSearch", "MDMin", "GPMin"]
Ensemble = Literal["nve", "langevin", "npt"]
Dtype = Literal["float32", "float64"]


def _index(text: str) -> int | Literal[":"]:
    """A frame's number, or all frames."""
    if text == ":":
        return ":"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is neither a frame's number nor : for all frames") from None


StructureHelp = "A file in any format ASE reads; or, if there is no file of that name, lj:N for N atoms."
IndexOption = Annotated[
    Any,
    typer.Option(
        parser=_index,
        metavar="NUMBER|:",
        help="Which frame of the file: 0 is the first, -1 the last; ':' all, each by itself and many at once.",
        show_default="-1",
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="ASE's name of the file's format, such as lammps-data.", show_default="guessed"),
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu or cuda.", show_default="cpu")]
DtypeOption = Annotated[Dtype | None, typer.Option(help="Precision of the network.", show_default="float32")]
ModelOption = Annotated[str | None, typer.Option(help="A shipped model's name or a model file.", show_default="lj")]
SeedOption = Annotated[int | None, typer.Option(min=0, help="Of everything random.", show_default="0")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace an earlier run's files in the output folder.")]


@app.command("relax")
def relax_command(
    structure: Annotated[str, typer.Argument(metavar="FILE|NAME", help=StructureHelp)],
    model: ModelOption = None,
    fmax: Annotated[float, typer.Option(help="Largest force allowed, in epsilon/sigma or eV/Angstrom.")] = 0.01,
    optimizer: Annotated[
        Optimizer | None, typer.Option(help="One of ASE's.", case_sensitive=False, show_default="LBFGS")
    ] = None,
    steps: Annotated[int, typer.Option(min=0, help="Give up after so many.")] = 1000,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    index: IndexOption = None,
    format: FormatOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder.", show_default="mdgnn-relax-NAME")] = None,
    force: ForceOption = False,
) -> None:
    """Move the atoms until the forces vanish. Exit status 1 if they do not within --steps.

    Output: trajectory.xyz, log.csv, final.xyz, summary.json and plots. Tags, arrays and information of the file are in
    each frame, and so are constraints; those that ASE cannot read there are in final.traj too. Of many structures,
    --index :, which move by FIRE, final.xyz has a frame for each and log.csv a row.
    """
    with errors_as_sentences():
        from mdgnn import plots

        plots.start()
        from mdgnn.cli.dynamics import RunOptions, relax, relax_many

        chosen = _given(model=model, seed=seed, device=device, dtype=dtype, index=index, format=format)
        folder = output or Path(f"mdgnn-relax-{short_name(structure)}")
        options = RunOptions(structure, folder, force, **chosen)
        if index == ":":
            if optimizer not in (None, "FIRE"):
                raise CommandError(
                    f"many structures at once are relaxed by FIRE, not by {optimizer}: leave --optimizer out"
                )
            relax_many(options, fmax=fmax, steps=steps)
        else:
            relax(options, fmax=fmax, optimizer=optimizer or "LBFGS", steps=steps)


@app.command("md")
def md_command(
    structure: Annotated[str | None, typer.Argument(metavar="FILE|NAME", help=StructureHelp)] = None,
    model: ModelOption = None,
    ensemble: Annotated[
        Ensemble | None,
        typer.Option(
            help="Constant energy, a thermostat, or a thermostat with a barostat that scales the cell.",
            show_default="nve",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            help="Of the initial velocities and the thermostat, in epsilon/kB or K. "
            "Without it, momenta that the file has are kept.",
            show_default="0.2 epsilon/kB or 300 K",
        ),
    ] = None,
    timestep: Annotated[float | None, typer.Option(help="In tau or fs.", show_default="0.005 tau or 1 fs")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Total, restarts included.", show_default="1000")] = None,
    friction: Annotated[
        float | None, typer.Option(help="Of langevin, in 1/tau or 1/fs.", show_default="0.5 /tau or 0.01 /fs")
    ] = None,
    pressure: Annotated[
        float | None, typer.Option(help="Of npt, in epsilon/sigma^3 or bar (10,000 bar = 1 GPa).", show_default="0")
    ] = None,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    index: IndexOption = None,
    format: FormatOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder.", show_default="mdgnn-md-NAME")] = None,
    interval: Annotated[
        int | None, typer.Option(min=1, help="Steps between records of trajectory and log.", show_default="10")
    ] = None,
    checkpoint_interval: Annotated[
        int | None, typer.Option(min=1, help="Steps between checkpoints.", show_default="500")
    ] = None,
    restart: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Continue the run in this folder, of one system or of many, bit for bit; its settings stay, only "
            "--steps may be raised.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Molecular dynamics. Ctrl-C ends a run in good order, and --restart goes on from there.

    Output: trajectory.xyz, log.csv, final.xyz, summary.json, checkpoint.npz and plots. Tags, arrays and information
    of the file are in each frame, and so are constraints; those that ASE cannot read there are in final.traj too. Of
    many structures, --index :, each has a folder of its own in the output folder, without plots; --restart goes on with
    all of them, or with one.
    """
    chosen = _given(model=model, seed=seed, device=device, dtype=dtype, index=index, format=format)
    of_ensemble = _given(temperature=temperature, friction=friction, pressure=pressure)
    of_run = _given(timestep=timestep, steps=steps, interval=interval, checkpoint_interval=checkpoint_interval)
    if (structure is None) == (restart is None):
        raise typer.BadParameter("give a structure to start from, or --restart FOLDER, and not both")
    if restart is not None and (output is not None or force):
        raise typer.BadParameter("--restart writes to the folder it continues; --output and --force do not go with it")
    with errors_as_sentences():
        from mdgnn.cli import dynamics
        from mdgnn.cli.dynamics import RunOptions

        if restart is not None:
            expected = {**chosen, **_given(ensemble=ensemble), **of_ensemble, **of_run}
            dynamics.restart(restart, expected)
        elif structure is not None:
            folder = output or Path(f"mdgnn-md-{short_name(structure)}")
            options = RunOptions(structure, folder, force, **chosen)
            run = dynamics.simulate_many if index == ":" else dynamics.simulate
            run(options, ensemble or "nve", of_ensemble, of_run)


@app.command("info")
def info_command(
    model: Annotated[str | None, typer.Argument(help="A shipped model's name or a model file.")] = None,
) -> None:
    """Versions, threads, CUDA and shipped models; or what a model file says about itself."""
    with errors_as_sentences():
        from mdgnn.cli import info
        from mdgnn.cli.terminal import print_table

        if model is None:
            print_table("mdgnn", info.installation())
        else:
            print_table(model, info.model(model))


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the settings have defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def main() -> None:
    """Entry point of the `mdgnn` command."""
    app()
