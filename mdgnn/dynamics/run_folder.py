"""The folder of a run: what it holds, and how files in it are written."""

import io
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from mdgnn._internal.folder_lock import is_empty, lock_folder
from mdgnn._internal.replace_file import replace_file
from mdgnn._internal.run_errors import RunError
from mdgnn.dynamics.arrays_and_info import CONSTRAINTS
from mdgnn.dynamics.constraints import in_extended_xyz, of_user, to_records

TRAJECTORY, LOG, SUMMARY, FINAL, CHECKPOINT = "trajectory.xyz", "log.csv", "summary.json", "final.xyz", "checkpoint.npz"
FINAL_TRAJ = "final.traj"
SYSTEMS = "systems.json"  # of a folder that holds a run of many, each in a folder of its own
PLOTS = ("energy.png", "temperature.png", "density.png", "radial_distribution.png", "structures.png")
OURS = (TRAJECTORY, LOG, SUMMARY, FINAL, FINAL_TRAJ, CHECKPOINT, CHECKPOINT + ".part", SYSTEMS, *PLOTS)


@contextmanager
def hold(folder: Path, force: bool) -> Iterator[None]:
    """Make the folder, and keep other jobs out of it.

    Raises
    ------
    RunError
        If it is a file, or without `force` not empty.
    InUseError, OSError
        If another job has it, or the system refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"the output folder {folder} is a file; choose another (--output, or folder=)")
    with lock_folder(folder):
        if not force and not is_empty(folder):
            raise RunError(
                f"the output folder {folder} is not empty; choose another (--output, or folder=), "
                "or replace what a run left there (--force, or force=True)"
            )
        yield


def clear(folder: Path, names: Sequence[str] = OURS) -> None:
    """Remove what an earlier run left in the folder, and nothing else."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def write_systems(folder: Path, n_structures: int, source: Mapping[str, Any]) -> None:
    """Say that the folder holds a run of so many systems, and where they come from."""
    content = json.dumps({"n_structures": n_structures, "source": dict(source)}, indent=2) + "\n"
    replace_file(folder / SYSTEMS, content.encode())


def read_systems(folder: Path) -> tuple[int, dict[str, Any]]:
    """What `write_systems` wrote. Raises a RunError where it has not, or it is damaged."""
    path = folder / SYSTEMS
    try:
        content = json.loads(path.read_text())
        n, source = content["n_structures"], dict(content["source"])
        if not isinstance(n, int) or n < 0:
            raise ValueError(f"{n!r} structures")
        return n, source
    except FileNotFoundError:
        raise RunError(f"there is no run of many systems in {folder}: no {path}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error})") from None


def holds_many(folder: Path) -> bool:
    """Whether it holds a run of many systems."""
    return (folder / SYSTEMS).is_file()


def places(folder: Path, n_structures: int) -> list[Path]:
    """The folders of so many systems."""
    width = len(str(max(n_structures - 1, 0)))
    return [folder / f"{k:0{width}d}" for k in range(n_structures)]


def is_one_of_many(folder: Path) -> bool:
    """Whether it is the folder of a system of a run of many."""
    folder = folder.resolve()
    return holds_many(folder.parent) and folder in places(folder.parent, read_systems(folder.parent)[0])


class Records:
    """Trajectory and log of a run. Each record is handed to the system at once, so that a kill loses none.

    Parameters
    ----------
    folder : Path
    header : sequence of str
        Columns of the log.
    lengths : (int, int), optional
        Go on after this many bytes of trajectory and log; what follows them is cut off.
    """

    def __init__(self, folder: Path, header: Sequence[str], lengths: Sequence[int] | None = None):
        self.paths = folder / TRAJECTORY, folder / LOG
        if lengths is not None:
            for path, length in zip(self.paths, lengths, strict=True):
                if not path.is_file() or path.stat().st_size < length:
                    raise RunError(f"{path} is missing or shorter than its checkpoint says; it cannot be continued")
                os.truncate(path, length)
        else:
            for path in self.paths:
                path.write_bytes(b"")
            self._append(1, (",".join(header) + "\n").encode())

    def add(self, atoms: Atoms, row: Sequence[float]) -> None:
        """Append one frame and one row; numbers are written so that they read back exactly in the log."""
        self._append(0, frame(atoms))
        self._append(1, (",".join(repr(value) for value in row) + "\n").encode())

    def lengths(self) -> tuple[int, int]:
        """Bytes written to trajectory and log, after making sure that they are on the disk."""
        sizes = []
        for path in self.paths:
            with path.open("ab", buffering=0) as file:
                os.fsync(file.fileno())
                sizes.append(file.tell())
        return sizes[0], sizes[1]

    # Opened for each record, as many runs may go on at a time; unbuffered, as what a full disk refuses must not be
    # tried again when the file is closed.
    def _append(self, which: int, data: bytes) -> None:
        try:
            with self.paths[which].open("ab", buffering=0) as file:
                while data:
                    data = data[file.write(data) :]
        except OSError as error:
            raise RunError(f"cannot write {self.paths[which]}: {error.strerror}") from None


def frame(atoms: Atoms) -> bytes:
    """One frame of extended XYZ: the atoms with all that they have, the model's energy and forces.

    These are without what constraints add to them, so that they belong together. Constraints that ASE's column
    move_mask cannot hold are in the entry `ase_constraints`.
    """
    text = io.StringIO()
    bare = _labelled(atoms)
    if not in_extended_xyz(bare.constraints):
        bare.info[CONSTRAINTS] = to_records(bare.constraints, whole=False)
    ase.io.write(text, bare, format="extxyz")
    return text.getvalue().encode()


def write_final(folder: Path, atoms: Atoms) -> None:
    """The last structure; with constraints that ASE does not read from extended XYZ, as its .traj too."""
    replace_file(folder / FINAL, frame(atoms))
    bare = _labelled(atoms)
    if not in_extended_xyz(bare.constraints):
        content = io.BytesIO()
        ase.io.write(content, bare, format="traj")
        replace_file(folder / FINAL_TRAJ, content.getvalue())


def _labelled(atoms: Atoms) -> Atoms:
    """A copy with the results alone, if any, instead of a calculator, and the constraints that are the user's."""
    bare: Atoms = atoms.copy()
    bare.set_constraint([c for c, own in zip(bare.constraints, atoms.constraints, strict=True) if of_user([own])])
    if atoms.calc is None:
        return bare
    energy, forces = atoms.get_potential_energy(apply_constraint=False), atoms.get_forces(apply_constraint=False)
    bare.calc = SinglePointCalculator(bare, energy=energy, forces=forces)
    return bare


def read_log(folder: Path) -> NDArray[np.float64]:
    """(rows, columns) of a log."""
    return np.loadtxt(folder / LOG, delimiter=",", skiprows=1, ndmin=2)


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Settings and results as JSON, with the versions that made them; torch may not be there."""
    versions = {"python": platform.python_version()}
    for name in ("mdgnn", "torch", "ase", "numpy"):
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    replace_file(folder / SUMMARY, (json.dumps({**summary, "versions": versions}, indent=2) + "\n").encode())
