"""Rotate clusters: the energy stays, the forces turn along. After lj_clusters.py: python examples/symmetry.py [FOLDER]

The network sees distances only, so both hold for any weights, up to rounding. That is shown in float32 for one cluster
and in float64 for all: on the repulsive wall, forces of several hundred epsilon / sigma leave float32 fewer digits.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from ase.io import read

from mdgnn import load, neighbor_list

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
if not (folder / "lj_clusters.safetensors").exists():
    sys.exit(f"{folder} holds no trained model: run examples/lj_clusters.py first")
model = load(folder / "lj_clusters.safetensors")
clusters = read(folder / "test_clusters.xyz", ":")
torch.set_num_threads(1)  # four atoms gain nothing from more
random = np.random.RandomState(1)


def rotation():
    """A uniformly distributed proper rotation: the Q of a random matrix, with its signs fixed."""
    q, r = np.linalg.qr(random.randn(3, 3))
    q *= np.sign(np.diag(r))
    return torch.tensor(q * np.linalg.det(q))  # times -1 where it is a reflection


def energy_and_forces(positions, edges):
    """The lecture's call; the forces are minus the gradient of the energy."""
    positions = positions.clone().requires_grad_()
    energy = model(torch.ones(4, dtype=torch.int64), positions, edges)
    energy.backward()
    return energy.item(), -positions.grad


def largest_errors(clusters, rotations):
    """How much energies change, and rotated forces differ from the forces of the rotated cluster."""
    energy_error, force_error = 0.0, 0.0
    for atoms in clusters:
        i, j = neighbor_list("ij", atoms, 3.5)
        positions, edges = torch.tensor(atoms.positions), torch.tensor(np.stack([j, i]))
        energy, forces = energy_and_forces(positions, edges)
        for turn in rotations:
            turned_energy, turned_forces = energy_and_forces(positions @ turn.T, edges)
            energy_error = max(energy_error, abs(turned_energy - energy))
            force_error = max(force_error, (turned_forces - forces @ turn.T).abs().max().item())
    return energy_error, force_error


rotations = [rotation() for _ in range(5)]
print("energies are in units of their standard deviation, 5 rotations")
for name, some in [("float32, first test cluster", clusters[:1]), ("float64, all test clusters", clusters)]:
    model.to(torch.float64 if name.startswith("float64") else torch.float32)
    energy_error, force_error = largest_errors(some, rotations)
    print(f"{name}: energy changes by at most {energy_error:.1e}, forces are off by at most {force_error:.1e}")
