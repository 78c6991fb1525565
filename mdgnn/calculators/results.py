"""Predictions as results for ASE."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from mdgnn.calculators.checks import volume_of
from mdgnn.nn import Property
from mdgnn.potential import Prediction


def stress_of(virials: NDArray[np.float64], atoms: Atoms) -> dict[str, NDArray[np.float64]]:
    """From the virials (N, 3, 3) of atoms: their stresses (N, 6) in the whole volume, as ASE has them, and the stress
    (6,), which is their sum. Raises as `results_of`."""
    stresses: NDArray[np.float64] = full_3x3_to_voigt_6_stress(-virials / volume_of(atoms))
    return {"stress": stresses.sum(axis=0), "stresses": stresses}


def results_of(
    found: Prediction, structures: Sequence[Atoms], properties: Sequence[Property] = ()
) -> list[dict[str, Any]]:
    """Of each structure: energies where there are forces, stress and stresses where there are virials, and properties,
    each a number or (N,) of an atomic one.

    Raises
    ------
    PropertyNotImplementedError
        For a virial of a cell without a volume.
    """
    results: list[dict[str, Any]] = [{} for _ in structures]
    ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
    if found.forces is not None:
        energy = found.energy.tolist()
        energies, forces = (np.split(x.cpu().numpy(), ends) for x in (found.energies, found.forces))
        for k, one in enumerate(results):
            one |= {"energy": energy[k], "free_energy": energy[k], "energies": energies[k], "forces": forces[k]}
    if found.virials is not None:
        for one, atoms, virials in zip(results, structures, np.split(found.virials.cpu().numpy(), ends), strict=True):
            one |= stress_of(virials, atoms)
    kinds = {p.name: p.kind for p in properties}
    for name, of_all in (found.properties or {}).items():
        values = of_all.cpu().numpy()
        parts = np.split(values, ends) if kinds[name] == "atomic" else values.tolist()
        for one, value in zip(results, parts, strict=True):
            one[name] = value
    return results
