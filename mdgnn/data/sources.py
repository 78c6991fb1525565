"""Where frames come from: files that are read whole, and ASE databases, whose rows are read when they are wanted."""

import difflib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat, ioformats, open_with_compression
from ase.utils import string2index
from numpy.typing import NDArray

from mdgnn._internal.reasons import reason_of

NAME_FORMAT = "name its format, such as --format lammps-data (format= in Python), or convert it with `ase convert`"


class DataError(ValueError):
    """Frames that cannot be read or should not be trained on."""


class BadFramesError(DataError):
    """Frames that were read, all or one of which are bad."""


class File:
    """The frames of a file, in memory, by their numbers in it."""

    def __init__(self, path: Path, index: slice, format: str, guessed: bool, units: str):
        self.path, self.format = path, format
        self.frames: dict[int, Atoms] = dict(_read(path, index, format, guessed, units))

    def __getitem__(self, number: int) -> Atoms:
        return self.frames[number]

    def numbers(self) -> list[int]:
        return list(self.frames)

    def drop(self, numbers: set[int]) -> None:
        """Free the memory of frames that are not wanted."""
        for number in numbers:
            del self.frames[number]


class Database:
    """The rows of an ASE database, in the order of their ids; none is kept.

    Nothing is open between two reads, so that a process and its forks do not share a connection.
    """

    def __init__(self, path: Path, index: slice):
        self.path, self.format = path, "db"
        self._state = self._stamp()
        try:
            rows = self._connection().select(columns=["id"], include_data=False)
            ids = np.array(sorted(row.id for row in rows), dtype=np.int64)
        except Exception as error:  # ASE's and SQLite's
            raise DataError(f"cannot read the database {path}: {reason_of(error)}") from None
        self._numbers = np.arange(len(ids))[index]
        self._ids: NDArray[np.int64] = ids

    def _connection(self) -> Any:
        return ase.db.connect(self.path.absolute(), type="db", use_lock_file=False)

    def _stamp(self) -> tuple[int, int]:
        """Changes when the file does; neighbour lists of earlier rows would be wrong then."""
        status = self.path.stat()
        return status.st_mtime_ns, status.st_size

    def __getitem__(self, number: int) -> Atoms:
        if self._stamp() != self._state:
            raise DataError(f"{self.path} was changed after it was read")
        row = self._connection().get(id=int(self._ids[number]))
        atoms: Atoms = row.toatoms()
        atoms.info = {**row.data, **row.key_value_pairs}
        return atoms

    def numbers(self) -> list[int]:
        return [int(number) for number in self._numbers]

    def drop(self, numbers: set[int]) -> None:
        """Nothing is kept."""


def open_source(path: str | Path, format: str | None = None, units: str = "any") -> File | Database:
    """The frames of a file, or of a part of it, such as ``file.xyz@0:100``; what ends in ``.db`` is a database.

    Parameters
    ----------
    path : str or Path
        As `part_of` reads it.
    format : str, optional
        ASE's name of the file's format, where ASE cannot guess it.
    units : "metal", "lj" or "any"
        For "metal", atoms must be of elements, not of types with numbers.

    Raises
    ------
    FileNotFoundError
    DataError
        If it is no file, ASE cannot read it, or there is nothing in it.
    """
    name, index = part_of(path)
    check_file(name, "data file")
    kind = "db" if name.suffix == ".db" and format is None else format_of(name, format)
    source = Database(name, index) if kind == "db" else File(name, index, kind, format is None, units)
    if not source.numbers():
        hint = "" if format is not None or kind == "db" else taken_for(kind)
        raise DataError(f"expected at least one frame in {path}, found none{hint}")
    return source


def part_of(path: str | Path) -> tuple[Path, slice]:
    """The file, and which of its frames.

    A path that exists is that file, whatever is in its name. Of another one, what follows the last @ is a slice or a
    number of the file before it.

    Raises
    ------
    FileNotFoundError, DataError
        If neither can be meant; the sentence has both readings.
    """
    name = Path(path)
    if "@" not in name.name or name.exists():
        return name, slice(None)
    text, _, part = str(path).rpartition("@")
    both = f"there is no data file {str(path)!r}, and "
    try:
        chosen = string2index(part)
        index = chosen if isinstance(chosen, slice) else slice(int(chosen), int(chosen) + 1 or None)
        if index.step == 0:
            raise ValueError
    except ValueError:
        raise DataError(f"{both}{part!r} after its @ is no slice such as 0:100 of {text!r}") from None
    if not Path(text).exists():
        raise FileNotFoundError(f"{both}no {text!r} to take the frames {part} of")
    return Path(text), index


def check_file(path: Path, what: str) -> None:
    """Raise a FileNotFoundError or a DataError for what is not a file."""
    if path.is_dir():
        raise DataError(f"expected a {what}, and {str(path)!r} is a folder")
    if not path.exists():
        raise FileNotFoundError(f"there is no {what} {str(path)!r}")
    if not path.is_file():
        raise DataError(f"expected a {what}, and {str(path)!r} is a pipe or a device: write its content to a file")


def format_of(path: Path, format: str | None) -> str:
    """ASE's name of a file's format: the one given, or what ASE takes the file for.

    Raises
    ------
    DataError
        If ASE cannot read such a format, or cannot tell it.
    """
    if format is not None:
        if format not in ioformats or not ioformats[format].can_read:
            readable = [name for name, known in ioformats.items() if known.can_read]
            near = difflib.get_close_matches(format, readable, 1)
            hint = f"did you mean {near[0]!r}?" if near else "`ase info --formats` lists them"
            raise DataError(f"expected one of the formats that ASE reads, got {format!r}; {hint}")
        return format
    if path.stat().st_size == 0:
        raise DataError(f"the file {path} is empty")
    try:
        try:
            return str(get_ioformat(filetype(str(path.absolute()))).name)
        except UnknownFileTypeError:  # the suffix is none of a format, which the content may tell
            return str(get_ioformat(filetype(str(path.absolute()), guess=False)).name)
    except UnknownFileTypeError:
        raise DataError(f"cannot tell the format of {path}: {NAME_FORMAT}") from None
    except Exception as error:  # as of a damaged archive
        raise DataError(f"cannot read {path}: {reason_of(error)}") from None


def frames_of(path: Path, index: slice, format: str, units: str = "any") -> Iterator[Atoms]:
    """Frames of a file as ASE reads them; its readers raise anything at all.

    The name is never taken apart: ASE would read ``-`` from stdin, a database from ``postgres...``, and a frame of
    ``run`` from ``run@0``.
    """
    if ioformats[format].single and index.start not in (None, 0, -1):
        raise DataError(f"a file of format {format} has one frame, and frame {index.start} was asked for")
    for atoms in ase.io.iread(str(path.absolute()), index=index, format=format, do_not_split_by_at_sign=True):
        if units == "metal" and format.startswith("lammps-") and not _has_elements(path, format, atoms):
            raise DataError(
                "it does not say of which elements its atoms are, and ASE would take their types for H, He, Li ...;"
                + (" add a section Masses" if format == "lammps-data" else " dump the column element too")
            )
        yield atoms


def _has_elements(path: Path, format: str, atoms: Atoms) -> bool:
    """False where ASE has taken the numbers of LAMMPS' types for those of elements."""
    if not np.array_equal(atoms.numbers, atoms.arrays.get("type", atoms.numbers)):
        return True
    if format != "lammps-dump-text":
        return bool(atoms.has("masses"))
    with open_with_compression(str(path.absolute()), "r") as file:
        columns: list[str] = next((line.split() for line in file if line.startswith("ITEM: ATOMS")), [])
    return "element" in columns or "mass" in columns


def why_unreadable(error: Exception, format: str, guessed: bool) -> str:
    """What ASE says about a file, and what to do if it took it for something else."""
    if isinstance(error, DataError) or not guessed:
        return reason_of(error)
    return reason_of(error) + taken_for(format)


def taken_for(format: str) -> str:
    """What to do if ASE has not guessed a format right."""
    return f" (taken for {format}; if it is not, {NAME_FORMAT})"


def _read(path: Path, index: slice, format: str, guessed: bool, units: str) -> Iterator[tuple[int, Atoms]]:
    """(number in the file, frame)."""
    start, step = index.start or 0, index.step or 1
    if start < 0 or step < 0:
        frames = dict(_read(path, slice(None), format, guessed, units))
        yield from ((k, frames[k]) for k in range(len(frames))[index])
        return
    number = start
    try:
        reader = frames_of(path, index, format, units)
        for number, atoms in zip(itertools.count(start, step), reader, strict=False):
            yield number, atoms
            number += step  # which an error would be about
    except Exception as error:  # ASE's readers raise anything at all
        raise DataError(f"cannot read frame {number} of {path}: {why_unreadable(error, format, guessed)}") from None
