"""Make the shipped model `lj`: python mdgnn/pretrained/train_lj.py OUTPUT.safetensors [STEPS]

Energies and forces of clusters of 2 to 55 atoms, labelled by the untruncated Lennard-Jones potential (epsilon = sigma =
1): frames of Langevin dynamics from cold to above melting, randomly displaced and scaled clusters, and dimers.
"""

import sys
import time

import numpy as np
import torch
from ase import Atoms, units
from ase.cluster import Icosahedron, Octahedron
from ase.md.langevin import Langevin
from ase.optimize import BFGS

from mdgnn import Graph, LennardJones, MDGNNCalculator, SimpleGNN, evaluate, save

OUTPUT, STEPS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 12000
rng = np.random.default_rng(0)
truth = LennardJones()
torch.manual_seed(0)


def cluster(n):
    """A compact cluster: the atoms of an icosahedron (or the 38-atom octahedron) that are nearest to its centre."""
    whole = Octahedron("Ar", 4, 1, latticeconstant=1.09 * 2**0.5) if n == 38 else Icosahedron("Ar", 3, 1.09 * 2**0.5)
    centre = whole.positions.mean(0) + (0 if n in (13, 38, 55) else rng.normal(0, 0.3, 3))
    nearest = np.argsort(np.linalg.norm(whole.positions - centre, axis=1), kind="stable")[:n]
    return Atoms(f"Ar{n}", whole.positions[nearest], masses=np.ones(n))


def frames():
    """Positions of training structures."""
    for r in np.concatenate([np.linspace(0.85, 3.6, 120), rng.uniform(0.9, 1.4, 40)]):
        yield np.array([[0, 0, 0], [r, 0, 0]])
    for n in (3, 4, 5, 6, 7, 8, 10, 12, 13, 13, 14, 16, 19, 22, 26, 30, 34, 38, 38, 38, 42, 46, 50, 54, 55, 55, 55):
        atoms = cluster(n)
        atoms.calc = MDGNNCalculator(truth, dtype="float64")
        BFGS(atoms, logfile=None).run(fmax=0.05, steps=200)
        relaxed = atoms.positions.copy()
        for _ in range(40):
            yield relaxed * rng.uniform(0.93, 1.08) + rng.normal(0, rng.uniform(0.005, 0.12), relaxed.shape)
        for temperature in (0.05, 0.15, 0.25, 0.35, 0.5):
            atoms.positions = relaxed
            atoms.set_velocities(rng.normal(0, np.sqrt(2 * temperature), relaxed.shape))
            md = Langevin(atoms, 0.005, temperature_K=temperature / units.kB, friction=0.5, rng=rng)
            for _ in range(16):
                md.run(25)
                yield atoms.positions.copy()


def label(positions):
    atoms = Atoms(f"Ar{len(positions)}", positions)
    exact = evaluate(truth, Graph.from_atoms(atoms, np.inf))
    return Graph.from_atoms(atoms, 3.5), exact.energy, exact.forces


start = time.perf_counter()
data = [d for d in map(label, frames()) if d[1] / d[0].n_atoms < 10]  # without the few whose atoms nearly coincide
shortest = min(float(graph.vectors.norm(dim=1).amin()) for graph, _, _ in data if graph.n_edges)
data = [data[i] for i in rng.permutation(len(data))]
train, test = data[200:], [d for d in data[:200] if d[2].abs().max() < 50]  # errors where dynamics happens
print(f"{len(train)} frames, shortest distance {shortest:.3f}, {time.perf_counter() - start:.0f} s", flush=True)

model = SimpleGNN(1, 32, 24, 2, cutoff=3.5, envelope="polynomial", elements="any", units="lj",
                  basis=(0.7, 3.5, 0.2), shift=-3.0, scale=1.0, least_distance=shortest)  # fmt: skip
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, STEPS, pct_start=0.05, final_div_factor=1e4)


def errors(batch, create_graph):
    """Energy error per atom (S,), force errors (N, 3) and true forces."""
    graph = Graph.batch([g for g, _, _ in batch])
    energy, forces = torch.cat([e for _, e, _ in batch]), torch.cat([f for _, _, f in batch])
    guess = evaluate(model, graph, create_graph=create_graph)
    return (guess.energy - energy) / torch.bincount(graph.structure), guess.forces - forces, forces


for step in range(STEPS):
    d_energy, d_forces, forces = errors([train[i] for i in rng.integers(len(train), size=10)], create_graph=True)
    # Relative errors of large forces: repulsive walls must be right, but not at the price of the minima.
    weight = 1 / (1 + 0.1 * forces.square().sum(1))
    loss = 30 * torch.nn.functional.huber_loss(d_energy, 0 * d_energy, delta=0.1)
    loss = loss + (weight * d_forces.square().sum(1)).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()
    schedule.step()
    if step % 500 == 0 or step == STEPS - 1:
        d_energy, d_forces, forces = errors(test, create_graph=False)
        energy_mae, relative = float(d_energy.abs().mean()), float(d_forces.abs().sum() / forces.abs().sum())
        print(f"{step} E {energy_mae:.5f} F {100 * relative:.2f} % {time.perf_counter() - start:.0f} s", flush=True)

record = {"command": f"python mdgnn/pretrained/train_lj.py OUTPUT {STEPS}", "seed": 0, "steps": STEPS,
          "frames": len(train), "energy_mae_per_atom": energy_mae, "relative_force_error": relative}  # fmt: skip
save(model, OUTPUT, record)
