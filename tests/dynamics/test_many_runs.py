"""Runs of many systems in a folder: killed, interrupted, on a full disk; they go on as if they never had stopped."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from moving_systems import cluster, mixed

import mdgnn
from mdgnn import MDGNNCalculator, SchNet
from mdgnn.dynamics import (
    NVE,
    InterruptedRunError,
    InUseError,
    Langevin,
    Reporter,
    RunError,
    checkpoint,
    restart,
    restart_many,
    run_folder,
    simulate_many,
)

SETTINGS = {"steps": 40, "interval": 4, "checkpoint_interval": 10}
NAMES = ("trajectory.xyz", "log.csv", "final.xyz")


def files_of(folder):
    return {path: (folder / path).read_bytes() for k in range(6) for path in (f"{k}/{name}" for name in NAMES)}


def steps_of(folder):
    return [checkpoint.load(Path(folder, str(k), "checkpoint.npz")).step for k in range(6)]


@pytest.fixture
def whole():
    """Files of a run that nothing has stopped."""
    simulate_many(mixed(), "lj", Langevin(0.3), folder="whole", **SETTINGS)
    return files_of(Path("whole"))


KILLED = """
import itertools, os, signal, sys
sys.path.insert(0, {here!r})
from moving_systems import mixed
from mdgnn.dynamics import Langevin, checkpoint, simulate_many

save, calls = checkpoint.save, itertools.count()

def save_or_die(*arguments):
    if next(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    save(*arguments)

checkpoint.save = save_or_die
simulate_many(mixed(), "lj", Langevin(0.3), folder="part", **{settings!r})
"""


def kill_at(call):
    """Of a run, during the checkpoint of this number."""
    script = KILLED.format(here=str(Path(__file__).parent), call=call, settings=SETTINGS)
    assert subprocess.run([sys.executable, "-c", script], timeout=300).returncode == -signal.SIGKILL


def test_after_a_kill_all_go_on_as_if_it_never_had_been(whole):
    kill_at(6 + 6 + 2)
    assert steps_of("part") == [20, 20, 10, 10, 10, 10]
    summary = restart_many("part")
    assert files_of(Path("part")) == whole and steps_of("part") == [40] * 6
    assert summary["steps"] == 40 and summary["n_structures"] == 6 and not summary["errors"]
    ends = [json.loads(Path(name, "summary.json").read_text()) for name in ("part", "whole")]
    assert ends[0].pop("wall_time_s") == summary["wall_time_s"] != ends[1].pop("wall_time_s") and ends[0] == ends[1]


def test_one_that_had_not_begun_is_named():
    kill_at(3)
    with pytest.raises(RunError, match=r"system 3: it had not begun when the run in part ended.*begin again"):
        restart_many("part")
    assert simulate_many(mixed(), "lj", folder="part", force=True, steps=2)["steps"] == 2


def test_after_a_full_disk_all_go_on_as_if_it_never_had_been(whole, monkeypatch):
    calls, write = itertools.count(), run_folder.Records._append

    def fills_the_disk(self, which, data):
        if next(calls) == 6 + 12 + 12 * 4 + 3:  # headers, first records, four records each, and some
            with self.paths[which].open("ab") as file:
                file.write(data[:20])
            raise RunError(f"cannot write {self.paths[which]}: {os.strerror(errno.ENOSPC)}")
        write(self, which, data)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.Records, "_append", fills_the_disk)
        with pytest.raises(RunError, match=r"cannot write part/1/log.csv: No space left on device"):
            simulate_many(mixed(), "lj", Langevin(0.3), folder="part", **SETTINGS)
    assert not Path("part/summary.json").exists()
    restart_many("part")
    assert files_of(Path("part")) == whole


class At20(Reporter):
    """Does something after 20 steps or more, once."""

    def __init__(self, action):
        self.action = action

    @contextmanager
    def progress(self, label, total):
        def show(step, text):
            if step >= 20 and self.action:
                action, self.action = self.action, None
                action()

        yield show


def interrupted(**options):
    reporter = At20(lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(InterruptedRunError, match=r"stopped after step \d+ of 40; go on: ") as error:
        simulate_many(mixed(), options.get("model", "lj"), Langevin(0.3), folder="part", **SETTINGS, reporter=reporter)
    assert error.value.signum == signal.SIGINT
    return str(error.value).partition("; go on: ")[2]


@pytest.mark.parametrize("given", ["lj", "calculator"])
def test_after_ctrl_c_all_go_on_by_what_is_said(whole, given):
    calculator = MDGNNCalculator("lj")
    advice = interrupted(model="lj" if given == "lj" else calculator)
    assert 20 <= min(steps_of("part")) < 40
    if given == "lj":
        assert advice == "mdgnn md --restart part"
        restart_many("part")
    else:
        with pytest.raises(ValueError, match="expected the calculator of this run, MDGNNCalculator"):
            restart_many("part")
        eval(advice.replace("calculator=...", "calculator=calculator"), {"mdgnn": mdgnn, "calculator": calculator})
    assert files_of(Path("part")) == whole


def test_systems_that_went_on_alone_wait_for_the_others(whole):
    interrupted()
    restart("part/2", steps=30)
    restart("part/4")
    assert steps_of("part")[2] == 30 and steps_of("part")[4] == 40
    restart_many("part", steps=40)
    assert files_of(Path("part")) == whole
    restart_many("part")
    assert files_of(Path("part")) == whole
    with pytest.raises(RunError, match="system 0: the run has done 40 steps already, more than the 30 asked for"):
        restart_many("part", steps=30)


def test_no_system_goes_on_alone_while_all_do_nor_all_while_one_does():
    def alone():
        with pytest.raises(InUseError, match=r"the folder \S*part is in use by process \d+ .*; try again"):
            restart("part/1", steps=60)

    def all_of_them():
        with pytest.raises(InUseError, match=r"the folder part/1 is in use by process \d+"):
            restart_many("part", steps=60)
        with pytest.raises(InUseError, match=r"the folder part/1 is in use by process \d+"):
            simulate_many(mixed(), "lj", folder="part", force=True)

    simulate_many(mixed(), "lj", NVE(0.3), folder="part", **SETTINGS, reporter=At20(alone))
    restart("part/1", steps=60, reporter=At20(all_of_them))
    assert steps_of("part") == [40, 60, 40, 40, 40, 40]


def test_what_is_said_of_folders_that_cannot_go_on():
    simulate_many([cluster(7), cluster(3)], "lj", folder="part", steps=4, checkpoint_interval=2)
    with pytest.raises(RunError, match="part holds a run of many systems, which restart_many continues"):
        restart("part")
    with pytest.raises(RunError, match="there is no run of many systems in part/0"):
        restart_many("part/0")
    with pytest.raises(RunError, match="there is no folder none"):
        restart_many("none")
    with pytest.raises(RunError, match="system 0: dtype is float32 in the run to continue, not float64"):
        restart_many("part", expected={"dtype": "float64"})
    mdgnn.save(SchNet(elements="any", units="lj", cutoff=2.5), "other.safetensors")
    with pytest.raises(RunError, match=r"system 0: the content of model .* is not that of the run"):
        restart_many("part", model="other.safetensors")
    Path("part/1/checkpoint.npz").write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match="system 1: part/1/checkpoint.npz is not a complete checkpoint"):
        restart_many("part")
    Path("part/systems.json").write_text("{")
    with pytest.raises(RunError, match=r"part/systems.json is damaged"):
        restart_many("part")


def test_one_that_fails_fails_again_and_the_others_go_on():
    structures = [cluster(13, 1), cluster(13, 2)]
    momenta, to = structures[1].get_momenta(), structures[1].positions
    momenta[0] = 200 * (to[1] - to[0]) / np.linalg.norm(to[1] - to[0])
    structures[1].set_momenta(momenta)
    calculator = MDGNNCalculator("lj", too_close="raise")
    settings = {"timestep": 0.001, "interval": 1, "checkpoint_interval": 1}
    summary = simulate_many(structures, calculator, folder="whole", steps=20, **settings)
    assert list(summary["errors"]) == ["1"]
    simulate_many(structures, calculator, folder="part", steps=1, **settings)
    again = restart_many("part", steps=20, calculator=calculator)
    assert again["errors"] == summary["errors"]
    for name in ("0/trajectory.xyz", "0/log.csv", "0/final.xyz", "1/trajectory.xyz", "1/log.csv"):
        assert Path("part", name).read_bytes() == Path("whole", name).read_bytes()
