"""Train in child processes that are killed, and go on: python kill_and_resume.py CONFIG FOLDER KILLS SEED [KIND=random]

Prints a line for each kill, and at the end "equal", or the files that differ from those of a run that was never killed.
With KIND = writes, kills come before every write of a file in turn, not at random moments.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from mdgnn.training import folder as files
from mdgnn.training import outcome
from mdgnn.training.config import read
from mdgnn.training.run import resume, train


def child(work, kill=None):
    """Do it in a process of its own, and call a function with the number of it; its exit status."""
    pid = os.fork()  # torch has one thread
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    if kill:
        kill(pid)
    return os.waitpid(pid, 0)[1]


def kill_after_a_checkpoint(pid, path, delay):
    """Wait for a new checkpoint, so that every go gets a little further, then for the delay (s)."""
    before, given_up = path.stat().st_mtime_ns if path.exists() else 0, time.monotonic() + 60
    while time.monotonic() < given_up and (not path.exists() or path.stat().st_mtime_ns == before):
        time.sleep(0.001)
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)


def go_on(config, folder):
    return resume(folder) if (folder / files.CONFIG).exists() else train(config, folder, force=True)


def dying(config, folder, number):
    """Go on, and be killed before write `number`."""
    left = number

    def deadly(write):
        def wrapped(*arguments):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return write(*arguments)

        return wrapped

    Path.replace, files.Log.add = deadly(Path.replace), deadly(files.Log.add)
    go_on(config, folder)


def same(a, b):
    """Whether two contents of checkpoints are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def differences(whole, killed):
    """Names of files, or of parts of checkpoints, that are not equal."""
    for name in (files.MODEL, files.LOG, files.SUMMARY):
        if (whole / name).read_bytes() != (killed / name).read_bytes():
            yield name
    for name in (files.LAST, files.BEST):
        a, b = files.read_checkpoint(whole / name), files.read_checkpoint(killed / name)
        yield from (f"{name} {key}" for key in {**a, **b} if not (key in a and key in b and same(a[key], b[key])))


def main(path, folder, kills, seed, kind="random"):
    config, folder = read(path), Path(folder)
    outcome.draw = lambda *arguments: []  # pictures, which take longer than these runs
    torch.set_num_threads(1)
    train(config, folder / "whole")  # here, so that the children need not read libraries again
    dice, killed = random.Random(int(seed)), folder / "killed"
    for k in range(int(kills)):
        if kind == "random":
            delay = 10 ** dice.uniform(-4, -0.7)
            status = child(
                lambda to=killed: go_on(config, to),
                lambda pid, to=killed, delay=delay: kill_after_a_checkpoint(pid, to / files.LAST, delay),
            )
        else:
            killed = folder / f"killed{k}"
            status = child(lambda k=k, to=killed: dying(config, to, k))
        rows = (killed / files.LOG).read_text().count("\n") if (killed / files.LOG).exists() else 0
        print("killed" if status else "finished", f"with {rows} rows", flush=True)
        if kind == "writes" or k == int(kills) - 1:
            assert child(lambda to=killed: go_on(config, to)) == 0, k
            different = list(differences(folder / "whole", killed))
            print(*([f"differs: {name}" for name in different] or ["equal"]), sep="\n", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
