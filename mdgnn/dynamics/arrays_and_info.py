"""Arrays and information of atoms beside elements, positions and cell: what stays through a run, and what cannot."""

import io
import re
import warnings
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.spacegroup import Spacegroup

CONSTRAINTS = "ase_constraints"  # in extended XYZ, where ASE's column move_mask cannot hold them
RESULTS = ("energy", "free_energy", "energies", "forces", "stress", "stresses")  # instead of which a model has its own
OF_THE_RUN = ("numbers", "positions", "momenta", "masses")
# Labels of another calculation, under whatever prefix; a frame of a run has the model's energy and forces.
LABEL = re.compile(r"(^|[^a-z])(energy|energies|forces?|stress|stresses|virials?)$", re.IGNORECASE)
VELOCITIES = ("vel", "velo", "velocity", "velocities")  # arrays that ASE does not take for momenta


def remove_stale(atoms: Atoms) -> list[str]:
    """Take off, in place, the results of other calculations and what no output can hold; the rest stays.

    Returns
    -------
    Sentences about arrays and information that the user may miss.
    """
    atoms.calc = None
    stale, unwritable = [], []
    places: tuple[dict[str, Any], ...] = (atoms.arrays, atoms.info)
    for place in places:
        for name in [name for name in place if not (place is atoms.arrays and name in OF_THE_RUN)]:
            value = _plain(place[name])
            label = name in (*all_properties, CONSTRAINTS) or (isinstance(name, str) and LABEL.search(name))
            if label or (place is atoms.arrays and name in VELOCITIES):
                stale.append(str(name))
                del place[name]
            elif _reads_back(name, value, len(atoms) if place is atoms.arrays else None):
                place[name] = value
            else:
                unwritable.append(str(name))
                del place[name]
    notes = []
    if stale:
        notes.append(stale_sentence(stale))
    if unwritable:
        notes.append(f"not in the output, as extended XYZ cannot hold it: {', '.join(unwritable)}")
    return notes


def stale_sentence(names: list[str]) -> str:
    """What is said of labels and results that are not those of the atoms that the run moves."""
    return f"not in the output, as it is of another calculation: {', '.join(names)}"


def _plain(value: Any) -> Any:
    """Numbers, text, lists and dictionaries instead of NumPy's inside of them, and of ASE's space group."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "O" and all(isinstance(entry, str) for entry in value.flat):
            value = value.astype(str)
        if value.dtype.kind == "u":
            value = value.astype(np.int64)
        return np.char.strip(value) if value.dtype.kind == "U" else value
    return _listed(value)


def _listed(value: Any) -> Any:
    if isinstance(value, Spacegroup):
        return value.symbol
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _listed(entry) for name, entry in value.items()}
    return [_listed(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def _reads_back(name: Any, value: Any, n_atoms: int | None) -> bool:
    """Whether extended XYZ holds an array of so many atoms, or (None) an entry of `info`: by trial."""
    probe = Atoms(numbers=np.ones(n_atoms or 1, dtype=int))
    place = probe.info if n_atoms is None else probe.arrays
    place[name] = value
    text = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # ASE warns about what it skips
            ase.io.write(text, probe, format="extxyz")
            text.seek(0)
            back: Any = ase.io.read(text, format="extxyz")
        read = (back.info if n_atoms is None else back.arrays)[name]
        return len(back) == len(probe) and not back.constraints and _same(read, value)
    except Exception:  # whatever a writer or a reader raises about it
        return False


def _same(a: Any, b: Any) -> bool:
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype.kind in "fib" and y.dtype.kind in "fib":
        u, v = x.astype(float).ravel(), y.astype(float).ravel()
        return u.shape == v.shape and np.allclose(u, v, atol=1e-8, equal_nan=True)
    return bool(x.tolist() == y.tolist() or str(a) == str(b))
