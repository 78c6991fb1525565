"""Structures, and a small model, that the tests share. Atoms are argon unless a model knows others."""

import itertools

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.cluster import Icosahedron

from mdgnn import PaiNN, SchNet, SimpleGNN

NEAREST = 1.09  # nearest-neighbour distance of Lennard-Jones icosahedra, in sigma
PBCS = list(itertools.product([False, True], repeat=3))


def icosahedron(shells, noise=0.0, seed=0):
    """LJ icosahedron of 13, 55, 147, 561 ... atoms (shells = 2, 3, 4, 6 ...)."""
    atoms = Icosahedron("Ar", shells, NEAREST * 2**0.5)
    atoms.positions += np.random.default_rng(seed).normal(0, noise, atoms.positions.shape)
    return atoms


def crystal(noise=0.05, seed=0):
    """A displaced fcc crystal of 32 atoms."""
    atoms = bulk("Ar", "fcc", a=1.55, cubic=True) * 2
    atoms.positions += np.random.default_rng(seed).normal(0, noise, atoms.positions.shape)
    return atoms


def triclinic(pbc=True, n=12, seed=0, left_handed=False):
    """Random atoms in a skewed cell of about 3 sigma."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.0, 0.2, -0.3], [0.9, 2.8, 0.1], [-0.6, 0.7, 3.2]]) + rng.normal(0, 0.05, (3, 3))
    if left_handed:
        cell = cell[[1, 0, 2]]
    return Atoms(f"Ar{n}", scaled_positions=rng.random((n, 3)), cell=cell, pbc=pbc)


def slab():
    """A surface with vacuum, periodic in two directions."""
    atoms = fcc111("Ar", (3, 3, 3), a=1.55, vacuum=5.0)
    atoms.pbc = (True, True, False)
    return atoms


def water():
    return molecule("H2O")


def neighbor_cases():
    """(name, atoms, cutoff): every kind of system that the neighbour list must treat."""
    for pbc in PBCS:
        word = "".join("FT"[p] for p in pbc)
        yield f"triclinic-{word}", triclinic(pbc), 1.5
        yield f"left-handed-{word}", triclinic(pbc, left_handed=True), 1.5
        yield f"cutoff-beyond-the-cell-{word}", triclinic(pbc, n=4), 7.0
        unwrapped = triclinic(pbc)
        shifts = np.random.default_rng(5).integers(-3, 4, (12, 3)) * np.array(pbc)
        unwrapped.positions += shifts @ unwrapped.cell.array
        yield f"unwrapped-{word}", unwrapped, 1.5
        one = Atoms("Ar", [[0.1, 0.2, 0.3]], cell=np.diag([1.0, 1.2, 1.4]), pbc=pbc)
        yield f"one-atom-{word}", one, 2.5
    yield "cluster-55", icosahedron(3, 0.05), 3.5
    yield "cluster-no-cell-far-from-origin", _moved(icosahedron(3, 0.05), 1e5), 3.5
    yield "crystal", crystal(), 2.5
    yield "slab", slab(), 2.5
    yield "slab-without-third-vector", _without_third_vector(slab()), 2.5
    yield "primitive-cell", bulk("Ar", "fcc", a=1.55), 4.0
    yield "needle", Atoms("Ar3", [[0, 0, 0], [0, 0, 40], [0, 0, 79]], cell=[1.0, 1.0, 80.0], pbc=True), 2.2
    yield "sparse", Atoms("Ar4", np.random.default_rng(3).random((4, 3)) * 1e6), 3.0
    yield "two-clusters-far-apart", icosahedron(2) + _moved(icosahedron(2), 1e7), 3.5
    yield "negative-coordinates", _moved(triclinic(True), -50.0), 1.5
    yield "outside-open-box", _moved(triclinic((True, False, True)), [0, 37.0, 0]), 1.5
    yield "planar", Atoms("Ar9", [[x, y, 0] for x in range(3) for y in range(3)]), 1.5
    yield (
        "skewed-5-degrees",
        Atoms("Ar2", [[0, 0, 0], [1.0, 0.05, 0.4]], cell=[[3, 0, 0], [3, 0.262, 0], [0, 0, 3]], pbc=True),
        1.5,
    )
    yield "duplicate-positions", Atoms("Ar3", [[0, 0, 0], [0, 0, 0], [1, 0, 0]]), 1.5


def _moved(atoms, by):
    atoms.positions += by
    return atoms


def _without_third_vector(atoms):
    cell = atoms.cell.array.copy()
    cell[2] = 0
    atoms.cell = cell
    return atoms


def gnn(dtype=torch.float64, seed=0, **options):
    """A small SimpleGNN for any single species, with random weights."""
    torch.manual_seed(seed)
    options = {"elements": "any", "envelope": "polynomial", "cutoff": 2.5, "units": "lj", **options}
    return SimpleGNN(1, 8, 8, 2, **options).to(dtype)


def radial(architecture, dtype=torch.float64, seed=0, **options):
    """A small SchNet or PaiNN for any single species, with random weights and biases."""
    torch.manual_seed(seed)
    options = {"elements": "any", "envelope": "polynomial", "cutoff": 2.5, "units": "lj", **options}
    model = {"SchNet": SchNet, "PaiNN": PaiNN}[architecture](8, 2, 6, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # which begin as zeros
                parameter.uniform_(-0.5, 0.5)
    return model.to(dtype)


SYSTEMS = {
    "cluster": icosahedron(3, 0.05),
    "crystal": crystal(),
    "slab": slab(),
    "triclinic": triclinic((True, True, False), n=8),
    "left-handed": triclinic(True, n=8, left_handed=True),
    "dimer": Atoms("Ar2", [[0, 0, 0], [1.1, 0.2, 0]]),
    "isolated-atom": Atoms("Ar"),
    "atom-and-dimer": Atoms("Ar3", [[0, 0, 0], [1.1, 0, 0], [30, 0, 0]]),
}
