"""What a run does with its settings: its weights and its log are those of a loop of plain torch, written out here."""

import math

import pytest
import torch

pytest.importorskip("lightning")

from training_runs import small

import mdgnn
from mdgnn.data import Dataset, EdgeBatches, collate, read_frames
from mdgnn.training.folder import read_checkpoint, read_log
from mdgnn.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")

EPOCHS = 6
ADAM = {
    "optimizer": {"name": "adam", "lr": 0.02, "betas": [0.8, 0.95], "weight_decay": 0.1, "schedule": "cosine",
                  "warmup": 4, "clip": 0.2, "ema": 0.4},
    "loss": {"kind": "huber", "huber_delta": 0.05, "energy": 2.0, "forces": [[1, 0.5], [4, 5.0]]},
    "data": {"batch_size": 5},
}  # fmt: skip
ADAMW = {
    "optimizer": {"name": "adamw", "lr": 0.02, "weight_decay": 0.1, "amsgrad": False, "schedule": "constant",
                  "clip": 0.0, "ema": 0.0},
    "loss": {"kind": "mae", "energy": 1.0, "forces": 3.0},
    "data": {"batch_size": 16, "max_edges": 150},
}  # fmt: skip
PENALTIES = {
    "mae": lambda e: e.abs(),
    "huber": lambda e: torch.where(e.abs() < 0.05, e**2 / 2, 0.05 * (e.abs() - 0.025)),
}


def errors_of(model, sample):
    """Of energies per atom, and of components of forces."""
    graph, targets = sample
    prediction = mdgnn.evaluate(model, graph, create_graph=True)
    n_atoms = torch.bincount(graph.structure)
    return (prediction.energy - targets.energy) / n_atoms, (prediction.forces - targets.forces).ravel()


def rate(section, step, n_steps):
    if section["schedule"] == "constant":
        return section["lr"]
    if step < section["warmup"]:
        return section["lr"] * (step + 1) / section["warmup"]
    progress = (step - section["warmup"]) / (n_steps - section["warmup"])
    return section["lr"] * (1 + math.cos(math.pi * progress)) / 2


def by_hand(model, dataset, settings):
    """Weights, mean of weights, and rows of the log, of a run that validates on what it trains on."""
    section, loss = settings["optimizer"], settings["loss"]
    penalty, limits = PENALTIES[loss["kind"]], {"max_edges": 10**6, **settings["data"]}
    batches = EdgeBatches(dataset.n_edges, shuffle=True, seed=1, **limits)
    epochs = []
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        epochs.append(list(batches))
    n_steps = sum(map(len, epochs))
    parameters = [p for p in model.parameters() if p.requires_grad]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[section["name"]]
    options = {name: section[name] for name in ("betas", "weight_decay") if name in section}
    optimizer = kind(parameters, amsgrad=section.get("amsgrad", True), **options)
    mean, step, rows, norms = None, 0, [], []
    for epoch, frames in enumerate(epochs):
        of_forces = loss["forces"]
        if isinstance(of_forces, list):
            (a, low), (b, high) = of_forces
            of_forces = low + (high - low) * min(max((epoch - a) / (b - a), 0), 1)
        losses = []
        for batch in frames:
            lr = rate(section, step, n_steps)
            optimizer.param_groups[0]["lr"] = lr
            energies, forces = errors_of(model, collate([dataset[k] for k in batch]))
            value = loss["energy"] * penalty(energies).mean() + of_forces * penalty(forces).mean()
            optimizer.zero_grad()
            value.backward()
            if section["clip"]:
                norms.append(torch.nn.utils.clip_grad_norm_(parameters, section["clip"]).item())
            optimizer.step()
            losses.append(value.item())
            weights, d = {n: p.detach().clone() for n, p in model.named_parameters()}, (1 + step) / (10 + step)
            d = min(d, section["ema"]) if mean else 0.0
            mean = {n: d * mean[n] + (1 - d) * w for n, w in weights.items()} if mean else weights
            step += 1
        model.load_state_dict(mean, strict=False)
        energies, forces = errors_of(model, collate([dataset[k] for k in range(len(dataset))]))
        model.load_state_dict(weights, strict=False)
        last = loss["forces"] if not isinstance(loss["forces"], list) else loss["forces"][-1][1]
        valid = (loss["energy"] * penalty(energies).mean() + last * penalty(forces).mean()).item()
        rows.append({
            "step": step, "lr": lr, "train_loss": sum(losses) / len(losses), "valid_loss": valid,
            "energy_mae": energies.abs().mean().item(), "forces_rmse": forces.square().mean().sqrt().item(),
        })  # fmt: skip
    assert not section["clip"] or min(norms) < section["clip"] < max(norms), "it is met, at times"
    return weights, mean, rows


@pytest.mark.parametrize("settings", [ADAM, ADAMW], ids=["adam", "adamw"])
def test_a_run_is_the_loop_of_plain_torch(data, tmp_path, settings):
    lines = [f"{section}.{name}={value!r}" for section, values in settings.items() for name, value in values.items()]
    train(small(data, f"data.valid=['{data}']", f"run.epochs={EPOCHS}", *lines), tmp_path)
    model = mdgnn.load(tmp_path / "start.safetensors").train()
    dataset = Dataset(read_frames([data], units="lj"), model.cutoff)
    weights, mean, rows = by_hand(model, dataset, settings)
    log = read_log(tmp_path / "log.csv")
    assert len(log) == len(rows) == EPOCHS
    for row, expected in zip(log, rows, strict=True):
        assert {name: float(row[name]) for name in expected} == pytest.approx(expected, rel=1e-8), row["epoch"]
    state = read_checkpoint(tmp_path / "last.ckpt")["state_dict"]
    for prefix, tensors in (("model.", weights), ("averaged.module.", mean)):
        for name, tensor in tensors.items():
            torch.testing.assert_close(state[prefix + name], tensor, rtol=1e-7, atol=1e-9, msg=prefix + name)
