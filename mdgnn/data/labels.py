"""Labels of a frame: energy, forces, stress and others, wherever a file's format puts them."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Array = NDArray[np.float64]

QUANTITIES = ("energy", "forces", "stress")
VIRIALS = ("virial", "virials")  # where the stress stands if there is none under its own name
# Two of a frame are the same within digits that files leave out, and factors such as 160.2 for 160.2177 GPa: of the
# largest component, and in eV/Angstrom^3.
ROUNDED, ROUNDING = 1e-3, 1e-5


class LabelError(ValueError):
    """What is wrong with one frame, without its name."""


class PropertyKey(NamedTuple):
    """A scalar that structures, or their atoms each, may have: its name, and that in the files."""

    name: str
    key: str
    per_atom: bool


@dataclass(frozen=True)
class Keys:
    """Names of the labels in the files; "" for one that is not wanted, whatever stands there.

    Attributes
    ----------
    energy, forces : str
    stress : str
        3 x 3, six numbers in ASE's Voigt order (xx, yy, zz, yz, xz, xy), or, under a name with "virial" in it, a
        virial, of which -virial/volume is taken. Under the default "stress" a frame may have a "virial" or "virials"
        instead, or beside it, which must then agree: to choose one of two, name "virial", or take the other out.
    extra : tuple of str
        Other scalars of structures or labels of atoms that are wanted.
    properties : tuple of PropertyKey
        Scalars of known shape that are among the extra labels under their names, NaN where there is none.
    """

    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    extra: tuple[str, ...] = ()
    properties: tuple[PropertyKey, ...] = ()


DEFAULT = Keys()


@dataclass(frozen=True)
class Labels:
    """Those of one structure of N atoms, float64; None where there is none, NaN where a property is not known.

    Attributes
    ----------
    energy : (1,), eV or epsilon
    forces : (N, 3), eV/Angstrom or epsilon/sigma
    stress : (1, 3, 3), eV/Angstrom^3 or epsilon/sigma^3
        ASE's sign: positive under tension.
    weight : (1,)
        Of the structure in losses.
    extra : dict
        Other labels by name: of the structure (1,), or of atoms (N,) or (N, k).
    config_type : str
        "" where it has none.
    """

    energy: Array | None
    forces: Array | None
    stress: Array | None
    weight: Array
    extra: dict[str, Array] = field(default_factory=dict)
    config_type: str = ""


def labels_of(atoms: Atoms, keys: Keys = DEFAULT) -> Labels:
    """The labels of one structure; those it lacks are None or absent.

    Raises
    ------
    LabelError
        For a label of another shape than its meaning has, or one that stands there twice with different values.
    """
    n = len(atoms)
    weight = _scalar("weight", find(atoms, "weight"))
    if weight is not None and not (np.isfinite(weight[0]) and weight[0] >= 0):
        raise LabelError(f"expected a weight of at least 0, got {weight[0]:g}")
    energy = _scalar(keys.energy, find(atoms, keys.energy))
    forces = find(atoms, keys.forces)
    if forces is not None:
        forces = _numbers(keys.forces, forces)
        if forces.shape != (n, 3):
            raise LabelError(f"expected {keys.forces} of shape ({n}, 3), got {forces.shape}")
    extra = {name: _extra(name, value, n) for name in keys.extra if (value := find(atoms, name)) is not None}
    extra |= {p.name: _property(p, find(atoms, p.key), n) for p in keys.properties}
    config_type = atoms.info.get("config_type", "")
    weight = np.ones(1) if weight is None else weight
    return Labels(energy, forces, _stress(atoms, keys), weight, extra, str(config_type))


def find(atoms: Atoms, name: str) -> Any:
    """The value of this name, or None: among the arrays, the info and the results of a calculator.

    ASE's reader of extended XYZ puts "energy", "forces" and "stress" into a calculator, other names into the first two.
    """
    values = [
        place[name]
        for place in (atoms.arrays, atoms.info, getattr(atoms.calc, "results", {}))
        if place.get(name) is not None
    ]
    for other in values[1:]:
        a, b = np.ravel(other), np.ravel(values[0])
        if a.shape == b.shape and not _equal(a, b):
            raise LabelError(f"{name} stands there twice, with different values")
    return values[0] if values else None


def _equal(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Numbers that are missing in both are equal."""
    return np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f")


def names_in(atoms: Atoms) -> list[str]:
    """Names under which a label may stand."""
    results = getattr(atoms.calc, "results", {})
    return sorted({*atoms.info, *atoms.arrays, *results} - {"numbers", "positions"})


def _numbers(name: str, value: Any) -> Array:
    """A float64 array of its own."""
    try:
        return np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise LabelError(f"expected numbers as {name}, got {str(value)[:40]!r}") from None


def _scalar(name: str, value: Any) -> Array | None:
    if value is None:
        return None
    number = _numbers(name, value)
    if number.size != 1:
        raise LabelError(f"expected one number as {name}, got shape {number.shape}")
    return number.reshape(1)


def _extra(name: str, value: Any, n: int) -> Array:
    array = _numbers(name, value)
    if array.size == 1 and array.ndim <= 1:
        return array.reshape(1)
    if array.ndim not in (1, 2) or len(array) != n:
        raise LabelError(f"expected {name} as one number or with a row for each of {n} atoms, got shape {array.shape}")
    return array


def _property(property_: PropertyKey, value: Any, n: int) -> Array:
    size = n if property_.per_atom else 1
    if value is None:
        return np.full(size, np.nan)
    array = _numbers(property_.key, value)
    if array.size != size or array.ndim > 2:
        what = f"a number for each of {n} atoms" if property_.per_atom else "one number"
        raise LabelError(f"expected {what} as {property_.key}, got shape {array.shape}")
    if np.isinf(array).any():
        raise LabelError(f"the {property_.key} is not finite")
    return array.reshape(size)


def _stress(atoms: Atoms, keys: Keys) -> Array | None:
    """(1, 3, 3), of the first of the names under which there is one; the others must agree."""
    stresses: dict[str, Array] = {}
    for name in (keys.stress, *(VIRIALS if keys.stress == Keys.stress else ())):
        value = find(atoms, name)
        if value is not None:
            stresses[name] = _stress_of(atoms, name, value)
    for name, other in stresses.items():
        first, stress = next(iter(stresses.items()))
        close = np.isclose(other, stress, rtol=0, atol=ROUNDING + ROUNDED * np.abs(stress).max(), equal_nan=True)
        if not close.all():
            k, m = np.argwhere(~close)[0][1:]
            raise LabelError(
                f"{first} and {name} contradict each other: {'xyz'[k]}{'xyz'[m]} of stress is {stress[0, k, m]:.6g} "
                f"by the one and {other[0, k, m]:.6g} by the other (-virial/volume); name the virial as the key of the "
                "stress, or take out the one that is wrong"
            )
    return next(iter(stresses.values()), None)


def _stress_of(atoms: Atoms, name: str, value: Any) -> Array:
    array = _numbers(name, value)
    if array.shape == (6,):
        xx, yy, zz, yz, xz, xy = array
        array = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if array.shape not in ((3, 3), (9,)):
        raise LabelError(f"expected {name} of shape (3, 3), (9,) or (6,), got {array.shape}")
    volume = float(abs(np.linalg.det(atoms.cell.array)))
    if not volume > 0:
        raise LabelError(f"a {name} needs a cell with a volume")
    stress: Array = array.reshape(1, 3, 3)
    return -stress / volume if "virial" in name.lower() else stress
