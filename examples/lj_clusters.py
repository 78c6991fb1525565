"""Learn the energy of four-atom Lennard-Jones clusters: python examples/lj_clusters.py [FOLDER] [SEED]"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms
from ase.io import write

from mdgnn import Graph, LennardJones, SimpleGNN, evaluate, neighbor_list, save

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
folder.mkdir(parents=True, exist_ok=True)
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 42
torch.set_num_threads(1)  # batches this small gain nothing from more
STEPS, BATCH = 4000, 32

# The data: random clusters in which no two atoms are closer than 0.8 sigma.
random, clusters = np.random.RandomState(42), []
while len(clusters) < 2000:
    atoms = Atoms(numbers=[1] * 4, positions=random.randn(4, 3) * 0.8)
    if len(neighbor_list("d", atoms, 0.8)) == 0:
        clusters.append(atoms)
energy = evaluate(LennardJones(), Graph.from_atoms(clusters, np.inf), forces=False).energy
graphs = [Graph.from_atoms(atoms, 3.5) for atoms in clusters]
first = Graph.batch(graphs[:3])
print(f"clusters: {len(clusters)}, energy range [{energy.min():.2f}, {energy.max():.2f}]")
print(f"batch of three: {first.n_atoms} atoms, {first.n_edges} edges, energies", *(f"{e:.4f}" for e in energy[:3]))

# Training on the first 80 %: nothing is chosen by the test set, and the model of the last step is kept.
n_train = int(0.8 * len(graphs))
mean, std = energy[:n_train].mean(), energy[:n_train].std(correction=0)
target, test = (energy - mean) / std, Graph.batch(graphs[n_train:])
torch.manual_seed(seed)
model = SimpleGNN()
optimizer = torch.optim.Adam(model.parameters(), lr=7e-3, betas=(0.9, 0.99))
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 7e-3, STEPS, pct_start=0.1, cycle_momentum=False)
curve, recent, order = [], [], torch.tensor([], dtype=torch.int64)
for step in range(1, STEPS + 1):
    if len(order) < BATCH:
        order = torch.randperm(n_train)
    picked, order = order[:BATCH], order[BATCH:]
    guess = evaluate(model, Graph.batch([graphs[i] for i in picked]), forces=False, create_graph=True).energy
    # Squared error, but linear beyond 0.1: the few clusters on the repulsive wall would shake the training.
    loss = torch.nn.functional.smooth_l1_loss(guess, target[picked], beta=0.1)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    recent.append((guess - target[picked]).square().mean().item())
    if step % (n_train // BATCH) == 0:
        error = evaluate(model, test, forces=False).energy - target[n_train:]
        curve.append((np.mean(recent), error.square().mean()))
        recent = []

truth, guess = energy[n_train:].numpy(), (evaluate(model, test, forces=False).energy * std + mean).numpy()
error = guess - truth
mae, r2 = np.abs(error).mean(), 1 - np.square(error).sum() / np.square(truth - truth.mean()).sum()
save(model, folder / "lj_clusters.safetensors", {"mean": float(mean), "std": float(std), "seed": seed})
write(folder / "test_clusters.xyz", clusters[n_train:])
print(f"parameters: {sum(p.numel() for p in model.parameters())}")
print(f"R2: {r2:.4f}")
print(f"MAE: {mae:.4f} epsilon")
fig, (parity, histogram, training) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
parity.scatter(truth, guess, s=10, alpha=0.5)
parity.axline((0, 0), slope=1, color="red", ls="--")
parity.set(title=f"Parity, R2 = {r2:.4f}", xlabel="true energy (epsilon)", ylabel="predicted energy (epsilon)")
histogram.hist(error, bins=40, edgecolor="black")
histogram.set(title=f"Errors, MAE = {mae:.4f} epsilon", xlabel="error (epsilon)", ylabel="clusters")
training.semilogy(curve, label=["training", "test"])
training.set(title="Training curve", xlabel="epoch", ylabel="mean squared error (normalised)")
training.legend()
fig.savefig(folder / "lj_clusters.png", dpi=120)
