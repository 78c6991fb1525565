"""The user's matplotlibrc, MPLBACKEND and home: pictures are the same whatever these say, and touch them not."""

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from command_line import run
from figures import assert_picture

from mdgnn.plots import draw, runs

LOG = np.stack([np.arange(9.0), -np.arange(9.0), np.exp(-np.arange(9.0))], axis=1)
TEX = "text.usetex: True\nfont.family: no such font\nfigure.facecolor: red\nlines.linewidth: 9\nsavefig.dpi: 7\n"


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def picture():
    """The bytes of one with a unit that TeX would set."""
    plot = partial(runs.plot_relaxation, log=LOG, energy_unit="epsilon/kB", force_unit="epsilon/sigma^3")
    assert draw(Path(), {"p.png": lambda: plot}) == ["p.png"]
    return Path("p.png").read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """That picture where nobody has said anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("plain"))
        for name in ("MPLBACKEND", "MATPLOTLIBRC"):
            patch.delenv(name, raising=False)
        return picture()


def a_file_in_the_working_directory(_):
    Path("matplotlibrc").write_text(TEX)


def a_file_that_the_environment_names(patch):
    Path("mine").write_text(TEX)
    patch.setenv("MATPLOTLIBRC", str(Path("mine").absolute()))


def a_file_that_is_no_text(patch):
    Path("matplotlibrc").write_bytes(b"\xff\xfe\x00text.usetex")
    a_file_that_the_environment_names(patch)


def a_backend_that_does_not_exist(patch):
    patch.setenv("MPLBACKEND", "nonsense")


def a_home_that_does_not_exist(patch):
    for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", "/proc/nobody")


def a_cache_that_cannot_be_written(patch):
    patch.setenv("MPLCONFIGDIR", "/proc/nowhere")


def warnings_that_are_errors(patch):
    patch.setenv("PYTHONWARNINGS", "error")
    patch.setenv("MPLCONFIGDIR", "/proc/nowhere")


@pytest.mark.parametrize(
    "setting",
    [
        a_file_in_the_working_directory,
        a_file_that_the_environment_names,
        a_file_that_is_no_text,
        a_backend_that_does_not_exist,
        a_home_that_does_not_exist,
        a_cache_that_cannot_be_written,
        warnings_that_are_errors,
    ],
)
def test_a_picture_is_the_same_byte_for_byte(plain, monkeypatch, capsys, setting):
    setting(monkeypatch)
    assert picture() == plain
    assert capsys.readouterr().err == ""


def test_matplotlib_in_this_process_stays_as_it_is(plain):
    """Also meanwhile, for other threads; a context of rcParams would be theirs too."""
    with matplotlib.rc_context({"text.usetex": True, "figure.facecolor": "red", "font.family": "no such font"}):
        before, seen = dict(matplotlib.rcParams), []
        done = threading.Event()

        def look():
            while not done.wait(0.01):
                seen.append(dict(matplotlib.rcParams) == before)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            assert picture() == plain
        finally:
            done.set()
            thread.join()
        assert seen and all(seen) and dict(matplotlib.rcParams) == before


def test_a_run_with_tex_switched_on_and_no_tex_has_its_pictures(model, monkeypatch):
    """In processes of their own, as users start them."""
    Path("matplotlibrc").write_text(TEX)
    environment = {**os.environ, "MPLBACKEND": "nonsense", "PATH": str(Path(sys.executable).parent)}
    command = [sys.executable, "-c", "from mdgnn.cli import main; main()", "relax", "lj:13", "--output", "o"]
    done = subprocess.run([*command, "--model", str(model)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    for name in ("energy.png", "radial_distribution.png", "structures.png"):
        assert_picture(Path("o", name))


def test_a_python_that_cannot_start_another_says_so(model, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    result = run("relax", "lj:13", "--model", model, "--output", "o")
    assert result.exit_code == 0
    assert result.stderr.endswith(
        "structures.png were not drawn: cannot start '/nowhere/python': No such file or directory\n"
    )
