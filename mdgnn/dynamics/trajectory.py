"""Some frames of a trajectory, without reading all of it."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ase.io
import numpy as np
from ase import Atoms

MOST = 100  # frames
MOST_LINES = 1_000_000  # that are passed through; a second's work
MOST_ATOMS = 100_000  # that ASE reads of them, at some 10 us each


def sample_frames(path: Path, indices: Sequence[int], n_frames: int, n_atoms: int) -> list[Atoms]:
    """Frames with about these indices, of a run's trajectory of so many frames and atoms.

    Of large systems fewer frames, at least one, and of each some atoms, drawn by lot. Frames are nearly equally long,
    so that the index says where to look; the atoms' places are exact, their frame's index is not.
    """
    chosen = indices[:: -(-len(indices) * n_atoms // MOST_LINES)]
    most = MOST_ATOMS // len(chosen)
    frames: dict[int, Atoms] = {}  # by where they end
    with path.open("rb") as file:
        length = file.seek(0, 2) / n_frames
        for index in chosen:
            if start := max(0, int((index - 0.5) * length)):
                file.seek(start - 1)
                file.readline()  # the rest of a line
            else:
                file.seek(0)
            if _skip_to_frame(file, n_atoms) and file.tell() not in frames:
                frames[file.tell()] = _read(file, n_atoms, most)
    return list(frames.values())


def _skip_to_frame(file: BinaryIO, n_atoms: int) -> bool:
    """Go on to behind the next line that begins a frame: the only ones that are one number."""
    begin = f"{n_atoms}\n".encode()
    while (line := file.readline()) != begin:
        if not line:
            return False
    return True


def _read(file: BinaryIO, n_atoms: int, most: int) -> Atoms:
    comment, lines = file.readline(), [file.readline() for _ in range(n_atoms)]
    if n_atoms > most:
        lines = [lines[i] for i in np.sort(np.random.default_rng(0).choice(n_atoms, most, replace=False))]
    text = b"".join([f"{len(lines)}\n".encode(), comment, *lines]).decode()
    atoms: Any = ase.io.read(io.StringIO(text), format="extxyz")
    frame: Atoms = atoms
    return frame
