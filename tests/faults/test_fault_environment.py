"""Calculators and commands give the same numbers in every environment, and leave the process as it was."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from environment_runs import COMMANDS, OF_FILES, OF_RUNS, SETTINGS
from figures import assert_picture

PROGRAM = Path(__file__).parents[1] / "support" / "environment_runs.py"
ENVIRONMENTS = {
    "nothing": {},
    "one thread, no GPU, C": {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "LC_ALL": "C", "PYTHONUTF8": "0"},
    "three threads, no HOME": {"OMP_NUM_THREADS": "3", "HOME": None, "PYTHONHASHSEED": "7"},
    "garbage": {"OMP_NUM_THREADS": "many", "PYTHONHASHSEED": "0"},
    "optimised, strict": {"PYTHONOPTIMIZE": "1", "PYTHONWARNINGS": "error", "HOME": "unwritable"},
}


def start(folder, changes, *options):
    environment = {**os.environ, **changes}
    if changes.get("HOME"):
        file = folder.parent / "file"
        file.touch()
        environment["HOME"] = str(file / "home")  # where not even root can make anything
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, str(PROGRAM), str(folder), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def read(folder, done):
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text())
    assert "error" not in found, found["error"]
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment") / "run"
    return read(folder, start(folder, {}))


@pytest.fixture(scope="module")
def set_by_callers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settings") / "runs"
    return folder, start(folder, {"OMP_NUM_THREADS": "1"}, "--set")


def same_numbers(found, plain, commands):
    """In all that so many commands leave, since in some environments not all of them are run."""
    assert found["numbers"] == plain["numbers"]
    names = {f"{command}: {name}" for command in commands for name in ("status", *OF_RUNS)}
    assert found["commands"] == {name: plain["commands"][name] for name in names}


def test_a_calculator_and_a_command_change_nothing_of_the_process(plain):
    assert plain["changed"] == {}
    assert not [name for name in plain["commands"] if name.endswith("after commands")]
    assert [plain["commands"][f"{command}: status"] for command in COMMANDS] == ["1", "0"], "the first one stops early"
    for command in COMMANDS:
        assert all(len(plain["commands"][f"{command}: {name}"]) > 100 for name in OF_RUNS), "and both leave their files"


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name != "nothing"])
def test_the_same_numbers_in_the_environment(name, plain, tmp_path):
    found = read(tmp_path / "run", start(tmp_path / "run", ENVIRONMENTS[name]))
    same_numbers(found, plain, COMMANDS[:1] if "PYTHONOPTIMIZE" in ENVIRONMENTS[name] else COMMANDS)
    assert found["changed"] == {}


def test_a_command_draws_whatever_the_callers_screen_is(tmp_path):
    """A notebook's backend, or a name that matplotlib does not know and so refuses to be imported."""
    command = [sys.executable, "-c", "from mdgnn.cli import main; main()", "relax", "lj:7", "--output", "run"]
    environment = {**os.environ, "MPLBACKEND": "garbage"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    for name in ("energy", "radial_distribution", "structures"):
        assert_picture(tmp_path / "run" / f"{name}.png")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_numbers_whatever_the_caller_has_set(name, plain, set_by_callers):
    folder, done = set_by_callers
    found = read(folder / name.replace(" ", "_").replace("'", ""), done)
    if found["skipped"]:
        pytest.skip(found["skipped"])
    same_numbers(found, plain, COMMANDS[:1] if name in OF_FILES else ())
    assert found["changed"] == {}
