"""`mdgnn dataset`: make and describe files of frames."""

from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from ase import Atoms

from mdgnn.cli.errors import CommandError
from mdgnn.cli.terminal import progress
from mdgnn.data import Keys, Summary, read_frames, summarize, write_frames
from mdgnn.data.sources import BadFramesError
from mdgnn.dynamics.system import suitable_threads

LARGEST = 561
LISTED = 10  # bad frames in a summary


def make_lj(path: Path, n_frames: int, seed: int, kind: str, largest: int | None, force: bool) -> dict[str, str]:
    """Write labelled Lennard-Jones frames; rows of a table about them. Clusters have 55 atoms at most by default."""
    if largest is not None and kind not in ("all", "clusters"):
        raise CommandError(f"a largest cluster goes with the kinds all and clusters, not with {kind}")
    largest = 55 if largest is None else largest
    if not 3 <= largest <= LARGEST:
        raise CommandError(f"expected a largest cluster of 3 to {LARGEST} atoms, got {largest}")
    from mdgnn.dynamics.lj_frames import lj_frames  # its potential is a torch module, which a summary does without

    kinds: dict[str, int] = {}

    def counted() -> Generator[Atoms, None, None]:
        with suitable_threads(1), progress("frames", n_frames) as show:
            for k, atoms in enumerate(lj_frames(n_frames, seed, kind, largest)):
                kinds[atoms.info["config_type"]] = kinds.get(atoms.info["config_type"], 0) + 1
                show(k + 1, "")
                yield atoms

    with closing(counted()) as frames:
        write_frames(path, frames, force)
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
