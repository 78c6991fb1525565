"""Small data and configurations for the tests of training."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mdgnn import Graph, LennardJones, evaluate
from mdgnn.potential import stress
from mdgnn.training.config import override, parse


def labelled(atoms, truth=None, **info):
    """With energy, forces and, of a crystal, stress by Lennard-Jones."""
    truth = truth or LennardJones(cutoff=3.0 if atoms.pbc.any() else None)
    graph = Graph.from_atoms(atoms, truth.cutoff)
    prediction = evaluate(truth, graph, virial=bool(atoms.pbc.all()))
    labels = {"energy": float(prediction.energy), "forces": prediction.forces.numpy()}
    if prediction.virial is not None:
        labels["stress"] = stress(prediction.virial, graph.cells)[0].numpy()
    atoms.calc = SinglePointCalculator(atoms, **labels)
    atoms.info.update(info)
    return atoms


def clusters(n, seed=0, largest=8):
    """Displaced cubes of argon of which corners are missing."""
    rng = np.random.default_rng(seed)
    corners = 1.15 * np.array(np.meshgrid(*[[0, 1]] * 3)).reshape(3, -1).T
    return [
        labelled(Atoms(f"Ar{k}", corners[:k] + rng.normal(0, 0.03, (k, 3)))) for k in rng.integers(4, largest + 1, n)
    ]


def crystals(n, seed=0):
    """Strained and displaced fcc crystals of four atoms, with stress."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=1.6, cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        frames.append(labelled(atoms))
    return frames


def file_of(path, frames):
    write(path, frames, format="extxyz")
    return str(path)


def small(data, *settings, architecture="SimpleGNN"):
    """A configuration of a small network that trains in float64 on one thread."""
    sizes = {"SimpleGNN": {"node_dim": 6, "edge_dim": 5, "n_layers": 2}}
    model = {
        "architecture": architecture,
        "cutoff": 2.5,
        "units": "lj",
        "envelope": "polynomial",
        "n_knots": 64,
        "dtype": "float64",
        **sizes.get(architecture, {"n_features": 6, "n_interactions": 2, "n_basis": 5}),
    }
    content = {
        "model": model,
        "data": {"train": data, "valid": 0.25, "batch_size": 4},
        "run": {"epochs": 3, "seed": 1, "threads": 1, "device": "cpu"},
    }
    return parse(override(content, settings))
