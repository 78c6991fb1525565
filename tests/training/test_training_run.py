"""Runs of training from beginning to end: what they leave, how they go on, what they refuse."""

import json
import os
import pickle
import resource
import signal
import threading

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from training_runs import clusters, crystals, file_of, labelled, small

import mdgnn
from mdgnn.data import Dataset, read_frames
from mdgnn.model_header import read_header
from mdgnn.training import folder as files
from mdgnn.training.callbacks import InterruptedTrainingError, Watch, random_state, set_random_state
from mdgnn.training.config import ConfigError
from mdgnn.training.folder import RunError, read_checkpoint, read_log
from mdgnn.training.losses import Sums
from mdgnn.training.run import resume, train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data):
    """A run of three epochs of three steps."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(small(data), folder)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_precision_of_products_is_that_of_the_run_alone(data, tmp_path, monkeypatch):
    seen = []

    def watched(self, *args, **kwargs):
        seen.append(torch.get_float32_matmul_precision())
        raise RunError("seen")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", watched)
    for name in ("high", "highest"):
        with pytest.raises(RunError, match="seen"):
            train(small(data, f"run.matmul={name}"), tmp_path / name)
        assert torch.get_float32_matmul_precision() == "highest"
    assert seen == ["high", "highest"]


def test_what_a_run_leaves(finished, data):
    folder, summary = finished
    names = {"config.json", "start.safetensors", "log.csv", "last.ckpt", "best.ckpt", "model.safetensors",
             "summary.json", "learning.png", "dimers.png", "parity_valid.png"}  # fmt: skip
    assert names <= set(content(folder))
    rows = read_log(folder / "log.csv")
    assert [(r["epoch"], r["step"]) for r in rows] == [("1", "3"), ("2", "6"), ("3", "9")]
    assert summary["steps"] == 9 and summary["structures"] == {"train": 12, "valid": 4}

    best = min(rows, key=lambda r: float(r["valid_loss"]))
    assert summary["best_epoch"] == int(best["epoch"])
    assert summary["errors"]["valid"]["forces_mae"] == pytest.approx(float(best["forces_mae"]), rel=1e-12)
    header = read_header(folder / "model.safetensors")
    record = header["training"]
    assert record["config"] == json.loads((folder / "config.json").read_text())
    assert record["data"][data] and record["errors"] == summary["errors"]
    model = mdgnn.load(folder / "model.safetensors")
    assert model.config.elements == (18,) and model.config.scale[0] == record["found"]["rms_force"]
    start, state = (
        mdgnn.load(folder / "start.safetensors").state_dict(),
        read_checkpoint(folder / "best.ckpt")["state_dict"],
    )
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f"averaged.module.{name}"])
    assert any(not torch.equal(tensor, start[name]) for name, tensor in model.state_dict().items())


def test_a_finished_run_is_left_alone(finished):
    folder, summary = finished
    before = content(folder)
    assert resume(folder) == json.loads(json.dumps(summary))
    assert content(folder) == before


def test_a_run_that_is_made_longer_is_the_longer_run(finished, data, tmp_path):
    folder = tmp_path / "longer"
    folder.mkdir()
    for name, data_of_file in content(finished[0]).items():
        (folder / name).write_bytes(data_of_file)
    resume(folder, ["run.epochs=5"])
    train(small(data, "run.epochs=5"), tmp_path / "whole")
    for name in ("log.csv", "summary.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with pytest.raises(ConfigError, match="only run.epochs may be raised"):
        resume(folder, ["run.epochs=4"])
    with pytest.raises(ConfigError, match="only run.epochs may be raised"):
        resume(folder, ["loss.forces=4"])


def test_the_course_of_a_run_that_ends_with_it_cannot_be_made_longer(data, tmp_path):
    train(small(data, "optimizer.schedule=cosine", "run.epochs=1"), tmp_path)
    with pytest.raises(ConfigError, match="the cosine schedule ends with the run"):
        resume(tmp_path, ["run.epochs=2"])


def test_a_run_with_a_validation_of_its_own_at_the_end_cannot_be_made_longer(data, tmp_path):
    """Which counts for the plateau and the best model, and is not there in the longer run."""
    train(small(data, "run.validate_epochs=2"), tmp_path)
    with pytest.raises(ConfigError, match="epoch 3 has been validated as the last one, which run.validate_epochs = 2"):
        resume(tmp_path, ["run.epochs=4"])


def test_checkpoints_within_an_epoch(data, tmp_path, monkeypatch):
    before = Watch._add_loss

    def fail(watch, trainer, outputs, batch_idx):
        if batch_idx == 2:
            raise RunError("enough")
        before(watch, trainer, outputs, batch_idx)

    monkeypatch.setattr(Watch, "_add_loss", fail)
    for steps, there in ((0, None), (1, 2), (2, 2), (3, None)):
        with pytest.raises(RunError, match="enough"):
            train(small(data, f"run.checkpoint_steps={steps}"), tmp_path / str(steps))
        path = tmp_path / str(steps) / "last.ckpt"
        assert (read_checkpoint(path)["global_step"] if path.exists() else None) == there


def test_the_model_is_that_of_the_best_epoch(data, tmp_path, monkeypatch):
    losses = iter([3.0, 1.0, 2.0])
    monkeypatch.setattr(Sums, "loss", lambda *_: next(losses))
    assert train(small(data), tmp_path)["best_epoch"] == 2
    best, last = (read_checkpoint(tmp_path / f"{name}.ckpt") for name in ("best", "last"))
    assert (best["global_step"], last["global_step"]) == (6, 9)
    for name, tensor in mdgnn.load(tmp_path / "model.safetensors").named_parameters():
        assert torch.equal(tensor, best["state_dict"][f"averaged.module.{name}"])
        assert not tensor.requires_grad or not torch.equal(tensor, last["state_dict"][f"averaged.module.{name}"])


def test_processes_share_out_batches_and_validation(data, tmp_path, monkeypatch):
    """Each of them doing all of it comes to the same model, in twice the time."""
    batches, tables = [], []

    def watched(trainer, module, stream, **options):
        (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, Watch))
        batches.append(list(stream.batches))
        tables.append(watch.validate(module).table)
        raise RunError("seen")

    monkeypatch.setattr("lightning.pytorch.Trainer.fit", watched)
    for rank, n_processes in ((0, 1), (0, 2), (1, 2)):
        for name, value in (("RANK", rank), ("WORLD_SIZE", n_processes), ("LOCAL_WORLD_SIZE", n_processes)):
            monkeypatch.setenv(name, str(value))
        with pytest.raises(RunError, match="seen"):
            train(small(data), tmp_path / f"{rank}of{n_processes}")
    alone, first, second = batches
    assert [sorted(batch) for batch in alone] == [sorted(a + b) for a, b in zip(first, second, strict=True)]
    assert len(alone) == 3 and all(first) and all(second)
    torch.testing.assert_close(tables[1] + tables[2], tables[0], rtol=1e-13, atol=0)
    assert [table[0, 0].item() for table in tables] == [4, 2, 2], "numbers of energies"


def test_the_least_distance_is_that_of_the_part_that_trains(data, tmp_path):
    frames = clusters(3, seed=1)
    frames[0].positions *= 0.8
    closer = file_of(tmp_path / "closer.xyz", [labelled(atoms) for atoms in frames])
    train(small(data, f"data.valid={closer}", "run.epochs=1"), tmp_path / "run")
    ours, theirs = (Dataset(read_frames([path], units="lj"), 2.5).shortest for path in (data, closer))
    assert read_header(tmp_path / "run" / "model.safetensors")["least_distance"] == ours > theirs


class Boom:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_with_code_in_it_is_refused(finished, tmp_path):
    folder, mark = tmp_path / "run", tmp_path / "mark"
    folder.mkdir()
    for name, data_of_file in content(finished[0]).items():
        (folder / name).write_bytes(data_of_file)
    (folder / "summary.json").unlink()
    checkpoint = read_checkpoint(folder / "last.ckpt")
    torch.save({**checkpoint, "hostile": Boom(mark)}, folder / "last.ckpt")
    with pytest.raises(RunError, match="last.ckpt is damaged, or holds more than tensors, numbers and text"):
        resume(folder)
    (folder / "last.ckpt").write_bytes(pickle.dumps(Boom(mark)))
    with pytest.raises(RunError, match="is refused"):
        resume(folder)
    (folder / "last.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(RunError, match="is damaged"):
        resume(folder)
    assert not mark.exists()
    for key in ("loops", "state_dict", "optimizer_states", "callbacks"):
        torch.save({k: v for k, v in checkpoint.items() if k != key}, folder / "last.ckpt")
        with pytest.raises(RunError, match=f"no checkpoint of a run of mdgnn train: it has no {key}"):
            resume(folder)
    for other in ([1], {}, {**checkpoint, "callbacks": {}}):  # the last went on with any data
        torch.save(other, folder / "last.ckpt")
        with pytest.raises(RunError, match="no checkpoint of a run of mdgnn train"):
            resume(folder)
    (folder / "last.ckpt").write_bytes(pickle.dumps([1], 2).replace(b"K", b"h"))
    with pytest.raises(RunError, match="is damaged"):
        resume(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(RunError, match="config.json is broken: expected an object of JSON, got \\[1\\]"):
        resume(folder)


def test_a_checkpoint_of_other_data_is_refused(data, tmp_path):
    other = file_of(tmp_path / "other.xyz", clusters(12, seed=1))
    train(small(other), tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    file_of(tmp_path / "other.xyz", clusters(12, seed=2))
    with pytest.raises(RunError, match="a file of the data has changed"):
        resume(tmp_path / "run")


def test_interrupted_by_a_signal_and_continued(finished, data, tmp_path, monkeypatch):
    count, before, handler = 0, Watch._add_loss, signal.getsignal(signal.SIGINT)

    def then_interrupt(*arguments):
        nonlocal count
        count += 1
        if count == 4:
            signal.raise_signal(signal.SIGINT)
        return before(*arguments)

    monkeypatch.setattr(Watch, "_add_loss", then_interrupt)
    with pytest.raises(InterruptedTrainingError, match=r"after step 4; mdgnn train --resume .* goes on") as caught:
        train(small(data), tmp_path)
    assert caught.value.signum == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is handler, "as it was before"
    resume(tmp_path)
    for name in ("log.csv", "summary.json", "model.safetensors"):
        assert (tmp_path / name).read_bytes() == (finished[0] / name).read_bytes(), name


def test_folders_that_are_not_free_or_hold_no_run(finished, data, tmp_path):
    (tmp_path / "notes.txt").write_text("precious")
    (tmp_path / "log.csv").write_text("old")
    with pytest.raises(
        RunError, match="not empty; choose .*--output, or folder=.*, or force=True.* mdgnn.training.run.resume"
    ):
        train(small(data), tmp_path)
    with pytest.raises(FileNotFoundError, match="none.xyz"):
        train(small("none.xyz"), tmp_path, force=True)
    assert (tmp_path / "log.csv").read_text() == "old", "nothing goes before the data have been read"
    with pytest.raises(RunError, match="is a file; choose another .--output, or folder=."):
        train(small(data), tmp_path / "notes.txt")
    with pytest.raises(RunError, match="holds no run of mdgnn train"):
        resume(tmp_path)
    train(small(data, "run.epochs=1"), tmp_path, force=True)
    assert (tmp_path / "notes.txt").read_text() == "precious" and len(read_log(tmp_path / "log.csv")) == 1
    with pytest.raises(RunError, match="cannot make the folder .*: "):
        train(small(data), "/proc/nowhere/run")


def test_a_full_disk_is_a_sentence_and_the_run_can_go_on(finished, data, tmp_path):
    """Files may not grow beyond what the log and the first model need, but a checkpoint does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    largest = (finished[0] / "start.safetensors").stat().st_size
    assert largest < (finished[0] / "last.ckpt").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, limits[1]))
    try:
        with pytest.raises(RunError, match=r"cannot write .*last.ckpt: File too large"):
            train(small(data), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not list(tmp_path.glob("*.part"))
    resume(tmp_path)
    assert (tmp_path / "log.csv").read_bytes() == (finished[0] / "log.csv").read_bytes()


def test_a_few_structures_are_learnt_by_heart(tmp_path):
    data = file_of(tmp_path / "four.xyz", clusters(4))
    settings = (f"data.valid={data}", "model.node_dim=16", "model.edge_dim=12", "model.basis=[0.7,2.5,0.2]",
                "run.epochs=100", "run.validate_epochs=60", "optimizer.lr=0.02", "optimizer.schedule=onecycle",
                "optimizer.ema=0.9")  # fmt: skip
    train(small(data, *settings), tmp_path / "run")
    rows = read_log(tmp_path / "run" / "log.csv")
    assert [r["epoch"] for r in rows] == ["60", "100"], "the last epoch is validated in any case"
    first = train(small(data, f"data.valid={data}", "run.epochs=1"), tmp_path / "first")
    assert float(rows[-1]["forces_rmse"]) < 0.3 * first["errors"]["valid"]["forces_rmse"]


def test_stress_is_learnt_too(tmp_path):
    data = file_of(tmp_path / "crystals.xyz", crystals(4))
    settings = (f"data.valid={data}", "loss.stress=10", "loss.forces=1", "run.epochs=60", "optimizer.lr=0.02",
                "optimizer.schedule=onecycle", "run.validate_epochs=60", "optimizer.ema=0.9")  # fmt: skip
    train(small(data, *settings, architecture="PaiNN"), tmp_path / "run")
    first = train(small(data, f"data.valid={data}", "run.epochs=1", architecture="PaiNN"), tmp_path / "first")
    (row,) = read_log(tmp_path / "run" / "log.csv")
    assert float(row["stress_rmse"]) < 0.3 * first["errors"]["valid"]["stress_rmse"]


@pytest.mark.parametrize(("min_lr", "last"), [(0, 5e-31), (7e-31, 7e-31), (1, 1e-30)])
def test_early_stopping_and_the_plateau(data, tmp_path, min_lr, last):
    """A rate at which nothing moves: every validation is as good as the first, and none is better."""
    plateau = ("optimizer.lr=1e-30", f"optimizer.min_lr={min_lr}", "optimizer.patience=1")
    settings = (*plateau, "run.stop_after=4", "run.epochs=50")
    summary = train(small(data, *settings), tmp_path)
    rows = read_log(tmp_path / "log.csv")
    assert len(rows) == 5 and summary["best_epoch"] == 1 and summary["steps"] == 15
    assert [float(r["lr"]) for r in rows] == [1e-30, 1e-30, 1e-30, last, last]
    (tmp_path / "summary.json").unlink()
    assert resume(tmp_path)["steps"] == 15, "and it stays stopped"


def test_a_loss_that_is_not_finite_ends_the_run(data, tmp_path):
    with pytest.raises(RunError, match=r"the loss is (nan|inf) in step 2: a smaller \[optimizer\] lr"):
        train(small(data, "optimizer.lr=1e200", "optimizer.clip=0"), tmp_path)


def test_random_state_comes_back_through_a_checkpoint(tmp_path):
    import random

    torch.save(random_state(), tmp_path / "state")
    first = torch.rand(3), np.random.rand(3), random.random()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    again = torch.rand(3), np.random.rand(3), random.random()
    assert torch.equal(first[0], again[0]) and np.array_equal(first[1], again[1]) and first[2] == again[2]


def test_training_outside_of_the_main_thread(data, tmp_path):
    """Where Python allows no handlers of signals."""
    thread = threading.Thread(target=lambda: train(small(data, "run.epochs=1"), tmp_path))
    thread.start()
    thread.join()
    assert (tmp_path / files.SUMMARY).exists()


def test_threads_and_random_numbers_are_left_to_the_caller(data, tmp_path):
    before = torch.get_num_threads(), random_state()
    train(small(data, "run.threads=1", "run.epochs=1"), tmp_path / "run")
    after = torch.get_num_threads(), random_state()
    assert after[0] == before[0] and after[1]["python"] == before[1]["python"]
    assert torch.equal(after[1]["torch"], before[1]["torch"])
    assert all(
        torch.equal(a, b) if i == 1 else a == b
        for i, (a, b) in enumerate(zip(after[1]["numpy"], before[1]["numpy"], strict=True))
    )
