"""Two jobs, one folder: the second is refused at its start, in one sentence, and nothing of the first is lost."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import ase.io
import numpy as np
import pytest
from command_line import run as call

import mdgnn
from mdgnn._internal import folder_lock
from mdgnn._internal.folder_lock import NAME, InUseError, is_empty, lock_file, lock_folder

pytest.importorskip("lightning")

from training_runs import small

from mdgnn.cli import evaluate as cli_evaluate
from mdgnn.dynamics import lj_frames, relaxation, simulation
from mdgnn.training import folder as files
from mdgnn.training import outcome, plots, run
from mdgnn.training.folder import RunError

MAIN = [sys.executable, "-c", "from mdgnn.cli import main; main()"]
HOLDER = """
import sys
from pathlib import Path
from mdgnn._internal import folder_lock
with getattr(folder_lock, sys.argv[1])(Path(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""
NO_LOCKS = """
import errno, fcntl
def flock(*arguments): raise OSError(errno.ENOLCK, "No locks available")
fcntl.flock = flock
import warnings
warnings.simplefilter("ignore")
"""
CHILD = """
import os, sys
def fork():
    begun, begins = os.pipe()
    if os.fork() == 0:
        os.write(begins, b".")  # what a child does after a fork is done
        sys.stdin.read()  # until the test is done with the pipe
        os._exit(0)
    os.read(begun, 1)
"""
WHO = r"process (\d+) on (\S+) since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The exact potential as a model file."""
    path = tmp_path_factory.mktemp("model") / "exact.safetensors"
    mdgnn.save(mdgnn.LennardJones(), path)
    return path


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """The folder of a finished run of training."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outcome, "draw", lambda *arguments: [])
        run.train(small(data, "run.epochs=1"), folder)
    return folder


@contextmanager
def holder(path, kind="lock_folder", before=""):
    """Another process that has a folder or a file; killed at the end."""
    command = [sys.executable, "-c", before + HOLDER, kind, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def refusal(result):
    """The one line of a command that refused to run."""
    assert result.exit_code == 1, result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("mdgnn: "), result.stderr
    return lines[0]


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def commands(folder, model, data):
    """Every command that writes to a folder; by name."""
    md_new = ("md", "lj:3", "--model", model, "--steps", 10, "--output", folder)
    relax_new = ("relax", "lj:3", "--model", model, "--output", folder)
    train_new = ("train", "config.toml", "--output", folder)
    evaluate = ("evaluate", model, data, "--output", folder)
    return {
        "md": md_new,
        "md --force": (*md_new, "--force"),
        "md --restart": ("md", "--restart", folder),
        "md --restart longer": ("md", "--restart", folder, "--steps", 20),
        "relax": relax_new,
        "relax --force": (*relax_new, "--force"),
        "train": train_new,
        "train --force": (*train_new, "--force"),
        "train --resume": ("train", "--resume", folder),
        "train --resume longer": ("train", "--resume", folder, "--set", "run.epochs=9"),
        "evaluate": evaluate,
        "evaluate --force": (*evaluate, "--force"),
    }


CONFIG = """
[model]
architecture = "SimpleGNN"
cutoff = 2.5
units = "lj"
[data]
train = "{data}"
valid = 0.25
[run]
epochs = 1
device = "cpu"
threads = 1
"""


def test_a_restart_of_a_running_job_is_refused_and_loses_nothing(model):
    """It wrote to the same log: 30,267 NUL bytes, rows missing, and both jobs failed at their ends."""
    new = ["md", "lj:13", "--model", str(model), "--steps", "1000000", "--output", "run"]
    first = subprocess.Popen([*MAIN, *new, "--checkpoint-interval", "200"], stderr=subprocess.PIPE, text=True)
    try:
        given_up = time.monotonic() + 300
        while not Path("run/checkpoint.npz").exists():
            assert time.monotonic() < given_up and first.poll() is None
            time.sleep(0.02)
        second = subprocess.run([*MAIN, "md", "--restart", "run"], capture_output=True, text=True, timeout=300)
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGINT)
        told = first.communicate(timeout=300)[1]
    assert second.returncode == 1 and second.stdout == "" and second.stderr.count("\n") == 1
    match = re.fullmatch(rf"mdgnn: the folder run is in use by {WHO} .*; try again when .*\n", second.stderr)
    assert match and int(match[1]) == first.pid and match[2] == os.uname().nodename
    assert first.returncode == 128 + signal.SIGINT
    steps = int(re.search(r"stopped after step (\d+)", told)[1])
    log = Path("run/log.csv").read_bytes()
    assert b"\0" not in log
    rows = np.loadtxt("run/log.csv", delimiter=",", skiprows=1)
    assert np.array_equal(rows[:, 0], np.arange(0, steps + 1, 10))
    assert len(ase.io.read("run/trajectory.xyz", index=":")) == len(rows)
    assert sorted(content(Path("run"))) == ["checkpoint.npz", "log.csv", "trajectory.xyz"]
    assert call("md", "--restart", "run", "--steps", steps + 5).exit_code == 0, "it is free now"


def test_two_jobs_at_once_on_a_new_folder(model):
    command = [*MAIN, "md", "lj:13", "--model", str(model), "--steps", "300", "--output", "run"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=300)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert re.search(r"is in use by process|is not empty", told[both[0].returncode == 0])
    assert len(ase.io.read("run/trajectory.xyz", index=":")) == 31


AT_ONCE = """
import multiprocessing, sys
from pathlib import Path
from mdgnn._internal.folder_lock import InUseError, lock_folder

def work(barrier, wins):
    for k in range(len(wins)):
        lock = lock_folder(Path(f"new/{k}/run"))
        barrier.wait()
        try:
            lock.__enter__()
        except InUseError:
            lock = None
        else:
            with wins.get_lock():
                wins[k] += 1
        barrier.wait()
        if lock:
            lock.__exit__()

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(5), context.Array("i", 60)
    each = [context.Process(target=work, args=(barrier, wins)) for _ in range(5)]
    for process in each:
        process.start()
    for process in each:
        process.join()
    print(set(wins))
"""


@pytest.mark.parametrize("left", [False, True])
def test_exactly_one_wins(left):
    """Of five at the same moment, sixty times; also where a killed job has left its file."""
    if left:
        dead = json.dumps({**folder_lock._this_job()._asdict(), "birth": "1"})
        for k in range(60):
            Path(f"new/{k}/run").mkdir(parents=True)
            Path(f"new/{k}/run/{NAME}").write_text(dead)
    done = subprocess.run([sys.executable, "-c", AT_ONCE], capture_output=True, text=True, timeout=100)
    assert done.stdout == "{1}\n", done.stderr
    assert not list(Path().rglob(f"*{NAME}*"))


@pytest.mark.parametrize("name", commands("", "", ""))
def test_every_command_is_refused_by_a_folder_in_use(name, model, data, trained):
    folder = Path("run")
    folder.mkdir()
    for path in trained.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    (folder / "checkpoint.npz").write_text("of md")
    Path("config.toml").write_text(CONFIG.format(data=data))
    if name == "train --resume":
        (folder / files.SUMMARY).unlink()  # else there is nothing to do, and nothing is written
    with holder(folder) as process:
        before = content(folder)
        sentence = refusal(call(*commands(folder, model, data)[name]))
        assert content(folder) == before
    match = re.search(rf"the folder run is in use by {WHO}", sentence)
    assert match and int(match[1]) == process.pid and match[2] == os.uname().nodename


@pytest.mark.parametrize(
    ("name", "module", "within"),
    [
        ("md", simulation, "make_system"),
        ("md --restart", simulation, "make_system"),
        ("relax", relaxation, "make_system"),
        ("train", run, "_read"),
        ("train --resume longer", run, "_read"),
        ("evaluate", cli_evaluate, "_model_of"),
    ],
)
def test_every_command_holds_its_folder(name, module, within, model, data, trained, monkeypatch):
    """From before its input is read to its end, and leaves no trace of that."""
    folder, work, held = Path("run"), getattr(module, within), []
    Path("config.toml").write_text(CONFIG.format(data=data))
    if name == "md --restart":
        assert call(*commands(folder, model, data)["md"]).exit_code == 0
    if name.startswith("train --resume"):
        folder.mkdir()
        for path in trained.iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())

    def meanwhile(*arguments, **options):
        with pytest.raises(InUseError, match=f"process {os.getpid()} on"), lock_folder(folder):
            pass
        held.append(name)
        return work(*arguments, **options)

    monkeypatch.setattr(module, within, meanwhile)
    monkeypatch.setattr(outcome, "draw", lambda *arguments: [])
    result = call(*commands(folder, model, data)[name])
    assert result.exit_code == 0, result.output
    assert held and not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_killed_job_leaves_its_folder_free(model):
    """Also where a child of it lives on, and nothing but its mark is in the folder."""
    for before, code in (("", HOLDER), (CHILD, HOLDER.replace("    print(", "    fork()\n    print("))):
        command = [sys.executable, "-c", before + code, "lock_folder", "run"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "held\n"
            process.kill()
            process.wait()
            assert [path.name for path in Path("run").iterdir()] == [NAME] and is_empty(Path("run"))
            with lock_folder(Path("run")):
                assert str(os.getpid()) in Path("run", NAME).read_text()
    with holder("run"):
        pass
    assert call("md", "lj:3", "--model", model, "--steps", 10, "--output", "run").exit_code == 0
    assert not Path("run", NAME).exists()


def test_threads_exclude_each_other_and_forks_give_nothing_up():
    told = []

    def other():
        try:
            with lock_folder(Path("run")):
                told.append("taken")
        except InUseError as error:
            told.append(str(error))

    with lock_folder(Path("run")):
        with Path("run", NAME).open() as file:  # POSIX locks would go with this descriptor
            file.read()
        child = subprocess.run([sys.executable, "-c", "pass"], close_fds=False)
        assert child.returncode == 0
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()
    assert "the folder run is in use by process" in told[0] and told[1:] == ["taken"]
    assert not Path("run").exists(), "made for nothing"


def test_a_folder_that_was_there_stays_and_bad_folders_are_sentences(model):
    Path("empty").mkdir()
    with lock_folder(Path("empty")):
        pass
    assert list(Path("empty").iterdir()) == []
    Path("file").write_text("precious")
    assert "is a file" in refusal(call("relax", "lj:3", "--model", model, "--output", "file"))
    assert "nowhere" in refusal(call("relax", "lj:3", "--model", model, "--output", "/proc/nowhere/run"))
    assert "no checkpoint" in refusal(call("md", "--restart", "missing"))
    assert "holds no run" in refusal(call("train", "--resume", "missing"))
    assert not Path("missing").exists()


def test_a_file_system_without_locks(monkeypatch):
    """The job's file stands for the lock; a killed job's gives way at once."""

    def flock(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    monkeypatch.setattr(folder_lock, "SETTLE", 0.0)
    with holder("run", before=NO_LOCKS) as process:
        with (
            pytest.warns(UserWarning, match="the file system of run has no locks") as told,
            pytest.raises(InUseError, match=f"run is in use by process {process.pid}"),
            lock_folder(Path("run")),
        ):
            pass
        assert told[0].filename == __file__, "at the user's line"
    assert Path("run", NAME).exists()
    with pytest.warns(UserWarning, match="no locks"), lock_folder(Path("run")):
        assert str(os.getpid()) in Path("run", NAME).read_text()
    assert not list(Path("run").iterdir())


@pytest.mark.parametrize("lives", [True, False])
def test_a_job_on_another_node_whose_lock_is_not_seen(lives, monkeypatch):
    """Local locks of a network file system: a job that lives renews its file, and is found out by that."""
    monkeypatch.setattr(folder_lock, "SILENCE", 0.6)
    monkeypatch.setattr(folder_lock, "SETTLE", 0.0)
    Path("run").mkdir()
    mark, over = Path("run", NAME), threading.Event()
    job = folder_lock._this_job()._replace(host="node07", boot="other", pid=12)
    mark.write_text(json.dumps(job._asdict()))

    def renew():
        while not over.wait(0.05):
            os.utime(mark)

    thread = threading.Thread(target=renew)
    try:
        if lives:
            thread.start()
            with (
                pytest.warns(UserWarning, match="not given back by process 12 on node07"),
                pytest.raises(InUseError, match=rf"process 12 on node07 since .* or, .* dead .* remove run/{NAME}"),
                lock_folder(Path("run")),
            ):
                pass
        else:
            with pytest.warns(UserWarning, match="not given back by process 12 on node07"), lock_folder(Path("run")):
                assert str(os.getpid()) in mark.read_text()
    finally:
        over.set()
        if lives:
            thread.join()
    assert mark.exists() == lives


def test_a_job_renews_its_mark(monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT", 0.01)
    with lock_folder(Path("run")):
        first, given_up = Path("run", NAME).stat().st_mtime_ns, time.monotonic() + 30
        while Path("run", NAME).stat().st_mtime_ns == first:
            assert time.monotonic() < given_up
            time.sleep(0.01)


def test_data_files_are_written_by_one_job_at_a_time(monkeypatch):
    Path("old.xyz").write_text("old")
    lj = ("dataset", "lj", "--frames", 2, "--kind", "lecture")
    with holder("old.xyz", "lock_file") as process:
        sentence = refusal(call(*lj, "old.xyz", "--force"))
        assert f"the file old.xyz is in use by process {process.pid}" in sentence
        assert call(*lj, "new.xyz").exit_code == 0, "others go on in the same folder"
    assert Path("old.xyz").read_text() == "old"
    for kind in ("lock_file", "lock_folder"):
        with holder("part-valid.xyz" if kind == "lock_file" else ".", kind):
            sentence = refusal(call("dataset", "split", "new.xyz", "--output", "part", "--fractions", 0.5, 0.5, 0))
            assert "is in use by process" in sentence
    assert sorted(p.name for p in Path().iterdir() if not p.name.endswith(NAME)) == ["new.xyz", "old.xyz"]
    frames, held = lj_frames.lj_frames, []

    def meanwhile(*arguments):
        with pytest.raises(InUseError), lock_file(Path("old.xyz")):
            pass
        held.append(holder("."))
        held[0].__enter__()  # a run begins here before the frames are complete
        yield from frames(*arguments)

    monkeypatch.setattr(lj_frames, "lj_frames", meanwhile)
    try:
        assert "the folder . is in use" in refusal(call(*lj, "old.xyz", "--force"))
    finally:
        held[0].__exit__(None, None, None)
    assert Path("old.xyz").read_text() == "old" and not list(Path().glob("*.part"))


def test_plots_beside_a_running_training(data, tmp_path, monkeypatch):
    """It reads and draws, takes no lock, and leaves alone what is another run's by then."""
    run.train(small(data, "run.epochs=1"), "run")
    pictures = sorted(path.name for path in Path("run").glob("*.png"))
    assert plots.LEARNING in pictures
    for name in pictures:
        Path("run", name).unlink()
    Path("run", files.SUMMARY).unlink()
    with holder("run"):
        result = call("plot", "run")
        assert result.exit_code == 0 and sorted(Path(line).name for line in result.stdout.split()) == pictures
    assert all(Path("run", name).read_bytes().endswith(b"IEND\xaeB`\x82") for name in pictures)
    assert not list(Path("run").glob("*.part")) and not list(Path("run").glob(".*.part"))
    comparisons = outcome.comparisons

    def replaced(*arguments):
        compared = comparisons(*arguments)
        files.replace_by(Path("run", files.START), Path("run", files.START).read_bytes())
        return compared

    monkeypatch.setattr(outcome, "comparisons", replaced)
    Path("run", pictures[0]).unlink()
    assert "another run has begun in run meanwhile" in refusal(call("plot", "run"))
    assert not Path("run", pictures[0]).exists()


def test_of_several_processes_of_one_training_the_first_has_the_folder(monkeypatch):
    with run._alone(Path("run")):
        with pytest.raises(RunError, match="the folder run is in use"), run._alone(Path("run")):
            pass
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        with run._alone(Path("run")):
            pass
        monkeypatch.delenv("RANK")


def test_a_finished_training_is_told_beside_any_job(trained):
    with holder(trained):
        assert run.resume(trained)["steps"] == 3
