"""Training: one epoch of the lecture's 1,600 four-atom clusters, batches of 32, its loop and its batching"""

from functools import partial
from itertools import combinations

import numpy as np
import torch
from clusters import CUTOFF
from lecture_code import LectureGNN, collate_graphs, train_epoch

from mdgnn import SimpleGNN

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


def test_training_epoch(timed):
    torch.manual_seed(0)
    models = {"ours": SimpleGNN(), "lecture": LectureGNN()}
    models["lecture"].load_state_dict(models["ours"].state_dict())
    data = clusters()
    b = collate_graphs(data[:32])
    with torch.no_grad():
        ours, lecture = (m(b["z"], b["positions"], b["edge_index"], b["batch"]) for m in models.values())
    assert (ours - lecture).abs().max() <= 1e-5 * lecture.abs().max()
    optimizers = {code: torch.optim.Adam(model.parameters(), lr=0.002) for code, model in models.items()}
    functions = {code: partial(train_epoch, models[code], optimizers[code], data) for code in models}
    n_edges = sum(d["edge_index"].shape[1] for d in data)
    timed(functions, "epoch", N_ATOMS * len(data), n_edges)
