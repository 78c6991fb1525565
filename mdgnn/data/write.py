"""Files of frames in extended XYZ, each whole or not there; and the parts that a file is split into."""

import io
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import write_extxyz
from ase.io.formats import open_with_compression

from mdgnn._internal.folder_lock import check_idle, lock_file
from mdgnn.data.frames import split_structures
from mdgnn.data.labels import find
from mdgnn.data.sources import DataError, open_source

PARTS = ("train", "valid", "test")


def write_frames(path: str | Path, frames: Iterable[Atoms], force: bool = False) -> None:
    """Write a file of extended XYZ with every label and array of the frames.

    A label that a frame has twice, by the same value, is written once. The file is there when all of it is; until then
    an older one stays, and no other job of mdgnn writes to it.

    Parameters
    ----------
    path : str or Path
    frames : iterable of ase.Atoms
        Asked for one after the other, once the file is held.
    force : bool
        Replace a file that exists.

    Raises
    ------
    FileExistsError, IsADirectoryError
        If the file exists, without `force`; if it is a folder.
    InUseError
        If another job writes to it, or to its folder.
    DataError
        If extended XYZ cannot hold a frame, or a frame has a label twice with different values.
    """
    with _hold([Path(path)], force):
        _replace({Path(path): map(_text, frames)})


def split_file(
    file: str | Path,
    fractions: Sequence[float],
    prefix: str | Path,
    seed: int = 0,
    force: bool = False,
    format: str | None = None,
) -> dict[Path, int]:
    """Share the frames of a file out at random: PREFIX-train.xyz, PREFIX-valid.xyz and PREFIX-test.xyz.

    Frames keep their order, and those of a file of extended XYZ every digit; bad ones are shared out like others. Those
    of one structure go together, lest a part hold what another one tests.

    Parameters
    ----------
    file : str or Path
        Anything that ASE reads; ``file.xyz@0:100`` for a part, unless a file is called so.
    fractions : three floats
        Of the structures, for training, validation and test; no file for 0.
    prefix : str or Path
    seed : int
    force : bool
        Replace files that exist.
    format : str, optional
        ASE's name of the file's format, where ASE cannot guess it.

    Returns
    -------
    dict of Path to int
        The files, and how many frames each has.

    Raises
    ------
    FileNotFoundError, DataError
        If the file cannot be read.
    ValueError
        If the fractions are not three of at least 0 with a sum of at most 1, or all of them leave nothing.
    FileExistsError, IsADirectoryError, InUseError
        As `write_frames`; nothing is written then.
    """
    if len(fractions) != len(PARTS):
        raise ValueError(f"expected {len(PARTS)} fractions, for training, validation and test, got {len(fractions)}")
    path_of = {name: Path(f"{prefix}-{name}.xyz") for name, share in zip(PARTS, fractions, strict=True) if share}
    with _hold(list(path_of.values()), force):
        source = open_source(file, format, "metal")  # lest types of LAMMPS become elements
        numbers = source.numbers()
        shares = split_structures((source[number] for number in numbers), fractions, seed)
        parts = {path_of[name]: share.tolist() for name, share in zip(PARTS, shares, strict=True) if len(share)}
        if not parts:
            raise ValueError(f"expected a fraction above 0 of the {len(numbers)} frames in {file}")
        texts = _verbatim(source.path) if source.format in ("xyz", "extxyz") else None

        def contents(part: list[int]) -> Iterator[bytes]:
            for k in part:
                yield _text(source[numbers[k]]) if texts is None else texts[numbers[k]]

        _replace({path: contents(part) for path, part in parts.items()})
    return {path: len(part) for path, part in parts.items()}


@contextmanager
def _hold(paths: Sequence[Path], force: bool) -> Iterator[None]:
    """Keep other jobs from files that are written, all of which may be."""
    with ExitStack() as stack:
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(f"the output {path} is a folder")
            stack.enter_context(lock_file(path))
            if path.exists() and not force:
                raise FileExistsError(
                    f"the output {path} exists; choose another or replace it (--force, or force=True)"
                )
            check_idle(path.parent)  # it may be that of a run
        yield


def _text(atoms: Atoms) -> bytes:
    """A frame of extended XYZ, with all that it has."""
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
        raise DataError(f"extended XYZ cannot hold a frame: {error or type(error).__name__}") from None
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


def _replace(contents: Mapping[Path, Iterable[bytes]]) -> None:
    """Write files, which are replaced when all are complete."""
    partial = {path: path.with_name(path.name + ".part") for path in contents}
    with ExitStack() as stack:
        for part in partial.values():
            stack.callback(part.unlink, missing_ok=True)
        for path, frames in contents.items():
            with partial[path].open("wb") as file:
                file.writelines(frames)
                file.flush()
                os.fsync(file.fileno())
        for path, part in partial.items():
            check_idle(path.parent)
            part.replace(path)
