"""The interface of `mdgnn dataset lj`, `summary` and `split`; what they need is imported when they run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mdgnn.cli.errors import errors_as_sentences

dataset = typer.Typer(help="Make, describe and split files of labelled frames.", no_args_is_help=True)

Kind = Literal["clusters", "boxes", "all", "lecture"]
Units = Literal["metal", "lj", "any"]
SeedOption = Annotated[int, typer.Option(min=0, help="Of everything random.")]
FormatOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="ASE's name of the files' format, such as extxyz.", show_default="guessed"),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files that exist.")]


@dataset.command("lj")
def lj_command(
    output: Annotated[Path, typer.Argument(metavar="OUT.xyz", help="Extended XYZ.")],
    frames: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
    seed: SeedOption = 0,
    kind: Annotated[Kind, typer.Option(help="Of all, every fourth is a box; the lecture's are of four atoms.")] = "all",
    largest: Annotated[
        int | None, typer.Option(help="Atoms of the largest cluster; boxes have 108.", show_default="55")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Lennard-Jones frames with exact labels, in reduced units (epsilon = sigma = 1).

    Clusters: dimers, displaced minima, Langevin dynamics, basin hopping; the untruncated potential. Boxes: solids,
    strained crystals, liquids; 10 sigma and tail corrections.
    """
    with errors_as_sentences():
        from mdgnn.cli.dataset import make_lj
        from mdgnn.cli.terminal import print_table

        print_table(str(output), make_lj(output, frames, seed, kind, largest, force))


@dataset.command("summary")
def summary_command(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES", help="Anything ASE reads; file.xyz@0:100 for a part, unless a file is called so."
        ),
    ],
    energy_key: Annotated[str, typer.Option(help="Name of the energy in the files.")] = "energy",
    forces_key: Annotated[str, typer.Option(help="Name of the forces.")] = "forces",
    stress_key: Annotated[str, typer.Option(help="Name of the stress, or of a virial.")] = "stress",
    units: Annotated[Units, typer.Option(help="Only of metal (eV, Angstrom) is known what is suspicious.")] = "metal",
    format: FormatOption = None,
) -> None:
    """Counts, elements, energies, forces and shortest distances by config_type; and which frames are suspicious."""
    with errors_as_sentences():
        from rich.table import Table
        from rich.text import Text

        from mdgnn.cli.dataset import summary_table
        from mdgnn.cli.terminal import show
        from mdgnn.data import Keys

        rows, notes = summary_table(files, Keys(energy_key, forces_key, stress_key), units, format)
        table = Table(*rows[0], title=Text(" ".join(files)))
        for row in rows:
            table.add_row(*map(Text, row.values()))
        show(table)
        for note in notes:
            typer.echo(note)


@dataset.command("split")
def split_command(
    file: Annotated[str, typer.Argument(help="Anything ASE reads.")],
    output: Annotated[str, typer.Option(metavar="PREFIX", help="Files are PREFIX-train.xyz, -valid.xyz, -test.xyz.")],
    fractions: Annotated[
        tuple[float, float, float], typer.Option(help="For training, validation and test; 0 for no such file.")
    ] = (0.8, 0.1, 0.1),
    seed: SeedOption = 0,
    format: FormatOption = None,
    force: ForceOption = False,
) -> None:
    """Share the frames of a file out at random into files of extended XYZ."""
    with errors_as_sentences():
        from mdgnn.cli.dataset import split_file
        from mdgnn.cli.terminal import print_table

        print_table(file, split_file(file, fractions, seed, output, force, format))
