"""Make the shipped model `water`: python mdgnn/pretrained/train_water.py OUTPUT.safetensors [STEPS]

Energies (eV) and forces of one water molecule, labelled by GFN2-xTB: a wide scan of both bonds and the angle, and small
random displacements of the minimum. The energy is measured from the three free atoms.
"""

import sys
import time

import numpy as np
import torch
from ase import Atoms
from ase.optimize import BFGS
from tblite.ase import TBLite

from mdgnn import Graph, SimpleGNN, evaluate, save

OUTPUT, STEPS = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10000
rng = np.random.default_rng(0)
torch.manual_seed(0)
xtb = TBLite(method="GFN2-xTB", verbosity=0)


def water(bond1, bond2, angle):
    """O at the origin, H atoms at the two bond lengths (Angstrom) and the angle (degrees)."""
    a = np.radians(angle)
    return Atoms("OH2", [[0, 0, 0], [bond1, 0, 0], [bond2 * np.cos(a), bond2 * np.sin(a), 0]])


def label(atoms):
    """The graph, the energy above the free atoms and the forces."""
    atoms.calc = xtb
    energy = torch.tensor([atoms.get_potential_energy() - free["O"] - 2 * free["H"]])
    return Graph.from_atoms(atoms, 3.0), energy, torch.tensor(atoms.get_forces())


def free_atom(symbol):
    return Atoms(symbol, calculator=xtb).get_potential_energy()


def displaced(n, width):
    """Copies of the minimum with every coordinate displaced at random."""
    for _ in range(n):
        atoms = minimum.copy()
        atoms.positions += rng.normal(0, width, (3, 3))
        yield label(atoms)


free = {symbol: free_atom(symbol) for symbol in "OH"}
minimum = water(0.96, 0.96, 107)
minimum.calc = xtb
BFGS(minimum, logfile=None).run(fmax=1e-5)
scan = [label(water(*rng.uniform(0.8, 1.3, 2), rng.uniform(80, 140))) for _ in range(2000)]
train = scan[200:] + list(displaced(600, 0.02)) + list(displaced(600, 0.06))
tests = {"near": list(displaced(200, 0.02)), "scan": scan[:200]}
shortest = min(float(graph.vectors.norm(dim=1).amin()) for graph, _, _ in train)

depth = float(minimum.get_potential_energy()) - free["O"] - 2 * free["H"]
options = {"basis": (0.7, 2.5, 0.2), "shift": depth / 3, "min_distance": shortest}
model = SimpleGNN(2, 16, 16, 2, cutoff=3.0, envelope="polynomial", elements=[1, 8], **options)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, STEPS, pct_start=0.1, final_div_factor=1e4)
start = time.perf_counter()


def errors(batch, create_graph):
    """Errors of energies (S,) in eV and of forces (N, 3) in eV/Angstrom, and the true forces."""
    graph = Graph.batch([g for g, _, _ in batch])
    energy, forces = torch.cat([e for _, e, _ in batch]), torch.cat([f for _, _, f in batch])
    guess = evaluate(model, graph, create_graph=create_graph)
    return guess.energy - energy, guess.forces - forces, forces


for step in range(STEPS):
    d_energy, d_forces, forces = errors([train[i] for i in rng.integers(len(train), size=32)], create_graph=True)
    weight = 1 / (0.1 + forces.square().sum(1))  # relative errors of large forces: the minimum counts most
    loss = 30 * d_energy.square().mean() + (weight * d_forces.square().sum(1)).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    if step % 500 == 0 or step == STEPS - 1:
        mae = {}
        for name, test in tests.items():
            d_energy, d_forces, _ = errors(test, create_graph=False)
            mae[name] = {"energy_mae": float(d_energy.abs().mean()), "force_mae": float(d_forces.abs().mean())}
        print(step, mae, f"{time.perf_counter() - start:.0f} s", flush=True)

record = {"label": "GFN2-xTB (tblite)", "seed": 0, "steps": STEPS, "frames": len(train), "errors_eV_and_eV_per_A": mae,
          "command": f"python mdgnn/pretrained/train_water.py OUTPUT {STEPS}"}  # fmt: skip
save(model, OUTPUT, record)
