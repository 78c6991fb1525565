"""Runs of training where something is amiss or unusual, and what they tell on the way."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from training_runs import clusters, file_of, small

from mdgnn.model_header import read_header
from mdgnn.training import callbacks as watch_module
from mdgnn.training.callbacks import Watch
from mdgnn.training.folder import RunError, read_checkpoint, read_log
from mdgnn.training.losses import Sums
from mdgnn.training.module import Training
from mdgnn.training.run import resume, train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


def test_what_is_left_out_and_what_leaks_is_told(data, tmp_path, capsys):
    """bad = "skip" left structures out without a word; duplicates were looked for in one set alone."""
    good, broken = clusters(2, seed=7), clusters(1, seed=8)
    broken[0].calc.results["energy"] = np.nan
    test = file_of(tmp_path / "test.xyz", [*good, clusters(16)[15], *broken])
    settings = (f"data.test={test}", "run.epochs=1")
    with pytest.raises(ValueError, match=r"test.xyz, frame 2: a duplicate of .*clusters.xyz, frame 15"):
        train(small(data, *settings), tmp_path / "run")
    summary = train(small(data, *settings, "data.bad=skip", f"data.valid={data}"), tmp_path / "run")
    assert summary["structures"] == {"train": 16, "valid": 16, "test": 2}
    reasons = ["frame 2: a duplicate of", "frame 3: the energy is not finite"]
    record = read_header(tmp_path / "run" / "model.safetensors")["training"]
    assert record["skipped"] == summary["skipped"] and len(reasons) == len(summary["skipped"])
    assert all(reason in line for reason, line in zip(reasons, summary["skipped"], strict=True))
    told = capsys.readouterr().err.splitlines()
    assert [line for line in told if line.startswith(f"mdgnn: 2 bad structures left out: {test}, frame 2")]
    assert "mdgnn: 16 structures of the validation set are in the training set too" in told


@pytest.mark.parametrize("what", ["gradient", "validation"])
def test_what_is_not_finite_stays_out_of_the_checkpoint(data, tmp_path, monkeypatch, what):
    """Gradients that were not, of a loss that was, went into the last checkpoint, and with them all that followed."""
    sound, losses = Sums.loss, iter(["sound", "broken"])

    def spoil(module, optimizer):
        if module.trainer.global_step == 4:
            next(p for p in module.parameters() if p.grad is not None).grad.view(-1)[0] = np.nan

    with monkeypatch.context() as patch:
        if what == "gradient":
            patch.setattr(Training, "on_before_optimizer_step", spoil)
            words = "the gradient of the loss is not finite in step 5: a smaller"
        else:
            patch.setattr(Sums, "loss", lambda *a: sound(*a) if next(losses) == "sound" else np.nan)
            words = "the loss of the validation set is nan after step 6: a smaller"
        with pytest.raises(RunError, match=words):
            train(small(data), tmp_path / "run")
    state = read_checkpoint(tmp_path / "run" / "last.ckpt")["state_dict"]
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    resume(tmp_path / "run")
    train(small(data), tmp_path / "whole")
    assert (tmp_path / "run" / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()


def test_a_signal_is_told_to_all_processes_where_the_model_is(monkeypatch):
    """NCCL takes no tensor of the CPU."""
    monkeypatch.setattr(watch_module, "world_size", lambda: 2)
    devices = []
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: devices.append(tensor.device.type) or 0)
    watch = Watch(None, None, None, None, "")
    watch._received(SimpleNamespace(strategy=strategy), SimpleNamespace(device=torch.device("meta")))
    assert devices == ["meta"]


def test_a_run_within_a_job_of_several_tasks(data, tmp_path, monkeypatch):
    """SLURM's variables made Lightning expect its processes."""
    for name, value in {"NTASKS": "4", "JOB_NAME": "train", "JOB_ID": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert train(small(data, "run.epochs=1"), tmp_path)["steps"] == 3


def test_lines_where_there_is_no_terminal(data, tmp_path, capsys):
    """Nothing was printed until the end."""
    train(small(data), tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    rows = read_log(tmp_path / "log.csv")
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    last = {name: f"{float(rows[-1][column]):.3g}" for name, column in
            (("train", "train_loss"), ("valid", "valid_loss"), ("energy", "energy_mae"))}  # fmt: skip
    assert all(f"{name} {figure}" in lines[-1] for name, figure in last.items())
