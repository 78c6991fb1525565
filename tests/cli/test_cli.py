"""The command line: structures by name, velocities, relaxation, errors, and what an output folder holds."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms
from command_line import run, sentence
from figures import assert_picture
from safetensors_parts import entry_of, joined, parts

import mdgnn
from mdgnn import cli
from mdgnn._internal.user_modules import import_named, modules_of
from mdgnn.calculators.mdgnn_calculator import DTYPES
from mdgnn.cli import info
from mdgnn.dynamics.ensembles import ENSEMBLES
from mdgnn.dynamics.lj_clusters import ICOSAHEDRA, NEAREST, lj_cluster
from mdgnn.dynamics.molecular_dynamics import draw_velocities
from mdgnn.dynamics.relaxation import OPTIMIZERS


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_choices_of_the_command_line_are_those_of_the_package():
    assert get_args(cli.Optimizer) == OPTIMIZERS
    assert get_args(cli.Ensemble) == tuple(ENSEMBLES)
    assert set(get_args(cli.Dtype)) == set(DTYPES)


def test_help_is_quick():
    code = "import sys, mdgnn.cli; print([m for m in ('torch', 'ase', 'matplotlib', 'numpy') if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    text = run("md", "--help").output
    assert all(option in text for option in ("--ensemble", "--restart", "tau or fs"))


def test_modules_of_the_current_folder_hide_none(tmp_path, monkeypatch):
    for name in ("zipapp", "of_this_folder"):  # the first is Python's, too
        (tmp_path / f"{name}.py").write_text("here = True\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    before = [*sys.path]
    with modules_of(""):
        assert import_named("of_this_folder").here and sys.path == before
        assert not hasattr(import_named("zipapp"), "here")
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "of_this_folder")
    with pytest.raises(ModuleNotFoundError):
        import_named("of_this_folder")


ONLY_NAMED = """
import sys
sys.path = [place for place in sys.path if place]  # as of the installed command

class Asked:
    def find_spec(name, path=None, target=None):
        if path is None and "" in sys.path:
            print("asked for", name)

sys.meta_path.insert(0, Asked)
from mdgnn.cli import main
main()
"""


def test_nothing_of_the_current_folder_runs_that_nobody_named(tmp_path):
    """The first imports of torch and Lightning try packages that may be absent, such as opt_einsum."""
    for name in ("opt_einsum", "named", "pydantic", "lightning"):
        (tmp_path / f"{name}.py").write_text(f"print('ran', {name!r})\n")
    (tmp_path / "train.toml").write_text(
        'model = { start = "water", trusted = ["named"] }\ndata = { train = "none.xyz", valid = 0.5 }\n'
    )
    for arguments, expected in (
        (("train", "train.toml"), ["asked for named", "ran named"]),
        (("evaluate", "water", "none.xyz"), []),
        (("plot", "none"), []),
    ):
        done = subprocess.run([sys.executable, "-c", ONLY_NAMED, *arguments], capture_output=True, text=True)
        assert done.returncode == 1 and "none" in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert done.stdout.splitlines() == expected


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "mdgnn", "--help"], capture_output=True, text=True, check=True)
    assert "evaluate" in done.stdout


def test_options_have_their_names_in_what_info_shows():
    """Files have an older name of min_distance."""
    rows = info.model("lj")
    assert float(rows["min_distance"]) > 0 and "min_distance" in rows["config"]
    assert not any("least_distance" in text for row in rows.items() for text in row)


@pytest.mark.parametrize("config", [None, [], "cutoff"])
def test_info_of_a_file_without_options_is_a_sentence(tmp_path, config):
    path = tmp_path / "m.safetensors"
    mdgnn.save(mdgnn.SchNet(4, 1, 4), path)
    header, tensors = parts(path)
    header["__metadata__"]["mdgnn"] = json.dumps(entry_of(header) | {"config": config})
    path.write_bytes(joined(header, tensors))
    told = run("info", path)
    assert told.exit_code == 1 and "broken mdgnn header: expected options as config, got" in sentence(told)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 13, 20, 38, 55, 60, 147])
def test_lj_clusters(n):
    atoms = lj_cluster(str(n), np.random.default_rng(n))
    assert len(atoms) == n and not atoms.pbc.any() and set(atoms.symbols) == {"Ar"}
    np.testing.assert_allclose(atoms.positions.mean(axis=0), 0, atol=1e-12)
    if n > 1:
        distances = atoms.get_all_distances() + 100 * np.eye(n)
        assert distances.min() > 0.9
        assert np.all(distances.min(axis=1) <= NEAREST + 1e-9), "every atom touches another"
        assert distances[distances < 100].max() < 2.2 * n ** (1 / 3), "compact"


def test_random_clusters_follow_the_seed():
    first, again, other = (lj_cluster("30", np.random.default_rng(seed)).positions for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.allclose(first, other)
    assert list(ICOSAHEDRA)[:5] == [1, 13, 55, 147, 309]


@pytest.mark.parametrize("size", ["0", "-3", "x", "", "3.5", "1e3", "²", "100000000"])
def test_impossible_clusters(size):
    with pytest.raises(ValueError, match="whole number of atoms"):
        lj_cluster(size, np.random.default_rng(0))
    result = run("relax", f"lj:{size}")
    assert result.exit_code == 1 and f"'lj:{size}'" in sentence(result)


def test_relax_finds_the_icosahedron(model):
    result = run("relax", "lj:13", "--model", model, "--dtype", "float64", "--fmax", 1e-4)
    assert result.exit_code == 0, result.output
    folder = Path("mdgnn-relax-lj13")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["converged"] and summary["final_fmax"] < 1e-4
    settings = {"structure": "lj:13", "seed": 0, "fmax": 1e-4, "optimizer": "LBFGS", "steps": 1000, "dtype": "float64"}
    assert settings.items() <= summary["settings"].items()
    assert summary["final_energy"] == pytest.approx(-44.326801, abs=1e-6)
    assert summary["true_lj_energy"] == pytest.approx(summary["final_energy"], abs=1e-9)
    assert "-44.326801" in result.output

    frames = ase.io.read(folder / "trajectory.xyz", index=":")
    final = ase.io.read(folder / "final.xyz")
    log = np.loadtxt(folder / "log.csv", delimiter=",", skiprows=1)
    assert (folder / "log.csv").read_text().startswith("step,energy[epsilon],fmax[epsilon/sigma]\n")
    assert len(frames) == len(log) == summary["steps"] + 1
    np.testing.assert_allclose([frame.get_potential_energy() for frame in frames], log[:, 1], atol=1e-6)
    assert np.abs(final.get_forces()).max() < 1e-4
    for name in ("energy.png", "radial_distribution.png", "structures.png"):
        assert_picture(folder / name)


@pytest.mark.parametrize("optimizer", ["fire", "LBFGS", "BFGSLineSearch"])
def test_other_optimizers(model, optimizer):
    result = run("relax", "lj:13", "--model", model, "--optimizer", optimizer, "--dtype", "float64", "--output", "o")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("o/summary.json").read_text())["final_energy"] == pytest.approx(-44.326801, abs=1e-3)


def test_not_converged_is_a_failure_that_keeps_its_output(model):
    result = run("relax", "lj:20", "--model", model, "--steps", 2)
    assert result.exit_code == 1 and "not converged: after 2 steps" in sentence(result)
    assert len(ase.io.read("mdgnn-relax-lj20/trajectory.xyz", index=":")) == 3
    assert not json.loads(Path("mdgnn-relax-lj20/summary.json").read_text())["converged"]


@pytest.mark.parametrize("command", ["relax", "md"])
def test_nothing_is_overwritten_unasked(model, command):
    folder = Path("mine")
    folder.mkdir()
    (folder / "notes.txt").write_text("precious")
    (folder / "final.xyz").write_text("old")
    result = run(command, "lj:3", "--model", model, "--steps", 60, "--output", folder)
    assert result.exit_code == 1 and "is not empty" in sentence(result)
    assert sorted(path.name for path in folder.iterdir()) == ["final.xyz", "notes.txt"]
    assert (folder / "final.xyz").read_text() == "old"
    forced = run(command, "lj:3", "--model", model, "--steps", 60, "--output", folder, "--force")
    assert forced.exit_code == 0, forced.output
    assert (folder / "notes.txt").read_text() == "precious" and len(ase.io.read(folder / "final.xyz")) == 3
    occupied = run(command, "lj:3", "--model", model, "--output", folder / "notes.txt")
    assert occupied.exit_code == 1 and "is a file" in sentence(occupied)


def _atoms(kind):
    atoms = Atoms("Ar3", [[0, 0, 0], [1.1, 0, 0], [0, 1.1, 0]])
    if kind == "nan":
        atoms.positions[1, 1] = np.nan
    if kind == "together":
        atoms.positions[2] = atoms.positions[0]
    if kind == "element":
        atoms.symbols[2] = "Ne"
    return atoms


@pytest.mark.parametrize(
    ("kind", "words"), [("nan", "for atom 1"), ("together", "atoms 0 and 2"), ("element", "Ne for atom 2")]
)
@pytest.mark.parametrize("command", ["relax", "md"])
def test_impossible_structures(model, command, kind, words):
    ase.io.write("structure.xyz", _atoms(kind), format="xyz")
    result = run(command, "structure.xyz", "--model", model, "--output", "out")
    assert result.exit_code == 1 and words in sentence(result)
    assert not Path("out").exists()


def test_forces_that_overflow(model):
    ase.io.write("close.xyz", Atoms("Ar2", [[0, 0, 0], [1e-4, 0, 0]]))
    result = run("md", "close.xyz", "--model", model, "--output", "run")
    assert result.exit_code == 1 and "not finite" in sentence(result)
    assert not Path("run").exists()


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
@pytest.mark.parametrize("n", [1, 2])
def test_smallest_systems(model, n, ensemble):
    assert run("md", f"lj:{n}", "--model", model, "--ensemble", ensemble, "--steps", 20, "--output", "o").exit_code == 0
    assert np.isfinite(np.loadtxt("o/log.csv", delimiter=",", skiprows=1)).all()
    assert_picture("o/energy.png")


def test_unreadable_files(model):
    Path("structure.xyz").write_text("this is no structure\n")
    Path("foreign.safetensors").write_bytes(b"\0" * 20)
    Path("cut.safetensors").write_bytes(model.read_bytes()[:-1] if model.stat().st_size % 2 else b"{")
    cases = [
        (("relax", "structure.xyz"), "cannot read a structure from structure.xyz"),
        (("relax", "missing.xyz"), "no structure file 'missing.xyz'"),
        (("relax", "lj:3", "--model", "missing"), "no model file 'missing'"),
        (("relax", "lj:3", "--model", "foreign.safetensors"), "foreign.safetensors is not"),
        (("info", "cut.safetensors"), "cut.safetensors is not"),
        (("md", "--restart", "nowhere"), "no checkpoint"),
        (("relax", "lj:3", "--model", model, "--device", "abacus"), "'abacus'"),
        (("relax", "lj:3", "--model", model, "--fmax", "nan"), "positive fmax"),
        (("md", "lj:3", "--model", model, "--timestep", 0), "timestep above 0"),
        (("md", "lj:3", "--model", model, "--temperature", "nan"), "temperature of at least 0"),
        (("md", "lj:3", "--model", model, "--friction", -1), "friction of at least 0"),
    ]
    for arguments, words in cases:
        result = run(*arguments)
        assert result.exit_code == 1 and words in sentence(result), arguments


@pytest.mark.parametrize(
    "arguments",
    [
        ("md",),
        ("md", "lj:3", "--restart", "x"),
        ("md", "--restart", "x", "--output", "y"),
        ("md", "lj:3", "--ensemble", "nph"),
        ("relax", "lj:3", "--optimizer", "guess"),
        ("relax", "lj:3", "--steps", "-1"),
        ("relax",),
        ("nothing",),
    ],
)
def test_wrong_usage(arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_absent_device(model):
    result = run("relax", "lj:3", "--model", model, "--device", "cuda")
    assert result.exit_code == 1 and "no CUDA device" in sentence(result)


def test_info(model):
    here = run("info")
    assert here.exit_code == 0 and all(word in here.output for word in (mdgnn.__version__, "torch", "threads", "lj"))
    header = run("info", model)
    assert header.exit_code == 0 and "LennardJones" in header.output and "units" in header.output
    assert "cannot run this LennardJones" in info.model(str(model))["backend on the CPU"]
    assert info.model("lj")["backend on the CPU"] == "engine"
    acac = info.model("acac")  # whose record of training stood in one line
    assert json.loads(acac["training.config.optimizer"])["ema"] == 0.999 and acac["training.steps"].isdigit()
    assert max(map(len, acac.values())) < 500


def test_periodic_structures_and_fixed_atoms(model, tmp_path):
    """A crystal in a format of its own, one atom of which its file declares fixed."""
    periodic = tmp_path / "periodic.safetensors"
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), periodic)
    crystal = bulk("Ar", "fcc", a=1.55, cubic=True).repeat(2)
    crystal.rattle(0.03, seed=1)
    crystal.set_constraint(FixAtoms([0]))
    ase.io.write("POSCAR", crystal, direct=True)
    result = run("relax", "POSCAR", "--model", periodic, "--fmax", 0.05)
    assert result.exit_code == 0, result.output
    final = ase.io.read("mdgnn-relax-POSCAR/final.xyz")
    assert final.pbc.all()
    np.testing.assert_allclose(final.positions[0], crystal.positions[0], atol=1e-7)
    summary = json.loads(Path("mdgnn-relax-POSCAR/summary.json").read_text())
    assert summary["final_energy"] < summary["initial_energy"] and "true_lj_energy" not in summary
    moved = run("md", "POSCAR", "--model", periodic, "--ensemble", "langevin", "--steps", 20)
    assert moved.exit_code == 0, moved.output
    assert_picture("mdgnn-md-POSCAR/radial_distribution.png")
    after = ase.io.read("mdgnn-md-POSCAR/final.xyz")
    np.testing.assert_allclose(after.positions[0], crystal.positions[0], atol=1e-7)
    assert np.abs(after.positions[1:] - crystal.positions[1:]).max(axis=1).min() > 1e-6


def test_demo_runs_twice_and_meets_the_lowest_energies():
    """The shipped model: relaxed from starts displaced by 0.1 sigma, its geometries are those of the true potential."""
    demo = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "demo.py"))
    for _ in range(2):
        demo["main"](Path("out"), steps=20)
    for n, lowest in ((13, -44.326801), (38, -173.928427), (55, -279.248470)):
        summary = json.loads(Path(f"out/relax-lj{n}/summary.json").read_text())
        assert summary["converged"] and summary["true_lj_energy"] == pytest.approx(lowest, abs=0.05)
    assert_picture(Path("out/nve-lj55/energy.png"))


def test_velocities_of_a_temperature():
    """3/2 kT an atom within the noise, the cluster neither drifting nor turning; also for one, two, three in a line."""
    kinetic = []
    for seed in range(20):
        atoms = lj_cluster("147", np.random.default_rng(seed))
        atoms.set_masses(np.ones(147))
        draw_velocities(atoms, 0.2 / units.kB, np.random.default_rng(seed))
        kinetic.append(atoms.get_kinetic_energy() / 147)
        assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-12
        assert np.abs(atoms.get_angular_momentum()).max() < 1e-10
    assert np.mean(kinetic) == pytest.approx(1.5 * 0.2, rel=4 * np.sqrt(2 / (3 * 147 * 20)))
    for n in (1, 2, 3):
        atoms = Atoms(f"Ar{n}", [[1.1 * i, 0.2 * i, 0] for i in range(n)])
        draw_velocities(atoms, 300, np.random.default_rng(0))
        assert np.isfinite(atoms.get_momenta()).all() and atoms.get_kinetic_energy() > 0
        if n > 1:
            assert np.abs(atoms.get_angular_momentum() / np.abs(atoms.get_momenta()).max()).max() < 1e-10
