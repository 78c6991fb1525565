"""Training: one epoch of the lecture's 1,600 four-atom clusters, batches of 32

All of it is timed: graphs, batches, network, optimiser. "ours" joins all graphs once an epoch and selects batches of
them; "its loop" is our network in the lecture's loop, with the lecture's batches and optimiser.
"""

from functools import partial
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from clusters import CUTOFF
from lecture_code import LectureGNN, train_epoch

from mdgnn import Graph, SimpleGNN, evaluate

N_ATOMS = 4


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
        near = pairs[r[k] < CUTOFF]
        data.append(
            {
                "z": np.ones(N_ATOMS, dtype=np.int64),
                "positions": positions[k].astype(np.float32),
                "edge_index": np.concatenate([near, near[:, ::-1]]).T.copy(),
                "energy": e,
            }
        )
    return data


def joined(data):
    """All clusters as one graph, and their energies."""
    first = np.cumsum([0] + [len(d["z"]) for d in data])
    z, positions = (torch.from_numpy(np.concatenate([d[name] for d in data])) for name in ("z", "positions"))
    edge_index = np.concatenate([d["edge_index"] + n for d, n in zip(data, first, strict=False)], axis=1)
    structure = torch.from_numpy(np.repeat(np.arange(len(data)), np.diff(first)))
    graph = Graph.from_edge_index(z, positions, torch.from_numpy(edge_index), structure)
    return graph, torch.tensor([d["energy"] for d in data])


def own_epoch(model, optimizer, data, batch_size=32):
    graph, energies = joined(data)
    total = 0.0
    for structures in torch.arange(len(data)).split(batch_size):
        prediction = evaluate(model, graph.select(structures), forces=False, create_graph=True)
        loss = F.mse_loss(prediction.energy, energies[structures])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total * batch_size / len(data)


def test_training_epoch(timed):
    torch.manual_seed(0)
    models = {"ours": SimpleGNN(), "its loop": SimpleGNN(), "lecture": LectureGNN()}
    for model in models.values():
        model.load_state_dict(models["ours"].state_dict())
    data = clusters()
    optimizers = {code: torch.optim.Adam(model.parameters(), lr=0.002) for code, model in models.items()}
    optimizers["ours"] = torch.optim.Adam(models["ours"].parameters(), lr=0.002, fused=True)
    functions = {code: partial(train_epoch, models[code], optimizers[code], data) for code in ("its loop", "lecture")}
    functions["ours"] = partial(own_epoch, models["ours"], optimizers["ours"], data)
    losses = {code: function() for code, function in functions.items()}
    assert all(abs(loss - losses["lecture"]) <= 1e-3 * losses["lecture"] for loss in losses.values()), losses
    n_edges = sum(d["edge_index"].shape[1] for d in data)
    timed(functions, "epoch", N_ATOMS * len(data), n_edges)
