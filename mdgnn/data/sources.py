"""Where frames come from: files that are read whole, and ASE databases, whose rows are read when they are wanted."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.utils import string2index
from numpy.typing import NDArray

from mdgnn.reasons import reason_of


class DataError(ValueError):
    """Frames that cannot be read or should not be trained on."""


class File:
    """The frames of a file, in memory, by their numbers in it."""

    def __init__(self, path: Path, index: slice):
        self.path = path
        self.frames: dict[int, Atoms] = dict(_read(path, index))

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
        self.path = path
        self._state = self._stamp()
        try:
            rows = self._connection().select(columns=["id"], include_data=False)
            ids = np.array(sorted(row.id for row in rows), dtype=np.int64)
        except Exception as error:  # ASE's and SQLite's
            raise DataError(f"cannot read the database {path}: {reason_of(error)}") from None
        self._numbers = np.arange(len(ids))[index]
        self._ids: NDArray[np.int64] = ids

    def _connection(self) -> Any:
        return ase.db.connect(self.path, use_lock_file=False)

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


def open_source(path: str | Path) -> File | Database:
    """The frames of a file, or of a part of it, such as ``file.xyz@0:100``; what ends in ``.db`` is a database.

    Raises
    ------
    FileNotFoundError
    DataError
        If ASE cannot read the file, or there is nothing in it.
    """
    name, index = Path(path), slice(None)
    if "@" in name.name and not name.exists():
        text, _, part = str(path).rpartition("@")
        try:
            chosen = string2index(part)
            index = chosen if isinstance(chosen, slice) else slice(int(chosen), int(chosen) + 1 or None)
        except ValueError:
            raise DataError(f"expected a slice such as 0:100 after the @ of {path}, got {part!r}") from None
        name = Path(text)
    if not name.is_file():
        raise FileNotFoundError(f"there is no data file {str(name)!r}")
    source = Database(name, index) if name.suffix == ".db" else File(name, index)
    if not source.numbers():
        raise DataError(f"expected at least one frame in {path}, found none")
    return source


def _read(path: Path, index: slice) -> Iterator[tuple[int, Atoms]]:
    """(number in the file, frame)."""
    start, step = index.start or 0, index.step or 1
    if start < 0 or step < 0:
        frames = dict(_read(path, slice(None)))
        yield from ((k, frames[k]) for k in range(len(frames))[index])
        return
    number = start
    try:
        reader = ase.io.iread(path, index=index, do_not_split_by_at_sign=True)
        for number, atoms in zip(itertools.count(start, step), reader, strict=False):
            yield number, atoms
            number += step  # which an error would be about
    except Exception as error:  # ASE's readers raise anything at all
        reason = reason_of(error)
        raise DataError(f"cannot read frame {number} of {path}: {reason}") from None
