"""The structures that all benchmarks share: Mackay icosahedra of Lennard-Jones atoms, in plain numpy."""

from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import torch

from mdgnn import Graph, NeighborList

SIZES = (13, 55, 147, 561, 1415)
LARGE_SIZES = (147, 1415, 6525, 49049)
CUTOFF = 3.5
SPACING = 1.09  # between neighbours of adjoining shells, in sigma: the minimum of the potential, a little compressed


@lru_cache(maxsize=1)
def icosahedron(n_atoms: int) -> np.ndarray:
    """(N, 3) positions, shell by shell from the centre; N must be a magic number (13, 55, 147 ...)."""
    golden = (1 + 5**0.5) / 2
    corners = np.array(
        [np.roll([0, a, b * golden], turn) for turn in range(3) for a in (-1, 1) for b in (-1, 1)]
    ) / np.hypot(1, golden)
    edge = 1.06  # longer than the icosahedron's edge, 1.0515, and shorter than its other distances
    faces = [
        corners[list(face)]
        for face in combinations(range(12), 3)
        if all(np.linalg.norm(corners[i] - corners[j]) < edge for i, j in combinations(face, 2))
    ]
    shells = [np.zeros((1, 3))]
    while (missing := n_atoms - sum(map(len, shells))) > 0:
        k = len(shells)
        steps = np.array([(a, b, k - a - b) for a in range(k + 1) for b in range(k + 1 - a)])
        points = np.concatenate([steps @ face for face in faces])
        _, first = np.unique(points.round(6) + 0.0, axis=0, return_index=True)
        shells.append(points[np.sort(first)])
    if missing:
        raise ValueError(f"no icosahedron has {n_atoms} atoms")
    return SPACING * np.concatenate(shells)


def argon(n_atoms: int) -> Any:
    """The same as `ase.Atoms`, with unit masses."""
    from ase import Atoms

    return Atoms(f"Ar{n_atoms}", positions=icosahedron(n_atoms), masses=np.ones(n_atoms))


@lru_cache(maxsize=1)
def graph(n_atoms: int) -> Graph:
    """The same as a graph of atoms of kind 1."""
    edges = NeighborList(CUTOFF).update(icosahedron(n_atoms))
    return Graph.from_edges(torch.ones(n_atoms, dtype=torch.int64), edges, np.zeros((3, 3)))


def positions_of(n_atoms: int, seed: int = 0) -> np.ndarray:
    return icosahedron(n_atoms) + np.random.default_rng(seed).normal(0, 0.05, (n_atoms, 3))


def displaced(n_atoms: int, seed: int = 0) -> Graph:
    """An icosahedron whose atoms are displaced at random."""
    r = positions_of(n_atoms, seed)
    return Graph.from_edges(torch.ones(n_atoms, dtype=torch.int64), NeighborList(CUTOFF).update(r), np.zeros((3, 3)))


def liquid(n_cells: int) -> Graph:
    """A displaced crystal of the density of a liquid, with 4 atoms a cell."""
    fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    cells = np.stack(np.meshgrid(*[np.arange(n_cells)] * 3, indexing="ij"), -1).reshape(-1, 1, 3)
    a = (4 / 0.8442) ** (1 / 3)
    r = (cells + fcc).reshape(-1, 3) * a
    r += np.random.default_rng(0).normal(0, 0.15, r.shape)
    cell = np.eye(3) * n_cells * a
    return Graph.from_edges(torch.ones(len(r), dtype=torch.int64), NeighborList(CUTOFF).update(r, cell, True), cell)
