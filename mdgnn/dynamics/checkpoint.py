"""Checkpoints of molecular dynamics: arrays and JSON in one .npz, replaced as a whole or not at all."""

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixCom
from ase.io.jsonio import encode, mydecode
from numpy.typing import NDArray

from mdgnn._internal.replace_file import replace_file
from mdgnn._internal.run_errors import RunError
from mdgnn.dynamics.arrays_and_info import OF_THE_RUN
from mdgnn.dynamics.constraints import fixed_center_of_mass, from_records, inexact, to_records

FORMAT_VERSION = 2  # 1 had only these arrays, no information, and of constraints what ASE's todict has
ARRAYS = ("numbers", "positions", "momenta", "masses", "cell", "pbc")
INTEGRATOR = "integrator_"  # begins the names of arrays that an integrator has of its own
CARRIED = "carried_"  # and of those that the atoms carry along, which are numbered, as their names may be anything


@dataclass(frozen=True)
class Checkpoint:
    """All that the rest of a run depends on.

    `atoms` has no calculator; `rng` is the state of a PCG64; `lengths` are the bytes of trajectory and log by then;
    `integrator` has the variables of a thermostat and barostat; `inexact` names constraints of which an old
    checkpoint has not all, so that they are taken anew from its structure.
    """

    atoms: Atoms
    step: int
    rng: dict[str, Any]
    settings: dict[str, Any]
    model_sha256: str
    lengths: tuple[int, int]
    integrator: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    inexact: tuple[str, ...] = ()


def save(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint; an earlier one stays until the new one is on the disk."""
    atoms = state.atoms
    arrays = [atoms.numbers, atoms.positions, atoms.get_momenta(), atoms.get_masses(), atoms.cell.array, atoms.pbc]
    record = {
        "format_version": FORMAT_VERSION,
        "constraints": to_records(atoms.constraints),
        "arrays": list(atoms.arrays),  # in the order of the trajectory's columns
        "info": encode(atoms.info),
        "step": state.step,
        "rng": state.rng,
        "settings": state.settings,
        "model_sha256": state.model_sha256,
        "lengths": state.lengths,
    }
    named = dict(zip(ARRAYS, arrays, strict=True)) | {INTEGRATOR + k: v for k, v in state.integrator.items()}
    named |= {f"{CARRIED}{k}": v for k, (n, v) in enumerate(atoms.arrays.items()) if n not in OF_THE_RUN}
    content = io.BytesIO()
    np.savez(content, **named, record=np.array(json.dumps(record)))
    try:
        replace_file(path, content.getvalue())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}; the checkpoint before it is intact") from None


def missing(path: Path) -> RunError:
    """What is said where there is none."""
    return RunError(f"there is no checkpoint {path} to restart from")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; never unpickles.

    Raises
    ------
    RunError
        If it is missing, damaged or of another format version.
    """
    if not path.is_file():
        raise missing(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            record = json.loads(str(content["record"]))
            arrays = {name: content[name] for name in ARRAYS}
            own = {k.removeprefix(INTEGRATOR): content[k] for k in content if k.startswith(INTEGRATOR)}
            carried = {int(k.removeprefix(CARRIED)): content[k] for k in content if k.startswith(CARRIED)}
        version = record["format_version"]
        if version not in range(1, FORMAT_VERSION + 1):
            raise RunError(f"{path} has checkpoint format {version}, this mdgnn reads formats 1 to {FORMAT_VERSION}")
        momenta = arrays.pop("momenta")
        atoms = Atoms(**arrays)
        atoms.set_momenta(momenta)  # before the constraints, which would change the last bit
        records = json.loads(record["constraints"]) if version == 1 else record["constraints"]
        constraints = from_records(records)
        if version == 1 and [type(constraint) for constraint in constraints] == [FixCom]:  # the thermostat's own
            constraints = [fixed_center_of_mass()]
        atoms.set_constraint(constraints)
        if version > 1:
            atoms.info = mydecode(record["info"])
            names = record["arrays"]
            atoms.arrays = {name: carried[k] if k in carried else atoms.arrays[name] for k, name in enumerate(names)}
        lengths = tuple(record["lengths"])
        step, rng, settings, sha256 = (record[name] for name in ("step", "rng", "settings", "model_sha256"))
        return Checkpoint(
            atoms, step, rng, settings, sha256, lengths, own, tuple(inexact(records)) if version == 1 else ()
        )
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError, OSError) as error:
        raise RunError(f"{path} is not a complete checkpoint ({error})") from None
