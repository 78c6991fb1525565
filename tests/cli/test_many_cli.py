"""`mdgnn relax FILE --index :`: many structures at once."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms
from command_line import run, sentence

from mdgnn.dynamics.lj_clusters import lj_cluster


@pytest.fixture(autouse=True)
def in_empty_folder_without_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdgnn.dynamics.simulation.draw_run", lambda *_: [])
    monkeypatch.setattr("mdgnn.dynamics.relaxation.draw", lambda *_: [])


def clusters():
    rng = np.random.default_rng(0)
    frames = [lj_cluster(str(n), rng) for n in (13, 7, 13)]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        atoms.info["origin"] = f"of {len(atoms)}"
    frames[2].set_constraint(FixAtoms([4]))
    return frames


def test_each_structure_of_a_file_is_relaxed_as_alone():
    frames = clusters()
    ase.io.write("many.xyz", frames)
    result = run("relax", "many.xyz", "--index", ":", "--fmax", "0.02", "--output", "out")
    assert result.exit_code == 0 and "structures" in result.stdout
    final = ase.io.read("out/final.xyz", index=":")
    log = np.loadtxt("out/log.csv", delimiter=",", skiprows=1)
    summary = json.loads(Path("out/summary.json").read_text())
    assert log[:, 0].tolist() == [0, 1, 2] and log[:, 4].all()
    assert summary["n_structures"] == summary["n_converged"] == 3 and not summary["errors"]
    assert [atoms.info["origin"] for atoms in final] == ["of 13", "of 7", "of 13"]
    assert np.allclose(final[2].positions[4], frames[2].positions[4], atol=1e-7)
    for k, atoms in enumerate(final):
        assert atoms.get_potential_energy() == pytest.approx(log[k, 2])
        one = ("--index", k, "--optimizer", "FIRE", "--fmax", "0.02", "--output", f"one{k}")
        assert run("relax", "many.xyz", *one).exit_code == 0
        alone = ase.io.read(f"one{k}/final.xyz")
        assert np.abs(alone.positions - atoms.positions).max() < 1e-5


def test_the_last_frame_alone_is_taken_unless_all_are_asked_for():
    ase.io.write("many.xyz", clusters()[:2])
    assert run("relax", "many.xyz", "--output", "out").exit_code == 0
    assert len(ase.io.read("out/final.xyz")) == 7


def test_errors_are_sentences():
    frames = clusters()
    frames[1].positions[0] = frames[1].positions[1]
    ase.io.write("many.xyz", frames)
    result = run("relax", "many.xyz", "--index", ":", "--output", "out")
    assert result.exit_code == 1 and "structure 1, the first of 1: " in sentence(result) and "coincide" in result.stderr
    assert len(ase.io.read("out/final.xyz", index=":")) == 3
    result = run("relax", "many.xyz", "--index", ":", "--steps", "2", "--output", "out", "--force")
    assert result.exit_code == 1
    ase.io.write("fine.xyz", [frames[0], frames[2]])
    result = run("relax", "fine.xyz", "--index", ":", "--steps", "2", "--output", "out", "--force")
    assert "not converged: 2 of 2 structures, the first of them 0" in sentence(result)
    result = run("relax", "fine.xyz", "--index", ":", "--optimizer", "BFGS")
    assert "many structures at once are relaxed by FIRE, not by BFGS" in sentence(result)
    assert "neither a frame's number nor : for all" in run("relax", "fine.xyz", "--index", "x").stderr.replace(
        "\n", " "
    )
    ase.io.write("two.xyz", [frames[0], Atoms("ArNe", [[0, 0, 0], [0, 0, 2.0]])])
    assert "structure 1: " in sentence(run("relax", "two.xyz", "--index", ":"))
    assert sentence(run("relax", "none.xyz", "--index", ":"))


def files_of(folder):
    names = ("trajectory.xyz", "log.csv", "final.xyz")
    return [(Path(folder) / name).read_bytes() for name in names]


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_each_structure_of_a_file_moves_and_can_go_on_alone(ensemble):
    ase.io.write("many.xyz", clusters())
    common = ("many.xyz", "--index", ":", "--ensemble", ensemble, "--interval", "5", "--seed", "3")
    assert run("md", *common, "--steps", "20", "--output", "whole").exit_code == 0
    result = run("md", *common, "--steps", "10", "--output", "part")
    assert result.exit_code == 0 and "structures" in result.stdout
    for k, atoms in enumerate(clusters()):
        assert len(ase.io.read(f"part/{k}/trajectory.xyz", index=":")) == 3
        assert run("md", "--restart", f"part/{k}", "--steps", "20").exit_code == 0
        assert files_of(f"part/{k}") == files_of(f"whole/{k}")
        assert len(ase.io.read(f"whole/{k}/final.xyz")) == len(atoms)
    assert json.loads(Path("whole/summary.json").read_text())["steps"] == 20


def test_a_structure_that_cannot_be_moved_is_named_before_anything_is_written():
    frames = clusters()
    frames[1].positions[0] = frames[1].positions[1]
    ase.io.write("many.xyz", frames)
    result = run("md", "many.xyz", "--index", ":", "--output", "out")
    assert result.exit_code == 1 and "structure 1: expected atoms at different places" in sentence(result)
    assert not [*Path("out").glob("*.xyz")]
    result = run("md", "many.xyz", "--index", ":", "--ensemble", "npt")
    assert result.exit_code == 1 and sentence(result)


def test_a_forced_run_leaves_no_system_of_a_larger_one():
    """But what is somebody else's."""
    ase.io.write("twelve.xyz", [lj_cluster("3", np.random.default_rng(0))] * 12)
    ase.io.write("two.xyz", [lj_cluster("3", np.random.default_rng(0))] * 2)
    options = ("--index", ":", "--steps", 2, "--output", "out", "--force")
    assert run("md", "twelve.xyz", *options).exit_code == 0 and Path("out/11/log.csv").exists()
    for folder in ("out/05", "out/2024"):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, "mine.txt").write_text("precious")
    Path("out/2024/log.csv").write_text("precious")
    assert run("md", "two.xyz", *options).exit_code == 0
    assert sorted(path.name for path in Path("out").iterdir() if path.is_dir()) == ["0", "05", "1", "2024"]
    assert [path.name for path in Path("out/05").iterdir()] == ["mine.txt"]
    assert Path("out/2024/log.csv").read_text() == "precious"


def test_all_systems_of_a_folder_go_on_at_once():
    ase.io.write("many.xyz", clusters())
    common = ("many.xyz", "--index", ":", "--ensemble", "langevin", "--interval", "5", "--seed", "3")
    assert run("md", *common, "--steps", "20", "--output", "whole").exit_code == 0
    assert run("md", *common, "--steps", "10", "--output", "part").exit_code == 0
    result = run("md", "--restart", "part", "--steps", "20", "--index", ":", "--seed", "3")
    assert result.exit_code == 0 and "structures" in result.stdout and "many.xyz" in result.stdout
    for k in range(3):
        assert files_of(f"part/{k}") == files_of(f"whole/{k}")
    assert "system 0: seed is 3 in the run to continue, not 4" in sentence(
        run("md", "--restart", "part", "--seed", "4")
    )
