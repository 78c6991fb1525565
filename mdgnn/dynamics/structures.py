"""Structures by name: a file in any format ASE reads, or `lj:N`, a Lennard-Jones cluster of N atoms."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms

from mdgnn._internal.warn_user import warn_user
from mdgnn.data.sources import check_file, format_of, frames_of, taken_for, why_unreadable
from mdgnn.dynamics.arrays_and_info import CONSTRAINTS, RESULTS, stale_sentence
from mdgnn.dynamics.constraints import from_records
from mdgnn.dynamics.lj_clusters import lj_cluster


def read_structure(
    name: str,
    rng: np.random.Generator,
    index: int | None = None,
    format: str | None = None,
    units: str = "metal",
    note: Callable[[str], None] = warn_user,
) -> Atoms:
    """The atoms of a file, or of `lj:N` if there is no file of that name; with constraints, arrays and information.

    Parameters
    ----------
    name : str
        A path that exists is that file, whatever is in its name.
    rng : numpy.random.Generator
        Of clusters whose shape is drawn.
    index : int, optional
        Which of several frames, from 0, or from the last as -1, which it is by default.
    format : str, optional
        ASE's name of the file's format, where ASE cannot guess it.
    units : "metal" or "lj"
        For "metal", atoms must be of elements, not of types with numbers.
    note : callable
        Gets a sentence about results in the file that a run does not keep; by default a warning.

    Raises
    ------
    ValueError, FileNotFoundError
    """
    path = Path(name)
    if name.startswith("lj:") and not path.exists():
        if index is not None or format is not None:
            option = "--format (format=)" if index is None else "--index (index=)"
            raise ValueError(f"{option} goes with a file, and there is no file {name!r}: it is a cluster made here")
        return lj_cluster(name[3:], rng)
    if not path.exists():
        before = name.rpartition("@")[0]
        hint = "lj:N, such as lj:13, makes a Lennard-Jones cluster"
        if before and Path(before).is_file():
            hint = f"there is {before!r}, of whose frames --index (index=) chooses one"
        raise ValueError(f"there is no structure file {name!r}; {hint}")
    check_file(path, "structure file")
    kind = format_of(path, format)
    atoms = _frame_of(path, -1 if index is None else index, kind, format is None, units)
    return _as_read(atoms, name, note)


def read_structures(
    name: str, format: str | None = None, units: str = "metal", note: Callable[[str], None] = warn_user
) -> list[Atoms]:
    """All frames of a file, each as `read_structure` gives it.

    Raises
    ------
    ValueError, FileNotFoundError
    """
    path = Path(name)
    check_file(path, "structure file")
    kind = format_of(path, format)
    try:
        frames = list(frames_of(path, slice(None), kind, units))
    except Exception as error:  # ASE's readers raise anything at all
        raise ValueError(f"cannot read structures from {path}: {why_unreadable(error, kind, format is None)}") from None
    if not frames:
        raise ValueError(
            f"cannot read structures from {path}: there are none in it{taken_for(kind) * (format is None)}"
        )
    sentences: dict[str, None] = {}  # each once
    structures = [
        _as_read(atoms, f"frame {k} of {name}", lambda sentence: sentences.update({sentence: None}))
        for k, atoms in enumerate(frames)
    ]
    for sentence in sentences:
        note(sentence)
    return structures


def _as_read(atoms: Atoms, name: str, note: Callable[[str], None]) -> Atoms:
    """With the constraints and momenta of the file, which may be where ASE does not look for them."""
    if len(atoms) == 0:
        raise ValueError(f"expected at least one atom in {name}, found none")
    if others := [name for name in getattr(atoms.calc, "results", {}) if name not in RESULTS]:
        note(stale_sentence(others))
    if CONSTRAINTS in atoms.info:
        try:
            atoms.set_constraint(from_records(atoms.info.pop(CONSTRAINTS)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the {CONSTRAINTS} in {name} are none that ASE knows ({error})") from None
    if atoms.has("momenta"):
        momenta = atoms.arrays.pop("momenta")
        if np.any(momenta):
            atoms.set_momenta(momenta)  # as the constraints let them be
    return atoms


def _frame_of(path: Path, index: int, format: str, guessed: bool, units: str) -> Atoms:
    part = slice(index, index + 1 if index >= 0 else None)
    try:
        frames = list(frames_of(path, part, format, units))
    except Exception as error:  # ASE's readers raise anything at all
        reason = why_unreadable(error, format, guessed)
        raise ValueError(f"cannot read a structure from {path}: {reason}") from None
    if not frames and index == -1:
        raise ValueError(f"cannot read a structure from {path}: there is none in it{taken_for(format) * guessed}")
    if len(frames) < (1 if index >= 0 else -index):  # of fewer than two, ASE gives the first for the second last
        raise ValueError(f"there is no frame {index} in {path}")
    return frames[0]
