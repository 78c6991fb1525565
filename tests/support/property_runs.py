"""Structures of which scalars are known exactly, and configurations that learn those."""

import numpy as np
from ase import Atoms
from training_runs import labelled, small

from mdgnn.data import Keys, PropertyKey
from mdgnn.training.config import parse

SECTIONS = [
    {"name": "n_h", "kind": "extensive"},
    {"name": "bonds", "kind": "extensive"},
    {"name": "coordination", "kind": "intensive"},
    {"name": "neighbours", "kind": "atomic", "key": "coordination_of"},
]
ALONE = {"energy": 0.0, "forces": 0.0}


def coordination(atoms):
    """(N,) atoms within 1.35: along the edges of the cube, not across its faces."""
    return (atoms.get_all_distances() < 1.35).sum(1) - 1.0


def labels_of(atoms):
    c = coordination(atoms)
    scalars = {"n_h": float((atoms.numbers == 1).sum()), "bonds": c.sum() / 2, "coordination": c.mean()}
    return scalars, {"coordination_of": c}


def molecules(n, seed=0, energies=False):
    """Cubes of hydrogen and carbon of which corners are missing, with what is known of them exactly."""
    rng = np.random.default_rng(seed)
    corners = 1.1 * np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    frames = []
    for k in rng.integers(3, 9, n):
        chosen = rng.permutation(8)[:k]
        atoms = Atoms(rng.choice([1, 6], k), corners[chosen] + rng.normal(0, 0.03, (k, 3)))
        scalars, arrays = labels_of(atoms)
        atoms.info.update(scalars)
        for name, values in arrays.items():
            atoms.set_array(name, values)
        frames.append(labelled(atoms) if energies else atoms)
    return frames


def settings(file, sections=SECTIONS, loss=ALONE, architecture="SimpleGNN", **more):
    content = small(file, architecture=architecture).model_dump()
    content["model"] = {k: v for k, v in content["model"].items() if v is not None}
    content["property"] = sections
    content["loss"] = {**content["loss"], **loss}
    for section, values in more.items():
        content[section] = {**content[section], **values}
    return parse(content)


def keys(*sections):
    return Keys(
        properties=tuple(PropertyKey(s["name"], s.get("key", s["name"]), s["kind"] == "atomic") for s in sections)
    )
