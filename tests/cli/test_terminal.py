"""What a terminal shows while a command runs, and what a file gets instead."""

import os
import re
import select
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from command_line import run

from mdgnn.cli.terminal import TerminalReporter


@contextmanager
def terminal():
    """Stderr is a terminal within; yields a list that has what it showed at the end."""
    master, slave = os.openpty()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(slave, "w", buffering=1) as stream:
        for name in ("NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR"):
            patch.delenv(name, raising=False)
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "120")
        patch.setattr(sys, "stderr", stream)
        shown = []
        yield shown
        text = b""
        while select.select([master], [], [], 0.5)[0]:  # it comes in pieces, a moment later
            text += os.read(master, 65536)
        shown.append(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.decode()))
    os.close(master)


def last_line(shown):
    return [line for line in re.split(r"[\r\n]+", shown[0]) if line.strip()][-1]


def test_a_bar_tells_step_total_and_state():
    with terminal() as shown, TerminalReporter().progress("md lj:13", 200) as show:
        for step in range(1, 151):
            show(step, f"E {-step:.1f}")
    line = last_line(shown)
    assert line.startswith("md lj:13 ") and "150/200" in line and line.rstrip().endswith("E -150.0")
    drawn = re.search(r"[━╸╺]+", line)[0]
    assert len(drawn) > 20, "a bar"


def test_a_bar_is_full_at_the_end():
    with terminal() as shown, TerminalReporter().progress("relax", 3) as show:
        show(3, "")
    line = last_line(shown)
    assert "3/3" in line and re.search(r"━{20,}", line) and "╸" not in line and "0:00:00" in line


def test_text_of_the_user_is_no_markup():
    """A file a[b].xyz was shown as a.xyz."""
    with terminal() as shown, TerminalReporter().progress("md a[b].xyz", 2) as show:
        show(1, "[bold]")
    line = last_line(shown)
    assert line.startswith("md a[b].xyz ") and line.rstrip().endswith("[bold]")


def test_a_file_gets_no_bar_but_notes(capsys):
    with TerminalReporter().progress("md", 2) as show:
        show(1, "E 1")
    TerminalReporter().note("the positions of [red] look odd " + "x" * 200)
    told = capsys.readouterr()
    assert told.out == "" and told.err == "mdgnn: the positions of [red] look odd " + "x" * 200 + "\n"


def test_a_run_has_a_bar(tmp_path, monkeypatch):
    """By the reporter of the command line; typer's runner has a stderr of its own, so this is the API."""
    from mdgnn.dynamics import NVE, simulate
    from mdgnn.dynamics.lj_clusters import lj_cluster

    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: None)
    source = {"structure": "lj:13"}
    options = {"folder": tmp_path / "run", "steps": 30, "source": source, "reporter": TerminalReporter()}
    with terminal() as shown:
        summary = simulate(lj_cluster("13", None), "lj", NVE(0.1), **options)
    line = last_line(shown)
    assert line.startswith("md lj:13 ") and "30/30" in line
    *_, last = np.loadtxt(tmp_path / "run" / "log.csv", delimiter=",", skiprows=1)
    assert summary["steps"] == last[0] == 30 and line.rstrip().endswith(f" E {last[3]:.4f}, T {last[5]:.4g}")


def test_commands_write_no_bar_to_a_file(tmp_path):
    result = run("md", "lj:3", "--steps", 5, "--output", tmp_path / "run")
    assert result.exit_code == 0 and result.stderr == ""
