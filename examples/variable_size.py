"""Learn a property of molecules of 3 to 6 atoms with one network: python examples/variable_size.py [FOLDER] [SEED]"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from ase import Atoms

from mdgnn import Graph, SimpleGNN, evaluate, neighbor_list

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "figures")
folder.mkdir(parents=True, exist_ok=True)
seed = int(sys.argv[2]) if len(sys.argv) > 2 else 42
torch.set_num_threads(1)  # batches this small gain nothing from more
STEPS, BATCH = 1200, 32

# The data: three kinds of atoms; the property is composition times the mean distance to the nearest atom, plus noise.
random, molecules, values = np.random.RandomState(42), [], []
for _ in range(1500):
    size = random.randint(3, 7)
    kinds = random.randint(1, 4, size=size)
    atoms = Atoms(kinds, random.randn(size, 3).astype(np.float32) * 1.2)
    i, d = neighbor_list("id", atoms, np.inf)
    if d.min() < 0.5:
        continue
    nearest = np.mean([d[i == k].min() for k in range(size)])
    values.append(np.sqrt(kinds).mean() * nearest + 0.1 * random.randn())
    molecules.append(atoms)
graphs, value = [Graph.from_atoms(atoms, 3.5) for atoms in molecules], torch.tensor(values)
sizes = [graph.n_atoms for graph in graphs]
print(f"molecules: {len(graphs)} of {min(sizes)} to {max(sizes)} atoms, range [{value.min():.2f}, {value.max():.2f}]")
print(f"without any edge: {sum(graph.n_edges == 0 for graph in graphs)}")

# Training on the first 80 %; the property does not grow with the number of atoms, so the readout is a mean.
n_train = int(0.8 * len(graphs))
mean, std = value[:n_train].mean(), value[:n_train].std(correction=0)
target = (value - mean) / std
torch.manual_seed(seed)
model = SimpleGNN(n_elements=3, n_layers=3, readout="mean")
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS, pct_start=0.1, final_div_factor=1e4)
order = torch.tensor([], dtype=torch.int64)
for _ in range(STEPS):
    if len(order) < BATCH:
        order = torch.randperm(n_train)
    picked, order = order[:BATCH], order[BATCH:]
    guess = evaluate(model, Graph.batch([graphs[i] for i in picked]), forces=False, create_graph=True).energy
    loss = (guess - target[picked]).square().mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()

guess = evaluate(model, Graph.batch(graphs[n_train:]), forces=False).energy * std + mean
truth, guess, sizes = value[n_train:].numpy(), guess.numpy(), np.array(sizes[n_train:])
r2 = 1 - np.square(guess - truth).sum() / np.square(truth - truth.mean()).sum()
print(f"R2: {r2:.4f}")
fig, ax = plt.subplots(figsize=(6, 5), layout="constrained")
for size in range(3, 7):
    ax.scatter(truth[sizes == size], guess[sizes == size], s=15, alpha=0.6, label=f"{size} atoms")
ax.axline((truth.mean(), truth.mean()), slope=1, color="red", ls="--")
ax.set(title=f"Molecules of variable size, R2 = {r2:.3f}", xlabel="true property", ylabel="predicted property")
ax.legend()
fig.savefig(folder / "variable_size.png", dpi=120)
