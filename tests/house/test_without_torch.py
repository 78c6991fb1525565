"""A model file runs without torch: each way in, in a process of its own."""

import json
import os
import subprocess
import sys

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from heads import with_heads
from safetensors_parts import entry_of, joined, parts

import mdgnn

BLOCKED = """
import importlib.metadata
import sys

installed = importlib.metadata.Distribution.from_name

def from_name(name):
    if name == "torch":
        raise importlib.metadata.PackageNotFoundError(name)
    return installed(name)

importlib.metadata.Distribution.from_name = from_name

class Blocked:
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name="torch")

sys.meta_path.insert(0, Blocked)
"""
UNUSED = "\nassert 'torch' not in sys.modules, 'torch was imported'\n"
START = """
from ase.build import bulk
import numpy as np
from mdgnn import Ensemble, MDGNNCalculator
from mdgnn.dynamics import NPT, Langevin, relax, restart, simulate

atoms = bulk("Ar", cubic=True, a=1.6) * (2, 2, 2)
atoms.rattle(0.01, seed=0)
"""
WAYS = {
    "calculator": """
atoms.calc = MDGNNCalculator("lj")
assert np.isfinite([atoms.get_potential_energy(), *atoms.get_forces().ravel(), *atoms.get_stress()]).all()
assert atoms.get_stresses().shape == (32, 6) and "engine" in repr(atoms.calc) and atoms.calc.units == "lj"
""",
    "set and copies": """
import copy, os, pickle, shutil
from mdgnn.locate import locate
energy = MDGNNCalculator("lj").get_potential_energy(atoms)
shutil.copy(locate("lj"), "mine.safetensors")
calc = MDGNNCalculator("mine.safetensors")
os.remove("mine.safetensors")
assert set(calc.set(skin=0.3, too_close="ignore")) == {"skin", "too_close"}
for one in (calc, copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
    one.set(skin=0.2)
    assert one.get_potential_energy(atoms) == energy and one.skin == 0.2 and one.too_close == "ignore"
""",
    "evaluate": """
calc = MDGNNCalculator("lj")
one, two = calc.evaluate([atoms, atoms[:1] * (3, 3, 3)], stress=True)
assert one["energy"] == calc.get_potential_energy(atoms)
assert (one["stress"] == calc.get_stress(atoms)).all() and (one["forces"] == calc.get_forces(atoms)).all()
""",
    "properties": """
from ase import Atoms
calc = atoms.calc = MDGNNCalculator("heads.safetensors")
atoms.get_forces()
assert "gap" not in calc.results and calc.others == ("volume", "gap", "charges")
gap, charges = calc.get_property("gap", atoms), atoms.get_charges()
several = calc.evaluate([atoms, Atoms("Ar"), atoms[:1] * (3, 3, 3)])
assert several[0]["gap"] == gap and (several[0]["charges"] == charges).all() and len(charges) == 32
assert Ensemble(["heads.safetensors"] * 2).get_property("gap", atoms) == gap
alone = MDGNNCalculator("properties-alone.safetensors")
assert alone.get_property("gap", atoms) == gap and set(alone.evaluate(atoms)[0]) == set(alone.others)
""",
    "ensemble": """
atoms.calc = Ensemble(["lj", "lj"])
atoms.get_forces()
assert atoms.calc.results["energy_std"] == 0
""",
    "relax": """
assert relax(atoms, "lj", folder="relaxed").converged
""",
    "md": """
simulate(atoms, "lj", Langevin(0.2), folder="md", steps=20)
restart("md", steps=30)
simulate(atoms, MDGNNCalculator("lj"), folder="md-of-a-calculator", steps=2)
simulate(atoms, "lj", NPT(0.2), folder="npt", steps=2)
""",
}
COMMANDS = {
    "relax": "relax lj:13",
    "evaluate": "evaluate lj labelled.xyz",
    "evaluate properties": "evaluate heads.safetensors labelled.xyz --output properties",
    "evaluate properties alone": "evaluate properties-alone.safetensors labelled.xyz --output properties-alone",
    "md": "md lj:13 --steps 20",
    "npt": "md crystal.xyz --steps 2 --ensemble npt",
    "summary": "dataset summary labelled.xyz --units lj",
    "info": "info",
    "help": "--help",
}
COMMANDS_THAT_NEED_IT = ("info lj", "dataset lj lj", "train recipe.toml")
NEEDS = {
    'MDGNNCalculator("lj", dtype="float64")': "backend 'auto' in float64 of a file with a program in float32",
    'MDGNNCalculator("lj", backend="torch")': "backend 'torch' in float32 of a file with a program in float32",
    'MDGNNCalculator("lj", device="cuda")': "device 'cuda'",
    'MDGNNCalculator("lj").model': "the torch module of a model",
    'MDGNNCalculator("before.safetensors").get_property("gap", atoms)': "a model with properties that the program of",
}


NAMES = """
import mdgnn, mdgnn.data, mdgnn.engine
assert all({*package.__all__} <= {*dir(package)} for package in (mdgnn, mdgnn.data, mdgnn.engine))
assert mdgnn.data.frames.read_frames is mdgnn.data.read_frames
assert mdgnn.model_header.read_header("lj")["units"] == "lj"
for package in (mdgnn, mdgnn.data, mdgnn.engine):
    assert not any(hasattr(package, name) for name in ("no_such_name", "__no_such_name__", "_no_such_name"))
"""


def run(code, folder):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.fixture
def folder(tmp_path):
    """With a crystal, without and with labels."""
    atoms = bulk("Ar", cubic=True, a=1.6) * (2, 2, 2)
    atoms.rattle(0.02, seed=1)
    ase.io.write(tmp_path / "crystal.xyz", atoms)
    atoms.calc = mdgnn.MDGNNCalculator("lj")
    atoms.get_stress()
    atoms.info["gap"] = 0.5
    atoms.set_array("charges", np.linspace(-1, 1, 32))
    ase.io.write(tmp_path / "labelled.xyz", atoms, format="extxyz")
    for name, energy in (("heads", True), ("properties-alone", False)):
        mdgnn.save(with_heads("SchNet", energy, dtype=torch.float32), tmp_path / f"{name}.safetensors")
    header, data = parts(tmp_path / "heads.safetensors")
    entry = entry_of(header)
    entry["program"]["version"] = 2  # of the release before, without properties
    del entry["program"]["properties"]
    header["__metadata__"]["mdgnn"] = json.dumps(entry)
    (tmp_path / "before.safetensors").write_bytes(joined(header, data))
    return tmp_path


@pytest.mark.parametrize("blocked", ["", BLOCKED], ids=["torch is there", "torch is not there"])
@pytest.mark.parametrize("way", WAYS)
def test_python(way, blocked, folder):
    status, told = run(f"import sys\n{blocked}{START}{WAYS[way]}{UNUSED}", folder)
    assert status == 0, told


def test_names_that_are_imported_when_asked_for_are_in_dir_and_so_are_modules(folder):
    status, told = run(f"import sys\n{BLOCKED}{NAMES}{UNUSED}", folder)
    assert status == 0, told


@pytest.mark.parametrize("command", COMMANDS)
def test_command_line(command, folder):
    code = f"{BLOCKED}\nfrom mdgnn.cli import app\napp({COMMANDS[command].split()})"
    status, told = run(code, folder)
    assert status == 0, told


@pytest.mark.parametrize("code", NEEDS)
def test_what_needs_torch_says_so_in_a_sentence(code, folder):
    status, told = run(f"{BLOCKED}{START}{code}", folder)
    sentence = told.strip().rpartition("\n")[2]
    assert status == 1 and sentence.startswith(f"mdgnn._internal.needs_torch.NeedsTorchError: {NEEDS[code]}")
    assert sentence.endswith(" needs torch, which is not installed: pip install torch")


@pytest.mark.parametrize("command", COMMANDS_THAT_NEED_IT)
def test_a_command_that_needs_torch_says_so_in_a_sentence(command, folder):
    (folder / "recipe.toml").write_text('[data]\ntrain = "labelled.xyz"\n')
    status, told = run(f"{BLOCKED}\nfrom mdgnn.cli import app\napp({command.split()})", folder)
    assert (status, told) == (1, "mdgnn: this needs torch, which is not installed: pip install torch\n")


@pytest.mark.parametrize(("wanted", "n_threads"), [("3", 3), (" 5,2", 5), ("", 0), ("0", 0), ("many", 0)])
def test_threads_are_those_that_torch_would_take(wanted, n_threads, folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    n_threads = n_threads or len(os.sched_getaffinity(0))
    code = f"{BLOCKED}\nimport mdgnn\nassert mdgnn.get_num_threads() == {n_threads}, mdgnn.get_num_threads()"
    status, told = run(code, folder)
    assert status == 0, told


def test_a_file_without_a_program_says_so_in_a_sentence(folder):
    mdgnn.save(mdgnn.LennardJones(), folder / "formula.safetensors")
    command = ["relax", "lj:13", "--model", "formula.safetensors"]
    status, told = run(f"{BLOCKED}\nfrom mdgnn.cli import app\napp({command})", folder)
    assert status == 1 and told.startswith("mdgnn: backend 'auto' in float32 of a file with no program for the engine")
    assert told.count("\n") == 1
