"""Predictions as results for ASE."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from mdgnn.calculators.checks import volume_of
from mdgnn.properties import Property

if TYPE_CHECKING:
    from mdgnn.potential import Prediction

Array = NDArray[np.float64]


def energy_results(
    energy: float, energies: Array, forces: Array, virials: Array | None, atoms: Atoms
) -> dict[str, Any]:
    """The results of an energy, under ASE's names.

    Parameters
    ----------
    energy : float
    energies : (N,)
        Of atoms.
    forces : (N, 3)
    virials : (N, 3, 3), optional
        Of atoms. Their stresses (N, 6) are their shares, in the whole volume, of the stress (6,), which is their sum.
    atoms : ase.Atoms

    Raises
    ------
    PropertyNotImplementedError
        For virials in a cell without a volume.
    """
    results = {"energy": energy, "free_energy": energy, "energies": energies, "forces": forces}
    if virials is None:
        return results
    stresses: Array = full_3x3_to_voigt_6_stress(-virials / volume_of(atoms))
    return {**results, "stress": stresses.sum(axis=0), "stresses": stresses}


def results_of_engine(
    energies: Array | None,
    forces: Array | None,
    virials: Array | None,
    properties: Mapping[str, Array],
    kinds: Mapping[str, str],
    atoms: Atoms,
) -> dict[str, Any]:
    """Of one structure: those of the energy, where there is one, and properties, each a number or (N,) of an atomic
    one. Raises as `energy_results`.

    Parameters
    ----------
    energies, forces, virials, atoms
        As of `energy_results`.
    properties : mapping of (N,)
        What the atoms contribute, by name.
    kinds : mapping of str
        Of properties, by name.
    """
    results = {}
    if energies is not None and forces is not None:
        results = energy_results(float(energies.sum()), energies, forces, virials, atoms)
    for name, values in properties.items():
        kind = kinds[name]
        results[name] = values if kind == "atomic" else float(values.sum() if kind == "extensive" else values.mean())
    return results


def results_of(
    prediction: "Prediction", structures: Sequence[Atoms], properties: Sequence[Property] = ()
) -> list[dict[str, Any]]:
    """Of each structure: those of the energy where there are forces, and properties, each a number or (N,) of an atomic
    one. Raises as `energy_results`."""
    results: list[dict[str, Any]] = [{} for _ in structures]
    ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
    if prediction.forces is not None:
        atomic = [prediction.energies, prediction.forces, prediction.virials]
        split = ([None] * len(structures) if x is None else np.split(x.cpu().numpy(), ends) for x in atomic)
        structure_by_structure = zip(prediction.energy.tolist(), *split, structures, strict=True)
        results = [energy_results(*one) for one in structure_by_structure]
    kinds = {p.name: p.kind for p in properties}
    for name, of_all in (prediction.properties or {}).items():
        values = of_all.cpu().numpy()
        parts = np.split(values, ends) if kinds[name] == "atomic" else values.tolist()
        for one, value in zip(results, parts, strict=True):
            one[name] = value
    return results
