"""The command line: `mdgnn relax`, `mdgnn md`, `mdgnn info`, `mdgnn dataset`, `mdgnn train`, `evaluate` and `plot`.

This file is the interface alone. What a command needs is imported when it runs, so that `mdgnn --help` is fast.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

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

Optimizer = Literal["BFGS", "LBFGS", "FIRE", "FIRE2", "BFGSLineSearch", "LBFGSLineSearch", "MDMin", "GPMin"]
Ensemble = Literal["nve", "langevin", "npt"]
Dtype = Literal["float32", "float64"]

StructureHelp = "A file in any format ASE reads, or lj:N for a Lennard-Jones cluster of N atoms."
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
    optimizer: Annotated[Optimizer, typer.Option(help="One of ASE's.", case_sensitive=False)] = "BFGS",
    steps: Annotated[int, typer.Option(min=0, help="Give up after so many.")] = 1000,
    seed: SeedOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    output: Annotated[Path | None, typer.Option(help="Folder.", show_default="mdgnn-relax-NAME")] = None,
    force: ForceOption = False,
) -> None:
    """Move the atoms until the forces vanish. Exit status 1 if they do not within --steps."""
    with errors_as_sentences():
        from mdgnn.cli.output import print_table
        from mdgnn.cli.relax import RelaxSettings, relax

        chosen = _given(model=model, seed=seed, device=device, dtype=dtype)
        folder = output or Path(f"mdgnn-relax-{_short_name(structure)}")
        settings = RelaxSettings(structure, fmax=fmax, optimizer=optimizer, steps=steps, **chosen)
        summary = relax(settings, folder, force)
        energy, length = summary["units"]["energy"], summary["units"]["length"]
        rows = {
            "steps": str(summary["steps"]),
            "energy": f"{summary['final_energy']:.6f} {energy} (at the start {summary['initial_energy']:.6f})",
            "largest force": f"{summary['final_fmax']:.6f} {energy}/{length}",
        }
        if "true_lj_energy" in summary:
            rows["true Lennard-Jones energy"] = f"{summary['true_lj_energy']:.6f} {energy}"
        if summary.get("lowest_known_lj_energy") is not None:
            rows["lowest known"] = f"{summary['lowest_known_lj_energy']:.6f} {energy}"
        print_table(f"{structure} relaxed with {settings.model}", {**rows, "output": str(folder)})
        if not summary["converged"]:
            raise CommandError(
                f"not converged: after {summary['steps']} steps the largest force is {summary['final_fmax']:.4g}, "
                f"more than {fmax:g} {energy}/{length}"
            )


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
            help="Continue the run in this folder, bit for bit; its settings stay, only --steps may be raised.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Molecular dynamics. Ctrl-C ends a run in good order, and --restart goes on from there.

    Output: trajectory.xyz, log.csv, final.xyz, summary.json, checkpoint.npz and plots.
    """
    given = _given(
        structure=structure,
        model=model,
        ensemble=ensemble,
        temperature=temperature,
        timestep=timestep,
        steps=steps,
        friction=friction,
        pressure=pressure,
        seed=seed,
        device=device,
        dtype=dtype,
        interval=interval,
        checkpoint_interval=checkpoint_interval,
    )
    if (structure is None) == (restart is None):
        raise typer.BadParameter("give a structure to start from, or --restart FOLDER, and not both")
    if restart is not None and (output is not None or force):
        raise typer.BadParameter("--restart writes to the folder it continues; --output and --force do not go with it")
    with errors_as_sentences():
        from mdgnn.cli import md
        from mdgnn.cli.settings import MDSettings

        if restart is not None:
            folder, summary = restart, md.restart(restart, given)
        else:
            folder = output or Path(f"mdgnn-md-{_short_name(given['structure'])}")
            summary = md.start(MDSettings(**given), folder, force)
        _print_md(summary, folder)


@app.command("info")
def info_command(
    model: Annotated[str | None, typer.Argument(help="A shipped model's name or a model file.")] = None,
) -> None:
    """Versions, threads, CUDA and shipped models; or what a model file says about itself."""
    with errors_as_sentences():
        from mdgnn.cli import info
        from mdgnn.cli.output import print_table

        if model is None:
            print_table("mdgnn", info.installation())
        else:
            print_table(model, info.model(model))


def _print_md(summary: dict[str, Any], folder: Path) -> None:
    from mdgnn.cli.output import print_table

    units, settings = summary["units"], summary["settings"]
    energy = units["energy"]
    rows = {
        "steps": f"{summary['steps']} of {settings['timestep']:g} {units['time']}",
        "mean temperature": f"{summary['mean_temperature_second_half']:.4g} {units['temperature']} (second half)",
        "total energy": f"{summary['final_total_energy']:.6f} {energy}",
        "at the start": f"{summary['initial_total_energy']:.6f} {energy}",
    }
    if "energy_drift_per_atom" in summary:
        rows["drift per atom"] = f"{summary['energy_drift_per_atom']:.2e} {energy}"
    if settings["ensemble"] == "npt":
        rows["mean pressure"] = f"{summary['mean_pressure_second_half']:.4g} {units['pressure']} (second half)"
        rows["mean density"] = f"{summary['mean_density_second_half']:.4g} {units['density']} (second half)"
        rows["drift per atom"] = f"{summary['conserved_energy_drift_per_atom']:.2e} {energy} (of what npt conserves)"
    print_table(
        f"{settings['ensemble']} of {settings['structure']} with {settings['model']}", {**rows, "output": str(folder)}
    )


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given; the settings have defaults for the others."""
    return {name: value for name, value in options.items() if value is not None}


def _short_name(structure: str) -> str:
    return structure.replace(":", "") if structure.startswith("lj:") else Path(structure).stem


def main() -> None:
    """Entry point of the `mdgnn` command."""
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files; matplotlib refuses a name that it does not know
    app()
