"""What the command line tells: warnings and errors in one sentence, tables that fit on a page, nothing cut off."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import typer
from ase import Atoms
from ase.build import bulk
from command_line import run as call

import mdgnn
from mdgnn.cli import info, terminal
from mdgnn.cli.errors import errors_as_sentences
from mdgnn.data import read_frames
from mdgnn.data.sources import DataError

MAIN = [sys.executable, "-c", "from mdgnn.cli import main; main()"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(result):
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 1 and len(lines) == 1 and lines[0].startswith("mdgnn: "), result.output
    return lines[0]


def test_a_warning_of_a_command_is_its_sentence():
    """It had typer's file, the number of a line there, and the line."""
    ase.io.write("close.xyz", Atoms("H2", [[0, 0, 0], [0.6, 0, 0]]))
    command = [*MAIN, "relax", "close.xyz", "--model", "acac", "--steps", "0", "--output", "run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 and lines[1].startswith("mdgnn: not converged"), done.stderr
    assert lines[0].startswith("mdgnn: warning: atoms 0 and 1 ") and ".py" not in lines[0]
    assert "warning" not in done.stdout


def test_warnings_for_programmers_are_shown_to_those_who_ask(monkeypatch, capsys):
    """And Python's own way of showing them is back afterwards, also after an error."""
    before = warnings.showwarning

    def warn():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = shown  # pytest's
            with pytest.raises(typer.Exit), errors_as_sentences():
                warnings.warn("this function will go", DeprecationWarning, stacklevel=1)
                warnings.warn("that one\n  too", FutureWarning, stacklevel=1)
                warnings.warn("the cell of the file\nis odd", UserWarning, stacklevel=1)
                raise ValueError("the end")
            assert warnings.showwarning is shown
        return capsys.readouterr().err.splitlines()

    def shown(*arguments, **options):
        raise AssertionError("not the command's own")

    monkeypatch.setattr(sys, "warnoptions", [])
    assert warn() == ["mdgnn: warning: the cell of the file is odd", "mdgnn: the end"]
    monkeypatch.setattr(sys, "warnoptions", ["default"])
    told = warn()
    assert told[0].startswith(f"mdgnn: warning: this function will go ({__file__}:") and len(told) == 4
    assert warnings.showwarning is before


ASKED = "there is not enough memory: {} more were asked for"


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: np.empty((10**8, 10**8)), ASKED.format("71.1 PiB") + ", by an array of shape (100000000, "),
        (lambda: torch.empty(10**16, dtype=torch.int8), ASKED.format("10000000000000000 bytes") + "; "),
        (lambda: raising(RuntimeError("out of memory. Tried to allocate 2.00 GiB. ")), ASKED.format("2.00 GiB")),
        (lambda: raising(MemoryError("std::bad_alloc")), "there is not enough memory; fewer atoms"),
        (lambda: raising(MemoryError()), "there is not enough memory; fewer atoms"),
    ],
)  # fmt: skip
def test_memory_that_there_is_not_is_a_sentence(work, words, capsys):
    with pytest.raises(typer.Exit) as caught, errors_as_sentences():
        work()
    told = capsys.readouterr().err
    assert caught.value.exit_code == 1 and told.startswith(f"mdgnn: {words}") and told.count("\n") == 1


def raising(error):
    raise error


# With not much more memory than what has been read in takes.
LITTLE = """
import resource
from pathlib import Path
import mdgnn.cli.dynamics
import torch  # a formula needs it
most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 3 * 10**8
resource.setrlimit(resource.RLIMIT_AS, (most, most))
mdgnn.cli.main()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps a process to its share of memory")
def test_a_tiny_cell():
    """As of a file in another unit; the summary of one, which needs no more than two images, took all memory."""
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), "cut.safetensors")
    for edge in (0.02, 0.002):
        ase.io.write("tiny.xyz", Atoms("Ar", cell=[edge] * 3, pbc=True))
        for units in ("metal", "any"):
            result = call("dataset", "summary", "tiny.xyz", "--units", units)
            assert result.exit_code == 0 and f"{edge:.4f}" in result.output
    for pbc, sentence in ((True, "one atom in a periodic cell"), ((True, True, False), "there is not enough memory")):
        ase.io.write("tiny.xyz", Atoms("Ar", cell=[9e-4] * 2 + [0.014], pbc=pbc))
        command = [sys.executable, "-c", LITTLE, "relax", "tiny.xyz", "--model", "cut.safetensors"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1 and done.stderr.startswith(f"mdgnn: {sentence}"), done.stderr
        assert done.stderr.count("\n") == 1 and not Path("mdgnn-relax-tiny").exists()


def of_lammps(name):
    ase.io.write(name, bulk("Ar", a=5.3, cubic=True), format="lammps-data")


UNREADABLE = {
    "lj.data": of_lammps,  # taken for a file of RuNNer: StopIteration
    "data.lj": of_lammps,  # a format that there is not: "lj"
    "element.xyz": "1\n\nXq 0 0 0\n",  # KeyError: "'Xq'"
    "empty.gen": "5\n",  # IndexError: "list index out of range"
    "bad.cif": "x",  # AssertionError, without a word
    "bad.json": '{"1": {}}',
    "bad.xsf": "x",  # AssertionError: "x"
    "bad.res": "x",  # "not enough values to unpack"
    "bad.db": "no database",  # an error of SQLite, with a traceback
}
OF_CODE = (
    "StopIteration",
    "'Xq'",
    "list index out of range",
    "AssertionError",
    "lj",
    "x",
    "unpack (expected 6, got 0)",
)


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_ase_cannot_read_is_a_sentence(name):
    make = UNREADABLE[name]
    make(name) if callable(make) else Path(name).write_text(make)
    for command in (("relax", name), ("md", name), ("dataset", "summary", name)):
        sentence = refusal(call(*command))
        assert name in sentence and not sentence.endswith(tuple(f": {words}" for words in OF_CODE)), sentence
        assert len(sentence.split()) > 8
    with pytest.raises(DataError, match=name):
        read_frames([name])


def test_good_words_of_ase_stay():
    Path("short.xyz").write_text("3\n\nAr 0 0 0\n")
    assert ": ase.io.extxyz: Frame has 1 atoms, expected 3 (taken for extxyz" in refusal(call("relax", "short.xyz"))


@pytest.mark.parametrize("model", ["acac", "lj"])
def test_info_fits_on_a_page_where_there_is_no_terminal(model):
    """It was 470 columns wide."""
    lines = call("info", model).stdout.splitlines()
    assert max(map(len, lines)) <= 100
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if "│" in line]
    assert ["units", info.model(model)["units"]] in rows, "short ones are on one line"
    told, last = {}, ""
    for name, value in rows:
        last = name or last
        told[last] = told.get(last, "") + value
    for name, value in info.model(model).items():
        assert told[name].replace(" ", "") == value.replace(" ", ""), "nothing is cut off"
    assert json.loads(told["config"])["cutoff"]


def test_a_table_is_as_narrow_as_what_is_in_it(capsys):
    terminal.print_table("a table", {"steps": "12", "output": "mdgnn-md-lj13"})
    lines = capsys.readouterr().out.splitlines()
    assert "│ steps  │ 12            │" in lines and max(map(len, lines)) == 26
    terminal.print_table("a table", {"output": "/scratch/" + "a" * 300, "n" * 95: "x y"})
    text = capsys.readouterr().out
    assert text.count("a") == 300 + text.split("\n")[0].count("a") + 1 and "…" not in text
