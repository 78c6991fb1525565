"""Reading frames for training: every bad one is named, and refused or left out on request."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mdgnn.data.batches import split
from mdgnn.data.checks import (
    UNITS,
    Magnitudes,
    check_agreement,
    check_labels,
    check_magnitudes,
    check_structure,
)
from mdgnn.data.density import NOBLE_GASES, check_density
from mdgnn.data.labels import DEFAULT, Keys, LabelError, Labels, labels_of
from mdgnn.data.sources import BadFramesError, Database, DataError, File, open_source

__all__ = ["BadFrame", "DataError", "FrameList", "Keys", "read_frames", "split_structures"]

NAMED = 10  # bad frames in an error

Found = tuple[File | Database, int]  # where a frame is


class BadFrame(NamedTuple):
    """A frame that was left out: its file, its number there, counted from 0, and why."""

    file: str
    number: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, frame {self.number}: {self.reason}"


class FrameList(Sequence[Atoms]):
    """Frames of one or several sources; those of a database are read at each access.

    A slice or an array of numbers gives a FrameList. `skipped` has the frames that were left out.
    """

    def __init__(self, sources: Sequence[File | Database], where: Any, skipped: Sequence[BadFrame] = ()):
        self._sources = list(sources)
        self._where: NDArray[np.int64] = np.asarray(where, dtype=np.int64).reshape(-1, 2)
        self.skipped = list(skipped)

    def __len__(self) -> int:
        return len(self._where)

    @overload
    def __getitem__(self, k: int) -> Atoms: ...
    @overload
    def __getitem__(self, k: slice) -> "FrameList": ...
    def __getitem__(self, k: Any) -> Any:
        if isinstance(k, (int, np.integer)):
            source, number = self._where[k]
            return self._sources[source][int(number)]
        return FrameList(self._sources, self._where[k], self.skipped)

    def name(self, k: int) -> str:
        """The file of a frame and its number there."""
        return "{}, frame {}".format(*self.place(k))

    def place(self, k: int) -> tuple[str, int]:
        """The file of a frame, and its number there."""
        source, number = self._where[k]
        return str(self._sources[source].path), int(number)


def read_frames(
    paths: Sequence[str | Path],
    keys: Keys = DEFAULT,
    *,
    bad: Literal["raise", "skip"] = "raise",
    need: Sequence[str] = ("energy", "forces"),
    units: str = "metal",
    seen: dict[bytes, str] | None = None,
    checked: dict[bytes, Found] | None = None,
    format: str | None = None,
) -> FrameList:
    """Read frames of anything ASE reads, and check them.

    A frame is bad with no atoms, numbers that are not finite, a singular cell, atoms at one place, labels of wrong
    shapes or missing ones, as an exact duplicate (numbers, positions, cell, boundaries, energy or else other labels) of
    an earlier one, where labels contradict each other or those of an earlier frame with the same structure, and with
    suspicious units, density or placeholders for numbers (`mdgnn.data.checks` and `mdgnn.data.density` say what that
    means). Nothing is ever changed.

    Parameters
    ----------
    paths : sequence of str or Path
        ``file.xyz@0:100`` reads a part, if there is no file of that whole name. Files are kept in memory; of an ASE
        database (``.db``) only row numbers.
    keys : Keys
        Names of the labels in the files.
    bad : "raise" or "skip"
        What to do about bad frames.
    need : sequence of str
        Labels that every frame must have: "energy", "forces", "stress", or names out of ``keys.extra``.
    units : "metal", "lj" or "any"
        "metal": energies in eV and lengths in Angstrom, and magnitudes that look otherwise are suspicious. The others
        have no magnitudes to expect.
    seen : dict, optional
        Digests of earlier frames, which count as such, and their names; those that are read come to them.
    checked : dict, optional
        The same for structures whose labels must not contradict each other, in files that may share frames.
    format : str, optional
        ASE's name of the files' format, such as "lammps-data", where ASE cannot guess it.

    Raises
    ------
    FileNotFoundError
    DataError
        For a file that cannot be read, or bad frames: names ten of them, and says how many there are; or where all are
        bad.
    """
    if bad not in ("raise", "skip"):
        raise ValueError(f"expected bad 'raise' or 'skip', got {bad!r}")
    if units not in UNITS:
        raise ValueError(f"expected units {', '.join(map(repr, UNITS))}, got {units!r}")
    unknown = [name for name in need if name not in ("energy", "forces", "stress", *keys.extra)]
    if unknown:
        raise ValueError(f"expected need to name 'energy', 'forces', 'stress' or extra keys, got {unknown[0]!r}")
    files = [paths] if isinstance(paths, (str, Path)) else list(paths)
    sources = [open_source(path, format, units) for path in files]
    where: list[tuple[int, int]] = []
    problems: list[BadFrame] = []
    seen = {} if seen is None else seen
    checked = {} if checked is None else checked
    for k, source in enumerate(sources):
        reasons = _reasons(source, keys, need, units, seen, checked)
        numbers = source.numbers()
        source.drop(set(reasons))
        for digest in [digest for digest, (of, number) in checked.items() if of is source and number in reasons]:
            del checked[digest]
        where += [(k, number) for number in numbers if number not in reasons]
        problems += [BadFrame(str(source.path), number, reasons[number]) for number in sorted(reasons)]
    if problems and (bad == "raise" or not where):
        raise BadFramesError(_sentence(problems, units))
    return FrameList(sources, where, problems)


def _reasons(
    source: File | Database,
    keys: Keys,
    need: Sequence[str],
    units: str,
    seen: dict[bytes, str],
    checked: dict[bytes, Found],
) -> dict[int, str]:
    """What is wrong with the bad frames of a source, by number; `seen` has the digests of earlier frames, `checked` of
    their structures."""
    reasons: dict[int, str] = {}
    magnitudes = Magnitudes()
    for number in source.numbers():
        atoms = source[number]
        try:
            check_structure(atoms)
            labels = labels_of(atoms, keys)
            check_labels(atoms, labels, keys, need)
            if (digest := digest_of(atoms, labels)) in seen:
                raise LabelError(f"a duplicate of {seen[digest]}")
            seen[digest] = f"{source.path}, frame {number}"
            other, its_number = checked.setdefault(digest_of(atoms), (source, number))
            if (other, its_number) != (source, number):
                before = labels_of(other[its_number], keys)
                check_agreement(len(atoms), labels, before, units, f"{other.path}, frame {its_number}")
            if units == "metal":
                _check_density(atoms)
                magnitudes.observe(number, atoms, labels)
                check_magnitudes(atoms, labels)
        except LabelError as error:
            reasons[number] = str(error)
    return {**magnitudes.verdicts(), **reasons}


def _check_density(atoms: Atoms) -> None:
    """Raise a LabelError, as of a suspicion; but frames of particles alone may be in reduced units, unsaid."""
    if not np.isin(atoms.numbers, NOBLE_GASES).all():
        try:
            check_density(atoms)
        except LabelError as error:
            raise LabelError(f"suspicious: {error}") from None


def digest_of(atoms: Atoms, labels: Labels | None = None) -> bytes:
    """The same for structures, and energies or, where there is none, other labels, that are the same."""
    digest = hashlib.blake2b(digest_size=16)
    for array in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
        digest.update(array.tobytes())
    if labels is not None:
        for label in labels.extra.values() if labels.energy is None else [labels.energy]:
            digest.update(label.tobytes())
    return digest.digest()


def split_structures(
    frames: Iterable[Atoms], fractions: Sequence[float] | Sequence[int], seed: int
) -> list[NDArray[np.int64]]:
    """As `split`, of structures: numbers of frames, where those of one structure go together.

    Else a part would hold what another one tests. The fractions are of the structures.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        Looked at once, in order.
    fractions, seed
        As of `split`.

    Raises
    ------
    ValueError
        As `split`.
    """
    structures: dict[bytes, int] = {}
    structure = [structures.setdefault(digest_of(atoms), len(structures)) for atoms in frames]
    return [np.flatnonzero(np.isin(structure, part)) for part in split(len(structures), fractions, seed)]


def _sentence(problems: Sequence[BadFrame], units: str) -> str:
    """One line, as the command line shows no more."""
    named = _first_of(problems)
    hint = (
        ' (or, if they are right, say units="any", as --units any)'
        if any("suspicious" in p.reason for p in problems)
        else ""
    )
    count = "1 bad frame" if len(problems) == 1 else f"{len(problems)} bad frames"
    return f'{count}; mend them, or leave them out with bad="skip" (--bad skip){hint}: {named}'


def left_out(problems: Sequence[BadFrame]) -> str:
    """How many there are, and some of them."""
    return f"{len(problems)} bad structure{'s' * (len(problems) != 1)} left out: {_first_of(problems)}"


def _first_of(problems: Sequence[BadFrame]) -> str:
    """Some of them in words; of those with one reason in one file, the first."""
    groups: dict[tuple[str, str], list[BadFrame]] = {}
    for problem in problems:
        groups.setdefault((problem.file, problem.reason), []).append(problem)
    named = [f"{g[0]}{f' (and {len(g) - 1} more of this file)' * (len(g) > 1)}" for g in groups.values()]
    left = sum(map(len, list(groups.values())[NAMED:]))
    return "; ".join(named[:NAMED]) + f"; and {left} more" * (left > 0)
