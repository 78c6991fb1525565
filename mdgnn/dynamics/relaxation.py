"""Relaxation: move the atoms until the forces vanish."""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ase.optimize
import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator
from numpy.typing import NDArray

from mdgnn._internal.file_names import shell_path
from mdgnn._internal.run_errors import InterruptedRunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.dynamics import run_folder
from mdgnn.dynamics.lj_clusters import LJ_MINIMA, true_lj_energy
from mdgnn.dynamics.molecular_dynamics import whole_number
from mdgnn.dynamics.reporter import Reporter
from mdgnn.dynamics.system import System, make_system, suitable_threads
from mdgnn.dynamics.units import LJ
from mdgnn.plots import draw, radial, runs, structures

# Of BFGS and LBFGS, which search no lines, in reduced units: the first guess of the curvature, in epsilon/sigma^2, and
# the longest step, in sigma. One bond has a curvature of 57, a dozen on each atom far more, pressed ones many times
# that. With the 70 that ASE assumes a perturbed crystal flies apart. ASE's 0.2 Angstrom are 0.06 of argon's sigma; with
# 0.2 sigma a crystal of 500 atoms displaced by 0.08 sigma ends as a glass, and with 300 epsilon/sigma^2 an icosahedron
# of 147 or 561 displaced by 0.1 gets defects.
LJ_CURVATURE = 1000.0
LJ_STEP = 0.06

MOST_BYTES = 1e9  # of a matrix; of 3 x 3,700 atoms, it takes BFGS some ten minutes a step
OPTIMIZERS = ("BFGS", "LBFGS", "FIRE", "FIRE2", "BFGSLineSearch", "LBFGSLineSearch", "MDMin", "GPMin")


@dataclass(frozen=True)
class Relaxation:
    """What came of a relaxation; energies and forces in the model's units, with what constraints add to them.

    `steps` is the number of steps taken; `fmax` the largest force at the end; `summary` what summary.json holds.
    """

    atoms: Atoms
    converged: bool
    steps: int
    initial_energy: float
    energy: float
    fmax: float
    summary: dict[str, Any]


def relax(
    atoms: Atoms,
    calculator: str | Path | Calculator | None = None,
    *,
    fmax: float = 0.01,
    optimizer: str = "LBFGS",
    steps: int = 1000,
    folder: str | Path | None = None,
    force: bool = False,
    device: str = "cpu",
    dtype: str = "float32",
    source: Mapping[str, Any] | None = None,
    reporter: Reporter | None = None,
) -> Relaxation:
    """Move a copy of the atoms, by one of ASE's optimizers, until the forces vanish.

    Parameters
    ----------
    atoms : ase.Atoms
        With their constraints, which hold; they are not changed.
    calculator : str, Path or ASE calculator, optional
        The name of a shipped model, a model file, or any calculator; by default that of the atoms.
    fmax : float
        Largest force allowed, in epsilon/sigma or eV/Angstrom.
    optimizer : str
        One of `OPTIMIZERS`.
    steps : int
        Give up after so many.
    folder : str or Path, optional
        Where to leave trajectory.xyz, log.csv, final.xyz, summary.json and plots; without it nothing is written.
    force : bool
        Replace an earlier run's files there.
    device, dtype : str
        Of the model, where the calculator is a name or file.
    source : mapping, optional
        Where the atoms come from, for the summary; "structure" is their name.
    reporter : Reporter, optional
        Gets notes and the progress; by default notes are warnings.

    Returns
    -------
    Relaxation
        Also where it did not converge: see its `converged`.

    Raises
    ------
    ValueError
        For a parameter or structure that cannot be, before anything is written.
    RunError, InUseError, OSError
        For a folder that is not empty, that another job has, or that cannot be written.
    InterruptedRunError
        After SIGINT or SIGTERM.
    """
    if not (np.isfinite(fmax) and fmax > 0):
        raise ValueError(f"expected a positive fmax, got {fmax}")
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"expected an optimizer out of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
    steps = whole_number("steps", steps, 0)
    folder = None if folder is None else Path(folder)
    calculator = atoms.calc if calculator is None else calculator
    if calculator is None:
        raise ValueError("expected a calculator, or atoms with one, got none")
    reporter = reporter or Reporter()
    with nullcontext() if folder is None else run_folder.hold(folder, force):
        check_size(optimizer, len(atoms))
        system = make_system(atoms.copy(), calculator, device, dtype, reporter.note)
        if folder is not None:
            run_folder.clear(folder)
        settings = {
            **(source or {}),
            **{"model": system.model, **system.precision},
            **{"fmax": fmax, "optimizer": optimizer, "steps": steps},
        }
        begin = time.perf_counter()
        converged, log = _optimize(system, settings, folder, reporter)
        summary = _summary(system, settings, converged, log, time.perf_counter() - begin)
        if folder is not None:
            with StopSignals():  # which come too late
                run_folder.write_final(folder, system.atoms)
                run_folder.write_summary(folder, summary)
            _plot(system, atoms, log, folder)
    initial, final, largest = (summary[name] for name in ("initial_energy", "final_energy", "final_fmax"))
    return Relaxation(system.atoms, converged, summary["steps"], initial, final, largest, summary)


def check_size(optimizer: str, n_atoms: int) -> None:
    """Raise a ValueError for an optimizer whose matrices do not fit, or whose steps would take too long."""
    rows, when = {
        "BFGS": (3 * n_atoms, ""),
        "BFGSLineSearch": (3 * n_atoms, ""),
        "GPMin": (10 * (3 * n_atoms + 1), " after ten steps"),  # it grows with every step
    }.get(optimizer, (0, ""))
    size, memory = 8.0 * rows**2, float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    if size > min(MOST_BYTES, memory / 8):  # each holds several
        raise ValueError(
            f"{optimizer} works on matrices of {rows:,} x {rows:,} numbers for {n_atoms:,} atoms{when}, "
            f"{size / 1e9:.1f} GB each; take LBFGS, whose memory and time grow only as the number of atoms"
        )


def _optimize(
    system: System, settings: Mapping[str, Any], folder: Path | None, reporter: Reporter
) -> tuple[bool, NDArray[np.float64]]:
    """Whether it converged, and the log: step, energy and largest force."""
    atoms, units, log = system.atoms, system.units, list[Sequence[float]]()
    guess = {"alpha": LJ_CURVATURE, "maxstep": LJ_STEP}
    options = guess if units is LJ and settings["optimizer"] in ("BFGS", "LBFGS") else {}
    optimizer = getattr(ase.optimize, settings["optimizer"])(atoms, logfile=None, **options)
    header = ["step", f"energy[{units.energy}]", f"fmax[{units.force}]"]
    name = settings.get("structure", atoms.get_chemical_formula())
    converged, step = False, 0
    records = None if folder is None else run_folder.Records(folder, header)
    with (
        suitable_threads(len(atoms)),
        StopSignals() as stop,
        reporter.progress(f"relax {name}", settings["steps"]) as show,
    ):
        for step, converged in enumerate(optimizer.irun(fmax=settings["fmax"], steps=settings["steps"])):  # noqa: B007
            energy = float(atoms.get_potential_energy())
            fmax = float(np.linalg.norm(atoms.get_forces(), axis=1).max())
            log.append((step, energy, fmax))
            if records is not None:
                records.add(atoms, log[-1])
            show(step, f"E {energy:.4f}, fmax {fmax:.4f}")
            if stop.received:
                break
    if stop.received and not converged and step < settings["steps"]:
        message = f"stopped after {step} steps"
        if folder is not None:
            frames = folder / run_folder.TRAJECTORY
            go_on = f"mdgnn relax {shell_path(frames)} --model {shell_path(system.model)}"
            if not system.sha256:  # the command line has no such calculators
                go_on = f"mdgnn.dynamics.relax(ase.io.read({str(frames)!r}), calculator)"
            message += f"; go on from the last frame: {go_on}"
        raise InterruptedRunError(stop.received, message)
    return bool(converged), np.array(log, dtype=np.float64)


def _summary(
    system: System, settings: Mapping[str, Any], converged: bool, log: NDArray[np.float64], seconds: float
) -> dict[str, Any]:
    atoms = system.atoms
    summary = {
        "command": "relax",
        "settings": dict(settings),
        "model_sha256": system.sha256,
        "units": {"energy": system.units.energy, "length": system.units.length},
        "n_atoms": len(atoms),
        "converged": converged,
        "steps": int(log[-1, 0]),
        "initial_energy": float(log[0, 1]),
        "final_energy": float(log[-1, 1]),
        "final_fmax": float(log[-1, 2]),
        "wall_time_s": seconds,
    }
    if system.units is LJ and not atoms.pbc.any():
        summary["true_lj_energy"] = true_lj_energy(atoms)
        summary["lowest_known_lj_energy"] = LJ_MINIMA.get(len(atoms))
    return summary


def _plot(system: System, before: Atoms, log: NDArray[np.float64], folder: Path) -> None:
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
