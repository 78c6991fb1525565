"""`mdgnn relax`: move the atoms until the forces vanish."""

import os
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ase.optimize
import numpy as np
from ase import Atoms
from scipy.spatial.distance import cdist  # ASE brings scipy

from mdgnn._internal.stop_signals import StopSignals
from mdgnn.cli import output
from mdgnn.cli.errors import CommandError, InterruptedRunError
from mdgnn.cli.names import pasted
from mdgnn.cli.structures import LJ_MINIMA, read_structure
from mdgnn.cli.system import LJ, System, make_system, suitable_threads
from mdgnn.model_file import read_header
from mdgnn.plots import draw, radial, runs, structures

# Of BFGS and LBFGS, which search no lines, in reduced units: the first guess of the curvature, in epsilon/sigma^2, and
# the longest step, in sigma. One bond has a curvature of 57, a dozen on each atom far more, pressed ones many times
# that. With the 70 that ASE assumes a perturbed crystal flies apart. ASE's 0.2 Angstrom are 0.06 of argon's sigma; with
# 0.2 sigma a crystal of 500 atoms displaced by 0.08 sigma ends as a glass, and with 300 epsilon/sigma^2 an icosahedron
# of 147 or 561 displaced by 0.1 gets defects.
LJ_CURVATURE = 1000.0
LJ_STEP = 0.06

MOST_BYTES = 1e9  # of a matrix; of 3 x 3,700 atoms, it takes BFGS some ten minutes a step


@dataclass(frozen=True)
class RelaxSettings:
    """What to relax and how; `fmax` in the model's units, `index` and `format` as of `read_structure`."""

    structure: str
    model: str = "lj"
    fmax: float = 0.01
    optimizer: str = "LBFGS"
    steps: int = 1000
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    index: int | None = None
    format: str | None = None


def relax(settings: RelaxSettings, folder: Path, force: bool = False, atoms: Atoms | None = None) -> dict[str, Any]:
    """Relax a structure, or the atoms given, and leave everything in `folder`.

    Returns
    -------
    The summary that is written to summary.json; its "converged" says whether the forces became small enough.

    Raises
    ------
    CommandError, InUseError, ValueError, RuntimeError, OSError
    """
    if not (np.isfinite(settings.fmax) and settings.fmax > 0):
        raise CommandError(f"expected a positive fmax, got {settings.fmax}")
    with output.hold(folder, force):
        return _relax(settings, folder, atoms)


def _relax(settings: RelaxSettings, folder: Path, atoms: Atoms | None) -> dict[str, Any]:
    if atoms is None:
        rng, units = np.random.default_rng(settings.seed), read_header(settings.model)["units"]
        atoms = read_structure(settings.structure, rng, settings.index, settings.format, units)
    check_size(settings.optimizer, len(atoms))
    system = make_system(atoms.copy(), settings.model, settings.device, settings.dtype)
    output.clear(folder)
    begin = time.perf_counter()
    converged = _optimize(system, settings, folder)
    with StopSignals():  # which come too late
        log = output.read_log(folder)
        output.write_final(folder, system.atoms)
        summary = {
            "command": "relax",
            "settings": asdict(settings),
            "model_sha256": system.sha256,
            "units": {"energy": system.units.energy, "length": system.units.length},
            "n_atoms": len(atoms),
            "converged": converged,
            "steps": int(log[-1, 0]),
            "initial_energy": log[0, 1],
            "final_energy": log[-1, 1],
            "final_fmax": log[-1, 2],
            "wall_time_s": time.perf_counter() - begin,
        }
        if system.units is LJ and not atoms.pbc.any():
            summary["true_lj_energy"] = true_lj_energy(system.atoms)
            summary["lowest_known_lj_energy"] = LJ_MINIMA.get(len(atoms))
        output.write_summary(folder, summary)
    _plot(system, atoms, log, folder)
    return summary


def check_size(optimizer: str, n_atoms: int) -> None:
    """Raise a CommandError for an optimizer whose matrices do not fit, or whose steps would take too long."""
    rows, when = {
        "BFGS": (3 * n_atoms, ""),
        "BFGSLineSearch": (3 * n_atoms, ""),
        "GPMin": (10 * (3 * n_atoms + 1), " after ten steps"),  # it grows with every step
    }.get(optimizer, (0, ""))
    size, memory = 8.0 * rows**2, float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if size > min(MOST_BYTES, memory / 8):  # each holds several
        raise CommandError(
            f"{optimizer} works on matrices of {rows:,} x {rows:,} numbers for {n_atoms:,} atoms{when}, "
            f"{size / 1e9:.1f} GB each; take LBFGS, whose memory and time grow only as the number of atoms"
        )


def true_lj_energy(atoms: Atoms) -> float:
    """Untruncated Lennard-Jones energy of a cluster in reduced units, whatever model it came from.

    Of some rows of pairs at a time: all pairs of 10,000 atoms as the edges of a graph take 16 GB.
    """
    positions, total, rows = atoms.positions, 0.0, 256
    for first in range(0, len(atoms), rows):
        squares = cdist(positions[first : first + rows], positions, "sqeuclidean")
        squares[np.arange(len(squares)), first + np.arange(len(squares))] = np.inf
        attraction = squares**-3
        total += float((attraction**2 - attraction).sum())
    return 2 * total


def _optimize(system: System, settings: RelaxSettings, folder: Path) -> bool:
    atoms, units = system.atoms, system.units
    guess = {"alpha": LJ_CURVATURE, "maxstep": LJ_STEP}
    options = guess if units is LJ and settings.optimizer in ("BFGS", "LBFGS") else {}
    optimizer = getattr(ase.optimize, settings.optimizer)(atoms, logfile=None, **options)
    header = ["step", f"energy[{units.energy}]", f"fmax[{units.force}]"]
    converged, step = False, 0
    with (
        suitable_threads(len(atoms)),
        StopSignals() as stop,
        output.Records(folder, header) as records,
        output.progress(f"relax {settings.structure}", settings.steps) as show,
    ):
        steps = optimizer.irun(fmax=settings.fmax, steps=settings.steps)
        for step, converged in enumerate(steps):  # noqa: B007
            energy = float(atoms.get_potential_energy())
            fmax = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            records.add(atoms, (step, energy, fmax))
            show(step, f"E {energy:.4f}, fmax {fmax:.4f}")
            if stop.received:
                break
    if stop.received and not converged and step < settings.steps:
        frames = folder / output.TRAJECTORY
        raise InterruptedRunError(
            stop.received,
            f"stopped after {step} steps; go on from the last frame: mdgnn relax {pasted(frames)} "
            f"--model {pasted(settings.model)}",
        )
    return bool(converged)


def _plot(system: System, before: Atoms, log: np.ndarray[Any, Any], folder: Path) -> None:
    after, units = system.atoms, system.units
    sets = {"before": [before], "after": [after]}
    draw(
        folder,
        {
            "energy.png": lambda: partial(
                runs.plot_relaxation, log=log, energy_unit=units.energy, force_unit=units.force
            ),
            "radial_distribution.png": lambda: radial.distribution(sets, units.length, len(after)),
            "structures.png": lambda: structures.structures(
                {"before": before, "after": after}, units is LJ, len(after)
            ),
        },
    )
