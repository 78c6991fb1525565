"""The examples, run as a user runs them, print the lecture's numbers and leave its pictures."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from figures import assert_picture, legend
from warnings_as_errors import WARNINGS_AS_ERRORS

EXAMPLES = Path(__file__).parents[2] / "examples"
DRAWN = Path(__file__).parents[1] / "support" / "drawn.py"
NUMBER = r"[-+]?\d+\.?\d*(?:e[-+]?\d+)?"


def run(name, *arguments):
    """Standard output of an example, whose figures stay beside its pictures."""
    command = [sys.executable, *WARNINGS_AS_ERRORS, DRAWN, EXAMPLES / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(output, start):
    """The numbers on the only line that begins with `start`, after that beginning."""
    (line,) = [line for line in output.splitlines() if line.startswith(start)]
    return [float(x) for x in re.findall(NUMBER, line[len(start) :])]


def panels(path):
    """The axes of a picture."""
    assert_picture(path)
    return pickle.loads(path.with_suffix(".pickle").read_bytes()).axes


def words(axes):
    """Its title and the labels of its axes."""
    return axes.get_title(), axes.get_xlabel(), axes.get_ylabel()


def points(collection):
    """(n, 2), of a scatter plot."""
    return np.asarray(collection.get_offsets())


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

    water, graph = panels(tmp_path / "water_graph.png")
    assert words(water) == ("Water: bonds and the H-H distance", "x (A)", "y (A)")
    assert words(graph) == ("Its graph: a message along every edge", "", "") and not graph.axison
    (atoms,), (nodes,) = water.collections, graph.collections
    assert len(points(atoms)) == len(points(nodes)) == 3
    ends = {tuple(sorted(map(tuple, line.get_xydata().round(3)))) for line in water.lines}
    assert len(water.lines) == 6 and len(ends) == 3 and not graph.lines, "a line for each direction"
    assert all(tuple(end) in map(tuple, points(atoms).round(3)) for pair in ends for end in pair)
    texts = [text.get_text() for text in water.texts]
    assert sorted(texts[3:]) == sorted(r for *_, r in edges) and texts[:3] == ["O 0\nZ=8", "H 1\nZ=1", "H 2\nZ=1"]
    assert sum(text.get_text() == "" for text in graph.texts) == 6, "an arrow for each message"

    steps = panels(tmp_path / "message_passing.png")
    assert [axes.get_title().split(":")[0] for axes in steps] == ["Send", "Aggregate", "Update"]
    assert [len(axes.lines) for axes in steps] == [6, 6, 6]
    assert [len(points(axes.collections[0])) for axes in steps] == [5, 5, 5]
    assert [sum(text.get_text() == "" for text in axes.texts) for axes in steps] == [2, 0, 0]
    colors = [axes.collections[0].get_facecolor() for axes in steps]
    assert [np.flatnonzero((c != c[4]).any(1)).tolist() for c in colors] == [[1, 2], [0], [0]]

    (basis,) = panels(tmp_path / "radial_basis.png")
    assert words(basis) == ("Gaussian radial basis", "distance r (A)", "value")
    r, values = basis.lines[0].get_xdata(), np.array([line.get_ydata() for line in basis.lines])
    np.testing.assert_allclose(r[values.argmax(1)], np.linspace(0.5, 5, 16), atol=0.011)
    np.testing.assert_allclose(values[:, np.abs(r - 2.5).argmin()], expected, atol=6e-4)


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

    parity, histogram, training = panels(folder / "lj_clusters.png")
    r2, mae = numbers(output, "R2:")[0], numbers(output, "MAE:")[0]
    assert words(parity) == (f"Parity, R2 = {r2:.4f}", "true energy (epsilon)", "predicted energy (epsilon)")
    truth, guess = points(parity.collections[0]).T
    assert len(truth) == 400 and len(parity.lines) == 1
    assert np.abs(guess - truth).mean() == pytest.approx(mae, abs=6e-5)
    assert words(histogram) == (f"Errors, MAE = {mae:.4f} epsilon", "error (epsilon)", "clusters")
    assert len(histogram.patches) == 40 and sum(bar.get_height() for bar in histogram.patches) == 400
    assert words(training) == ("Training curve", "epoch", "mean squared error (normalised)")
    assert training.get_yscale() == "log" and legend(training) == ["training", "test"]
    assert [len(line.get_ydata()) for line in training.lines] == [80, 80]
    assert all(line.get_ydata()[-1] < 0.1 * line.get_ydata()[0] for line in training.lines)


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

    (axes,) = panels(tmp_path / "variable_size.png")
    title, *labels = words(axes)
    assert title.startswith("Molecules of variable size, R2 = ") and float(title[-5:]) == pytest.approx(
        numbers(output, "R2:")[0], abs=6e-4
    )
    assert labels == ["true property", "predicted property"] and len(axes.lines) == 1
    assert legend(axes) == [f"{size} atoms" for size in (3, 4, 5, 6)]
    counts = [len(points(scatter)) for scatter in axes.collections]
    assert len(counts) == 4 and min(counts) > 40 and sum(counts) == 284


@pytest.mark.parametrize("calculator", ["mdgnn", "xtb"])
def test_water(calculator):
    if calculator == "xtb":
        pytest.importorskip("tblite")
    output = run("water.py", calculator)
    assert numbers(output, "bond lengths:") == pytest.approx([0.9592, 0.9592], abs=0.005)
    assert numbers(output, "angle:") == pytest.approx([107.22], abs=0.5)
