"""Predictions as results for ASE."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from mdgnn.calculator.checks import volume_of
from mdgnn.models import Property
from mdgnn.potential import Prediction


def results_of(
    found: Prediction, structures: Sequence[Atoms], properties: Sequence[Property] = ()
) -> list[dict[str, Any]]:
    """Of each structure: energies where there are forces, stress where there is a virial, and properties, each a number
    or (N,) of an atomic one.

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
    if found.virial is not None:
        for one, atoms, virial in zip(results, structures, found.virial.cpu().numpy(), strict=True):
            one["stress"] = full_3x3_to_voigt_6_stress(-virial / volume_of(atoms))
    kinds = {p.name: p.kind for p in properties}
    for name, of_all in (found.properties or {}).items():
        values = of_all.cpu().numpy()
        parts = np.split(values, ends) if kinds[name] == "atomic" else values.tolist()
        for one, value in zip(results, parts, strict=True):
            one[name] = value
    return results
