"""Runs that are killed and go on end with the bits of one that is not; and of runs by several processes."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lightning")

import torch
from training_runs import clusters, file_of

from mdgnn.training import folder as files

HERE = Path(__file__).parent
CONFIG = """
[model]
architecture = "{architecture}"
cutoff = 2.5
units = "lj"
envelope = "polynomial"
n_knots = 64
{sizes}
[data]
train = "{data}"
valid = 0.25
batch_size = 4
[optimizer]
patience = 1
warmup = 5
[run]
epochs = {epochs}
threads = 1
checkpoint_steps = 2
device = "cpu"
[[property]]
name = "bonds"
kind = "extensive"
[[property]]
name = "distance"
kind = "intensive"
[[property]]
name = "near"
kind = "atomic"
weight = [[0, 0], [1, 2]]
"""
PAINN = {"architecture": "PaiNN", "sizes": "n_features = 6\nn_interactions = 2\nn_basis = 5"}
SIMPLE = {"architecture": "SimpleGNN", "sizes": "node_dim = 6\nedge_dim = 5\nn_layers = 2"}


def data_of(tmp_path, n):
    """Clusters with other labels than energies, of which some are missing."""
    frames = clusters(n)
    for k, atoms in enumerate(frames):
        r = atoms.get_all_distances()
        near = (r < 1.4).sum(1) - 1.0
        atoms.info.update({"distance": r.mean()} if k % 3 else {"bonds": near.sum() / 2})
        atoms.set_array("near", np.where(np.arange(len(atoms)) % 2, near, np.nan) if k % 2 else near)
    return file_of(tmp_path / "data.xyz", frames)


def killed(tmp_path, epochs, *arguments, **options):
    data = data_of(tmp_path, 16)
    (tmp_path / "config.toml").write_text(CONFIG.format(data=data, epochs=epochs, **options))
    command = [
        sys.executable,
        HERE.parent / "support" / "kill_and_resume.py",
        tmp_path / "config.toml",
        tmp_path / "runs",
        *arguments,
    ]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_killed_at_random_moments(tmp_path):
    lines = killed(tmp_path, 30, 5, 0, **PAINN)
    assert lines.count("equal") == 1 and not [line for line in lines if line.startswith("differs")]
    assert sum(line.startswith("killed") for line in lines) >= 4


def test_killed_before_every_write_of_a_file(tmp_path):
    """Configuration, first model, log, checkpoints within epochs and at their ends, best one, model, summary."""
    lines = killed(tmp_path, 2, 15, 0, "writes", **SIMPLE)
    assert not [line for line in lines if line.startswith("differs")] and lines.count("equal") == 15
    assert sum(line.startswith("killed") for line in lines) >= 12
    assert lines[-2].startswith("finished"), "there were no more writes"


TOGETHER = """
import sys
from mdgnn.training.config import read
from mdgnn.training.run import train
train(read(sys.argv[1]), sys.argv[2])
"""


def test_two_processes_train_as_one(tmp_path):
    data = data_of(tmp_path, 15)
    sizes = PAINN["sizes"] + '\ndtype = "float64"'
    text = CONFIG.format(data=data, epochs=2, architecture="PaiNN", sizes=sizes)
    (tmp_path / "config.toml").write_text(text)
    (tmp_path / "go.py").write_text(TOGETHER)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, launcher in (("one", []), ("two", torchrun)):
        command = [sys.executable, *launcher, tmp_path / "go.py", tmp_path / "config.toml", tmp_path / name]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
    one, two = (files.read_log(tmp_path / name / "log.csv") for name in ("one", "two"))
    assert len(one) == len(two) == 2 and all(one[1][f"{name}_mae"] for name in ("bonds", "distance", "near"))
    for a, b in zip(one, two, strict=True):
        for column in a:
            assert a[column] == b[column] == "" or float(b[column]) == pytest.approx(float(a[column]), rel=1e-9)
    states = [files.read_checkpoint(tmp_path / name / "last.ckpt")["state_dict"] for name in ("one", "two")]
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-7, atol=1e-9, msg=name)
