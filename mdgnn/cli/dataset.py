"""`mdgnn dataset`: make, describe and split files of frames."""

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.extxyz import write_extxyz
from ase.io.formats import open_with_compression

from mdgnn._internal.folder_lock import check_idle, lock_file
from mdgnn.cli.errors import CommandError
from mdgnn.cli.terminal import progress
from mdgnn.data import Keys, Summary, read_frames, split_structures, summarize
from mdgnn.data.labels import find
from mdgnn.data.sources import BadFramesError, Database, File, open_source
from mdgnn.dynamics.lj_frames import lj_frames
from mdgnn.dynamics.system import suitable_threads

LARGEST = 561
PARTS = ("train", "valid", "test")
LISTED = 10  # bad frames in a summary


def make_lj(path: Path, n_frames: int, seed: int, kind: str, largest: int | None, force: bool) -> dict[str, str]:
    """Write labelled Lennard-Jones frames; rows of a table about them. Clusters have 55 atoms at most by default."""
    if largest is not None and kind not in ("all", "clusters"):
        raise CommandError(f"a largest cluster goes with the kinds all and clusters, not with {kind}")
    largest = 55 if largest is None else largest
    if not 3 <= largest <= LARGEST:
        raise CommandError(f"expected a largest cluster of 3 to {LARGEST} atoms, got {largest}")
    kinds: dict[str, int] = {}

    def counted(show: Any) -> Iterator[bytes]:
        for k, atoms in enumerate(lj_frames(n_frames, seed, kind, largest)):
            kinds[atoms.info["config_type"]] = kinds.get(atoms.info["config_type"], 0) + 1
            show(k + 1, "")
            yield _text(atoms)

    with _hold([path], force), suitable_threads(1), progress("frames", n_frames) as show:
        _write([path], [counted(show)])
    return {name: f"{count} frames" for name, count in sorted(kinds.items())}


def summary_table(
    files: Sequence[str], keys: Keys, units: str, format: str | None = None
) -> tuple[list[dict[str, str]], list[str]]:
    """Rows of a table, one for each config_type and one for all, and sentences about bad frames."""
    notes: list[str] = []
    try:
        frames = read_frames(files, keys, bad="skip", need=(), units=units, format=format)
    except BadFramesError as error:
        if units != "metal":
            raise
        # Where all are suspicious, say of what.
        frames = read_frames(files, keys, bad="skip", need=(), units="any", format=format)
        notes = [f"All frames are bad or suspicious, those above too: {error}"]
    rows = [_row(summary) for summary in summarize(frames, keys)]
    if frames.skipped and not notes:
        notes = [f"{len(frames.skipped)} bad or suspicious frames, not counted above:"]
        notes += [str(frame) for frame in frames.skipped[:LISTED]]
        notes += [f"and {len(frames.skipped) - LISTED} more"] * (len(frames.skipped) > LISTED)
    return rows, notes


def _row(of: Summary) -> dict[str, str]:
    least, most = of.n_atoms
    energies, has_forces = of.energies, np.isfinite(of.force_rms)
    return {
        "config_type": "all" if of.config_type is None else of.config_type or "(none)",
        "frames": str(of.n_frames),
        "atoms": f"{least}" if least == most else f"{least} to {most}",
        "elements": " ".join(of.elements),
        "energy per atom": f"{energies.mean():.4f} +- {energies.std():.4f}" if len(energies) else "none",
        "from, to": f"{energies.min():.4f}, {energies.max():.4f}" if len(energies) else "none",
        "force rms": f"{of.force_rms:.4f}" if has_forces else "none",
        "largest": f"{of.largest_force:.4f}" if has_forces else "none",
        "shortest distance": f"{of.shortest_distance:.4f}",
    }


def split_file(
    file: str, fractions: Sequence[float], seed: int, prefix: str, force: bool, format: str | None = None
) -> dict[str, str]:
    """Write PREFIX-train.xyz, PREFIX-valid.xyz and PREFIX-test.xyz, those with a fraction; rows of a table about them.

    Frames keep their order, and those of a file in this format keep every digit; bad ones are split like others. Those
    of one structure go together, lest a part hold what another one tests.
    """
    paths = {name: Path(f"{prefix}-{name}.xyz") for name, fraction in zip(PARTS, fractions, strict=True) if fraction}
    with _hold(list(paths.values()), force):
        # The units are metal's, lest types of LAMMPS become elements.
        return _split_file(open_source(file, format, "metal"), file, fractions, seed, paths)


def _split_file(
    source: File | Database, file: str, fractions: Sequence[float], seed: int, path_of: dict[str, Path]
) -> dict[str, str]:
    numbers = source.numbers()
    shares = split_structures((source[number] for number in numbers), fractions, seed)
    parts = [(name, part) for name, part in zip(PARTS, shares, strict=True) if len(part)]
    if not parts:
        raise CommandError(f"expected a fraction above 0 of the {len(numbers)} frames in {file}")
    paths = [path_of[name] for name, _ in parts]
    texts = _verbatim(source.path) if source.format in ("xyz", "extxyz") else None
    contents = [
        (_text(source[numbers[k]]) if texts is None else texts[numbers[k]] for k in part.tolist()) for _, part in parts
    ]
    _write(paths, contents)
    return {str(path): f"{len(part)} frames" for path, (_, part) in zip(paths, parts, strict=True)}


@contextmanager
def _hold(paths: Sequence[Path], force: bool) -> Iterator[None]:
    """Keep other jobs from files that are written; raise a CommandError or InUseError if one must not be."""
    with ExitStack() as stack:
        for path in paths:
            if path.is_dir():
                raise CommandError(f"the output {path} is a folder")
            stack.enter_context(lock_file(path))
            if path.exists() and not force:
                raise CommandError(f"the output {path} exists; choose another or replace it by --force")
            check_idle(path.parent)  # it may be that of a run
        yield


def _text(atoms: Atoms) -> bytes:
    """A frame of extended XYZ, with all that it has, or a CommandError.

    A label that stands there twice, by the same value, is written once.
    """
    once: Atoms = atoms.copy()
    once.calc = atoms.calc
    text = io.StringIO()
    try:
        for place in (once.info, once.arrays):
            for name in [name for name in getattr(atoms.calc, "results", {}) if name in place]:
                find(atoms, name)  # raises if the values differ
                del place[name]
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # ASE warns about what it leaves out
            write_extxyz(text, [once])
    except Exception as error:  # as of an array that is no table
        raise CommandError(f"extended XYZ cannot hold a frame: {error or type(error).__name__}") from None
    return text.getvalue().encode()


def _verbatim(path: Path) -> list[bytes]:
    """The text of each frame of a file that ASE has read as XYZ."""
    with open_with_compression(str(path.absolute()), "rb") as file:
        lines = file.read().splitlines(keepends=True)
    frames, begin = [], 0
    while begin < len(lines) and lines[begin].strip():
        end = begin + 2 + int(lines[begin])
        while end < len(lines) and lines[end].lstrip().startswith(b"VEC"):  # cell vectors, as some programs write them
            end += 1
        frames.append(b"".join(lines[begin:end]).removesuffix(b"\n") + b"\n")
        begin = end
    return frames


def _write(paths: Sequence[Path], contents: Sequence[Iterable[bytes]]) -> None:
    """Write frames; files are replaced when all are complete."""
    partial = [path.with_name(path.name + ".part") for path in paths]
    with ExitStack() as stack:
        for path in partial:
            stack.callback(path.unlink, missing_ok=True)
        for path, frames in zip(partial, contents, strict=True):
            with path.open("wb") as file:
                file.writelines(frames)
                file.flush()
                os.fsync(file.fileno())
        for path, target in zip(partial, paths, strict=True):
            check_idle(target.parent)
            path.replace(target)
