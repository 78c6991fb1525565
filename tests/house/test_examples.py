"""The examples, run as a user runs them, print the lecture's numbers and leave its pictures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from figures import assert_picture

EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER = r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?"


def run(name, *arguments):
    """Standard output of an example."""
    command = [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(output, start):
    """The numbers on the only line that begins with `start`, after that beginning."""
    (line,) = [line for line in output.splitlines() if line.startswith(start)]
    return [float(x) for x in re.findall(NUMBER, line[len(start) :])]


def test_examples_are_few_and_short():
    files = list(EXAMPLES.glob("*.py"))
    assert len(files) <= 6
    assert all(len(file.read_text().splitlines()) <= 80 for file in files)


def test_graphs(tmp_path):
    output = run("graphs.py", tmp_path)
    assert numbers(output, "water:")[:2] == [3, 6]
    edges = re.findall(r"edge (\w)\((\d)\) - (\w)\((\d)\): (.*) A", output)
    assert edges == [
        ("O", "0", "H", "1", "0.958"),
        ("O", "0", "H", "2", "0.958"),
        ("H", "1", "O", "0", "0.958"),
        ("H", "1", "H", "2", "1.514"),
        ("H", "2", "O", "0", "0.958"),
        ("H", "2", "H", "1", "1.514"),
    ]
    expected = [0, 0.003, 0.020, 0.089, 0.278, 0.607, 0.923, 0.980, 0.726, 0.375, 0.135, 0.034, 0.006, 0.001, 0, 0]
    assert numbers(output, "basis of r = 2.5:") == expected
    for name in ("water_graph", "message_passing", "radial_basis"):
        assert_picture(tmp_path / f"{name}.png")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder and the output of the training on Lennard-Jones clusters."""
    folder = tmp_path_factory.mktemp("lj_clusters")
    return folder, run("lj_clusters.py", folder)


def test_lj_clusters(trained):
    folder, output = trained
    assert numbers(output, "clusters:") == [2000, -4.36, 77.49]
    assert numbers(output, "batch of three:") == [12, 36, 56.1277, -0.7629, -1.3259]
    assert numbers(output, "parameters:") == [21585]
    assert numbers(output, "R2:")[0] >= 0.9902
    assert numbers(output, "MAE:")[0] <= 0.3313
    assert_picture(folder / "lj_clusters.png")


def test_symmetry(trained):
    output = run("symmetry.py", trained[0])
    energy_error, force_error = numbers(output, "float32, first test cluster:")
    assert energy_error <= 1e-6
    assert force_error <= 1e-5
    energy_error, force_error = numbers(output, "float64, all test clusters:")
    assert energy_error <= 1e-12
    assert force_error <= 1e-11


def test_symmetry_without_a_model_says_what_to_run(tmp_path):
    command = [sys.executable, EXAMPLES / "symmetry.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "run examples/lj_clusters.py first" in done.stderr


def test_variable_size(tmp_path):
    output = run("variable_size.py", tmp_path)
    assert numbers(output, "molecules:") == [1420, 3, 6, 0.70, 7.34]
    assert numbers(output, "without any edge:") == [9]
    assert numbers(output, "R2:")[0] >= 0.93
    assert_picture(tmp_path / "variable_size.png")


@pytest.mark.parametrize("calculator", ["mdgnn", "xtb"])
def test_water(calculator):
    if calculator == "xtb":
        pytest.importorskip("tblite")
    output = run("water.py", calculator)
    assert numbers(output, "bond lengths:") == pytest.approx([0.9592, 0.9592], abs=0.005)
    assert numbers(output, "angle:") == pytest.approx([107.22], abs=0.5)
