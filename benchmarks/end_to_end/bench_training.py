"""Training on energies: four epochs of the lecture's tiny molecules, batches of 32

All of it is timed: graphs, batches, network, optimiser. "ours" is our loop, which joins all graphs before the first
epoch, selects batches of them, and has `mdgnn.training.adam`; "its loop" is our network in the lecture's loop, with the
lecture's batches and optimiser. Clusters: 1,600 of four atoms, three layers. Properties: those of 1,500 random
molecules of three to six atoms of three kinds, four layers.
"""

from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clusters import CUTOFF
from lecture_code import LectureGNN, train_epoch

from mdgnn import Graph, SimpleGNN, evaluate
from mdgnn.training.adam import Adam

N_ATOMS, N_EPOCHS = 4, 4


def edges_of(positions):
    """(2, E): all pairs within the lecture's cutoff, in both directions."""
    pairs = np.array(list(combinations(range(len(positions)), 2)))
    near = pairs[np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1) < CUTOFF]
    return np.concatenate([near, near[:, ::-1]]).T.copy()


def clusters(n_samples=1600):
    """The lecture's recipe: normally distributed positions, no pair below 0.8, labels normalised."""
    rng = np.random.default_rng(42)
    pairs = np.array(list(combinations(range(N_ATOMS), 2)))
    positions = 0.8 * rng.standard_normal((5 * n_samples, N_ATOMS, 3))
    r = np.linalg.norm(positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]], axis=2)
    keep = np.flatnonzero(r.min(axis=1) >= 0.8)[:n_samples]
    assert len(keep) == n_samples
    r6 = r[keep] ** -6
    energy = (4 * (r6**2 - r6)).sum(axis=1)
    energy = (energy - energy.mean()) / energy.std()
    data = []
    for k, e in zip(keep, energy, strict=True):
        data.append(
            {
                "z": np.ones(N_ATOMS, dtype=np.int64),
                "positions": positions[k].astype(np.float32),
                "edge_index": edges_of(positions[k]),
                "energy": e,
            }
        )
    return data


def molecules(n_samples=1500):
    """The lecture's set of properties: composition times the mean distance to the nearest atom, plus noise."""
    rng, data = np.random.default_rng(42), []
    for _ in range(n_samples):
        n = rng.integers(3, 7)
        z, positions = rng.integers(1, 4, size=n), (1.2 * rng.standard_normal((n, 3))).astype(np.float32)
        r = np.linalg.norm(positions[:, None] - positions, axis=2) + np.diag(np.full(n, np.inf))
        if r.min() < 0.5:
            continue
        energy = np.sqrt(z).mean() * r.min(axis=1).mean() + 0.1 * rng.standard_normal()
        data.append({"z": z, "positions": positions, "edge_index": edges_of(positions), "energy": energy})
    mean, std = (f([d["energy"] for d in data]) for f in (np.mean, np.std))
    return [d | {"energy": (d["energy"] - mean) / std} for d in data]


def joined(data):
    """All structures as one graph, and their energies."""
    n_atoms = [len(d["z"]) for d in data]
    first, sizes = np.cumsum([0, *n_atoms[:-1]]), [d["edge_index"].shape[1] for d in data]
    z, positions = (torch.from_numpy(np.concatenate([d[name] for d in data])) for name in ("z", "positions"))
    edge_index = np.concatenate([d["edge_index"] for d in data], axis=1) + np.repeat(first, sizes)
    structure = torch.from_numpy(np.repeat(np.arange(len(data)), n_atoms))
    graph = Graph.from_edge_index(z, positions, torch.from_numpy(edge_index), structure)
    return graph, torch.tensor([d["energy"] for d in data])


def own_epochs(model, optimizer, data, n_epochs, batch_size=32):
    """The mean loss of the last one."""
    graph, energies = joined(data)
    batches, losses = torch.arange(len(data)).split(batch_size), []
    for structures in batches * n_epochs:
        prediction = evaluate(model, graph.select(structures), forces=False, create_graph=True)
        loss = F.mse_loss(prediction.energy, energies.index_select(0, structures))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.mean(losses[-len(batches) :])


def its_epochs(model, optimizer, data, n_epochs):
    return [train_epoch(model, optimizer, data) for _ in range(n_epochs)][-1]


@pytest.mark.parametrize(
    ("task", "make", "n_elements", "n_layers"), [("clusters", clusters, 3, 3), ("properties", molecules, 4, 4)]
)
def test_training_epochs(timed, task, make, n_elements, n_layers):
    torch.manual_seed(0)
    kinds = {"ours": SimpleGNN, "its loop": SimpleGNN, "lecture": LectureGNN}
    models = {code: kind(n_elements, n_layers=n_layers) for code, kind in kinds.items()}
    for model in models.values():
        model.load_state_dict(models["ours"].state_dict())
    data = make()
    optimizers = {code: torch.optim.Adam(model.parameters(), lr=0.002) for code, model in models.items()}
    optimizers["ours"] = Adam(models["ours"].parameters(), lr=0.002)
    loops = {"ours": own_epochs, "its loop": its_epochs, "lecture": its_epochs}
    functions = {code: partial(loop, models[code], optimizers[code], data, N_EPOCHS) for code, loop in loops.items()}
    losses = {code: function() for code, function in functions.items()}
    assert all(abs(loss - losses["lecture"]) <= 1e-3 * losses["lecture"] for loss in losses.values()), losses
    timed(functions, task, sum(len(d["z"]) for d in data), sum(d["edge_index"].shape[1] for d in data))
