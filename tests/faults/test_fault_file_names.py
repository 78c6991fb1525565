"""An existing path is always that file, whatever is in its name; an index and a format are options."""

import gzip
import hashlib
import json
import os
import shlex
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from command_line import run
from labelled import molecules
from typer.testing import CliRunner

import mdgnn
from mdgnn._internal.file_names import shell_path, short_name
from mdgnn.cli import app
from mdgnn.data import DataError, read_frames
from mdgnn.data.sources import open_source, part_of
from mdgnn.dynamics import read_structure
from mdgnn.training.folder import fingerprint

ODD = [
    "run@0",
    "w@300K.xyz",
    "-",
    "-x",
    "a b.xyz",
    "lj:13",
    "*.xyz",
    "x[1].xyz",
    "postgresql.xyz",
    "@",
    "a@1:2",
    "%d.xyz",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "exact@1.safetensors"
    mdgnn.save(mdgnn.LennardJones(), path)
    return str(path)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: None)
    monkeypatch.setattr("mdgnn.dynamics.relaxation._plot", lambda *_: None)


def sentence(result):
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 1 and len(lines) == 1, result.output
    return lines[0]


def chain(n):
    return Atoms(f"Ar{n}", [[1.1 * k, 0, 0] for k in range(n)])


def write(name, frames, format="extxyz"):
    """To a file of exactly this name."""
    with Path(name).open("w") as file:
        ase.io.write(file, frames, format=format)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("command", ["relax", "md"])
def test_an_existing_path_is_that_file(model, name, command):
    write("run", chain(2))  # which the others must not be
    write(name, chain(5))
    done = run(
        command,
        "--model",
        model,
        "--steps",
        1,
        "--output",
        "out",
        *["--fmax", 99][: 2 * (command == "relax")],
        "--",
        name,
    )
    assert done.exit_code == 0, done.output
    assert len(ase.io.read("out/final.xyz")) == 5
    assert json.loads(Path("out/summary.json").read_text())["settings"]["structure"] == name


@pytest.mark.parametrize("name", ODD)
def test_data_sets_take_an_existing_path_for_that_file_too(name):
    write("run", molecules(2))
    write("a", molecules(2))
    write(name, molecules(5, seed=3))
    assert len(read_frames([name])) == len(open_source(name).numbers()) == 5
    assert part_of(name) == (Path(name), slice(None))
    assert fingerprint([name]) == {name: hashlib.sha256(Path(name).read_bytes()).hexdigest()}
    split = run("dataset", "split", "--output", "s", "--", name)
    assert split.exit_code == 0, split.output
    assert (
        sum(
            len(ase.io.read(f"s-{part}.xyz", ":"))
            for part in ("train", "valid", "test")
            if Path(f"s-{part}.xyz").exists()
        )
        == 5
    )


def test_a_frame_of_another_file_is_an_option(model):
    write("run", [chain(2), chain(3), chain(4)])
    missing = sentence(run("relax", "run@0", "--model", model))
    assert "no structure file 'run@0'" in missing and "'run'" in missing and "--index" in missing
    for index, n in ((0, 2), (1, 3), (2, 4), (-1, 4), (-2, 3), (-3, 2), (None, 4)):
        assert len(read_structure("run", rng(), index)) == n
    for index in (3, -4, 99):
        with pytest.raises(ValueError, match=f"there is no frame {index} in run"):
            read_structure("run", rng(), index)
    done = run("relax", "run", "--index", -2, "--model", model, "--fmax", 99, "--output", "out")
    assert done.exit_code == 0 and len(ase.io.read("out/final.xyz")) == 3
    assert json.loads(Path("out/summary.json").read_text())["settings"]["index"] == -2
    done = run("md", "run", "--index", 0, "--model", model, "--steps", 2, "--output", "md")
    assert done.exit_code == 0 and len(ase.io.read("md/final.xyz")) == 2
    assert "index is 0 in the run to continue, not 1" in sentence(run("md", "--restart", "md", "--index", 1))
    assert run("md", "--restart", "md", "--index", 0, "--steps", 4).exit_code == 0


def test_a_format_of_one_frame_has_no_others():
    write("POSCAR", Atoms("Ar", cell=[3, 3, 3], pbc=True), "vasp")
    assert len(read_structure("POSCAR", rng(), 0)) == len(read_structure("POSCAR", rng(), -1)) == 1
    for index in (1, -2):
        with pytest.raises(ValueError, match="one frame"):
            read_structure("POSCAR", rng(), index)


def test_a_part_of_a_data_file_stays_and_an_existing_path_wins():
    write("x.xyz", molecules(5))
    assert len(read_frames(["x.xyz@1:3"])) == 2 and len(read_frames(["x.xyz@-1"])) == 1
    assert fingerprint(["x.xyz@1:3"])["x.xyz@1:3"] == fingerprint(["x.xyz"])["x.xyz"]
    write("x.xyz@1:3", molecules(4, seed=8))
    assert len(read_frames(["x.xyz@1:3"])) == 4


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("w@300K.xyz", ["no data file 'w@300K.xyz'", "'300K.xyz' after its @ is no slice", "'w'"]),
        ("x.xyz@", ["no data file 'x.xyz@'", "'' after its @"]),
        ("x.xyz@0:4:0", ["no data file 'x.xyz@0:4:0'", "'0:4:0' after its @"]),
        ("y.xyz@0:3", ["no data file 'y.xyz@0:3'", "no 'y.xyz' to take the frames 0:3 of"]),
    ],
)
def test_what_is_neither_a_file_nor_a_part_of_one_names_both_readings(path, words):
    write("x.xyz", molecules(5))
    write("w", molecules(5))
    for reads in (lambda: read_frames([path]), lambda: fingerprint([path])):
        with pytest.raises((DataError, FileNotFoundError)) as caught:
            reads()
        assert all(word in str(caught.value) for word in words), caught.value


def test_lj_n_is_a_cluster_unless_there_is_such_a_file():
    assert len(read_structure("lj:13", rng())) == 13 and short_name("lj:13") == "lj13"
    with pytest.raises(ValueError, match="--index .index=. goes with a file, and there is no file 'lj:13'"):
        read_structure("lj:13", rng(), index=0)
    with pytest.raises(ValueError, match="--format .format=. goes with a file"):
        read_structure("lj:13", rng(), format="xyz")
    write("lj:13", chain(2))
    assert len(read_structure("lj:13", rng())) == 2 and short_name("lj:13") == "lj_13"


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("a/b/w@300K.xyz", "w@300K"),
        ("a b.xyz", "a_b"),
        ("POSCAR", "POSCAR"),
        ("*?.xyz", "_"),
        ("wasser-ä.cif", "wasser-ä"),
    ],
)
def test_names_of_folders(name, folder):
    assert short_name(name) == folder


def test_formats_that_must_be_named(model):
    water = molecule("H2O", vacuum=4)
    water.pbc = True
    ase.io.write("w.data", water, format="lammps-data", masses=True)
    guessed = sentence(run("relax", "w.data", "--model", "water"))
    assert "cannot read a structure from w.data" in guessed and "--format lammps-data" in guessed
    with pytest.raises(DataError, match="--format lammps-data"):
        read_frames(["w.data"], need=())
    atoms = read_structure("w.data", rng(), format="lammps-data")
    assert str(atoms.symbols) == "OH2" and len(read_frames(["w.data"], need=(), format="lammps-data")) == 1
    done = run("relax", "w.data", "--format", "lammps-data", "--model", "water", "--output", "out", "--fmax", 1)
    assert done.exit_code == 0, done.output
    assert run("dataset", "summary", "w.data", "--format", "lammps-data").exit_code == 0
    Path("nothing").write_text("no format at all\n")
    assert "cannot tell the format of nothing" in sentence(run("relax", "nothing", "--model", model))
    assert "cannot tell the format of nothing" in sentence(run("dataset", "summary", "nothing"))
    wrong = sentence(run("relax", "w.data", "--format", "lamps-data", "--model", model))
    assert "got 'lamps-data'; did you mean 'lammps-data'?" in wrong
    assert "got 'png'" in sentence(run("dataset", "split", "w.data", "--format", "png", "--output", "s"))
    Path("empty.xyz").touch()
    assert "the file empty.xyz is empty" in sentence(run("relax", "empty.xyz", "--model", model))


def test_evaluate_takes_a_format(model):
    write("frames", [Atoms("Ar2", [[0, 0, 0], [1.1 + 0.01 * k, 0, 0]], info={"energy": -1.0}) for k in range(3)])
    Path("frames").rename("frames.data")
    assert "name its format" in sentence(run("evaluate", model, "frames.data", "--output", "o"))
    done = run("evaluate", model, "frames.data", "--format", "extxyz", "--output", "o")
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("format", ["lammps-data", "lammps-dump-text"])
def test_types_of_lammps_are_not_taken_for_elements(model, format):
    """ASE reads type 1 as hydrogen and 2 as helium; in reduced units there are no elements."""
    water = molecule("H2O", vacuum=4)
    water.pbc = True
    if format == "lammps-data":
        ase.io.write("w", water, format=format)
    else:
        rows = "\n".join(f"{k + 1} 1 {x} {y} {z}" for k, (x, y, z) in enumerate(water.positions))
        box = "ITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
        head = f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n3\n{box}ITEM: ATOMS id type x y z\n"
        Path("w").write_text(head + rows + "\n")
    words = "does not say of which elements"
    assert words in sentence(run("relax", "w", "--format", format, "--model", "water"))
    with pytest.raises(DataError, match=words):
        read_frames(["w"], need=(), format=format)
    split = run("dataset", "split", "w", "--format", format, "--fractions", 1, 0, 0, "--output", "s")
    assert words in sentence(split)
    assert len(read_structure("w", rng(), format=format, units="lj")) == 3
    if format == "lammps-dump-text":
        Path("w").write_text(Path("w").read_text().replace("id type", "id element").replace(" 1 4", " H 4"))
        assert len(read_structure("w", rng(), format=format)) == 3


def test_what_is_no_file_is_said(model):
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for name, words in (
        ("folder", "is a folder"),
        ("pipe", "is a pipe or a device"),
        ("/dev/null", "pipe or a device"),
    ):
        assert words in sentence(run("relax", name, "--model", model))
        with pytest.raises(DataError, match=words):
            read_frames([name])
    assert "no structure file '-'" in sentence(run("relax", "--model", model, "--", "-"))


def test_compressed_files_are_read_and_split_with_every_digit():
    frames = molecules(6)
    for k, frame in enumerate(frames):
        frame.positions[0, 0] += 1e-11 * k
    write("x.xyz", frames)
    text = Path("x.xyz").read_text()
    Path("x.xyz.gz").write_bytes(gzip.compress(text.encode()))
    assert len(read_structure("x.xyz.gz", rng(), 2)) == len(frames[2])
    assert len(read_frames(["x.xyz.gz"])) == len(read_frames(["x.xyz.gz"], format="extxyz")) == 6
    assert run("dataset", "split", "x.xyz.gz", "--fractions", 1, 0, 0, "--output", "s").exit_code == 0
    assert Path("s-train.xyz").read_text() == text


def test_models_are_found_under_odd_names_and_after_a_change_of_folder(model, monkeypatch):
    calculator = mdgnn.MDGNNCalculator(model)
    assert type(calculator.model).__name__ == "LennardJones"
    for name in ("m@0", "a b", "-m", "lj:4"):
        mdgnn.save(mdgnn.LennardJones(), name)
        assert mdgnn.load(name).units == "lj"
    with pytest.raises(FileNotFoundError, match="no model file 'n@0'"):
        mdgnn.load("n@0")
    Path("lj").write_text("a file of the name of a shipped model")
    assert run("md", "lj:3", "--model", "lj", "--steps", 2, "--output", "out").exit_code == 0
    assert json.loads(Path("out/summary.json").read_text())["settings"]["model"] == "lj"
    assert run("md", "--restart", "out", "--steps", 4).exit_code == 0


def test_output_folders_of_odd_names(model):
    for name in ("run@300K", "a b", "o@0:3"):
        assert run("md", "lj:3", "--model", model, "--steps", 5, "--output", name).exit_code == 0
        assert run("md", "--restart", name, "--steps", 9).exit_code == 0
        assert len(read_structure(f"{name}/trajectory.xyz", rng())) == 3


@pytest.mark.parametrize("name", ["a run", "-run", "it's", "run"])
def test_advice_can_be_shell_path(name):
    assert Path(shlex.split(f"mdgnn md --restart {shell_path(name)}")[-1]) == Path(name)
    assert not shell_path(name).startswith("-")


def test_a_summary_invents_no_elements():
    """It read types of LAMMPS as H and He once more, and ended with status 0."""
    water = molecule("H2O", vacuum=4)
    ase.io.write("w.data", water, format="lammps-data")
    done = CliRunner().invoke(app, ["dataset", "summary", "w.data", "--format", "lammps-data"])
    assert done.exit_code == 1 and "does not say of which elements" in done.stderr and not done.stdout, done.output
