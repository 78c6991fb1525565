"""Errors of a model against arithmetic by hand, what `mdgnn train`, `evaluate` and `plot` print and write."""

import csv
import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.calculators.singlepoint import SinglePointCalculator

pytest.importorskip("lightning")

from command_line import run, sentence
from figures import assert_picture
from training_runs import clusters, crystals, file_of, small

import mdgnn
from mdgnn import LennardJones
from mdgnn.data import Dataset
from mdgnn.plots import draw
from mdgnn.training import plots
from mdgnn.training.callbacks import Watch
from mdgnn.training.data import Limits
from mdgnn.training.evaluate import compare


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    n = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    yield
    torch.set_num_threads(n)


def wrong_by(atoms, energy, forces, stress=None, **info):
    """What Lennard-Jones says of a structure, with errors added to it."""
    results = {**atoms.calc.results}
    results["energy"] += energy
    results["forces"] = results["forces"] + np.asarray(forces)
    if stress is not None:
        results["stress"] = results["stress"] + stress * np.eye(3)
    atoms = atoms.copy()
    atoms.info.update(info)
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def exactly(value):
    """Up to rounding in float64, which float32 anywhere on the way would exceed."""
    return pytest.approx(value, rel=1e-12)


def two_kinds():
    """Clusters of 4 or more atoms, of which one has neon in it, and which have known errors."""
    first, second = clusters(2)
    second.numbers[0] = 10
    pair = np.zeros((len(first), 3))
    pair[:2, 0] = 0.3, -0.3
    return [wrong_by(first, 0.8, pair, config_type="warm"), wrong_by(second, -0.2, np.full((len(second), 3), 0.1))]


def test_errors_by_hand():
    frames = two_kinds()
    n, m = map(len, frames)
    comparison = compare(LennardJones(), Dataset(frames, np.inf), Limits(1, 10))
    table = comparison.table()
    assert list(table) == ["all", "config_type (none)", "config_type warm", "element Ne", "element Ar"]
    everything = table["all"]
    assert everything["energy_mae"] == exactly((0.8 / n + 0.2 / m) / 2)
    assert everything["energy_rmse"] == exactly(np.sqrt(((0.8 / n) ** 2 + (0.2 / m) ** 2) / 2))
    assert everything["forces_mae"] == exactly((0.6 + 0.3 * m) / (3 * n + 3 * m))
    assert everything["forces_rmse"] == exactly(np.sqrt((2 * 0.09 + 3 * m * 0.01) / (3 * n + 3 * m)))
    assert "stress_mae" not in everything and everything["n_structures"] == 2
    assert table["config_type warm"]["energy_mae"] == exactly(0.8 / n)
    assert table["element Ne"] == {
        "n_structures": 1,
        "forces_mae": exactly(0.1),
        "forces_rmse": exactly(0.1),
    }
    assert table["element Ar"]["n_structures"] == 2
    assert table["element Ar"]["forces_mae"] == exactly((0.6 + 0.3 * (m - 1)) / (3 * n + 3 * (m - 1)))


def test_stress_where_some_structures_have_none():
    frames = [wrong_by(crystals(1)[0], 0, np.zeros((4, 3)), 0.06), clusters(1)[0]]
    figures = compare(LennardJones(cutoff=3.0), Dataset(frames, 3.0)).figures()
    assert figures["stress_mae"] == exactly(0.02) and figures["stress_rmse"] == exactly(0.06 / 3**0.5)


def test_the_batches_do_not_matter():
    frames = clusters(9)
    whole, parts = (compare(LennardJones(), Dataset(frames, np.inf), Limits(size, 10**6)) for size in (9, 2))
    for name in ("energy", "forces", "numbers", "structure", "n_atoms"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name), rtol=1e-12)
    with pytest.raises(ValueError, match="expected structures to evaluate, got none"):
        compare(LennardJones(), Dataset([], 1.0))


def test_evaluate_command(tmp_path):
    mdgnn.save(LennardJones(), tmp_path / "exact.safetensors")
    data = file_of(tmp_path / "data.xyz", two_kinds())
    result = run("evaluate", "exact.safetensors", data)
    assert result.exit_code == 0, result.stderr
    assert "config_type" in result.output and "element" in result.output
    folder = Path("mdgnn-evaluate-exact")
    content = json.loads((folder / "errors.json").read_text())
    assert content["units"] == "lj" and content["errors"]["all"]["n_structures"] == 2
    rows = list(csv.DictReader((folder / "errors.csv").read_text().splitlines()))
    assert [row.pop("group") for row in rows] == list(content["errors"])
    for row, figures in zip(rows, content["errors"].values(), strict=True):
        assert {name: float(text) for name, text in row.items() if text} == figures
    frames = two_kinds()
    lines = list(csv.DictReader((folder / "structures.csv").read_text().splitlines()))
    assert [(line["structure"], line["config_type"]) for line in lines] == [("0", "warm"), ("1", "")]
    assert [int(line["n_atoms"]) for line in lines] == [len(atoms) for atoms in frames]
    off = [float(line["energy"]) - float(line["predicted_energy"]) for line in lines]
    assert off == pytest.approx([0.8, -0.2], rel=1e-5), "positions in the file have eight decimals"
    size = [np.sqrt(2 * 0.3**2 / (3 * len(frames[0]))), 0.1]
    assert [float(line["forces_rmse"]) for line in lines] == pytest.approx(size, rel=1e-5)
    assert_picture(folder / "parity.png")
    assert "is not empty" in sentence(run("evaluate", "exact.safetensors", data))
    assert run("evaluate", "exact.safetensors", data, "--force").exit_code == 0
    assert "no data file" in sentence(run("evaluate", "exact.safetensors", "none.xyz", "--output", "o"))
    wrong = run("evaluate", "exact.safetensors", data, "--output", "o", "--energy", "E", "--forces", "F")
    assert wrong.exit_code == 1 and "in the first structure there are: config_type, energy, forces" in sentence(wrong)
    file_of(tmp_path / "twice.xyz", two_kinds()[:1] * 2)
    skipped = run("evaluate", "exact.safetensors", "twice.xyz", "--output", "o", "--bad", "skip")
    assert skipped.exit_code == 0 and "1 bad structure left out: twice.xyz, frame 1: a duplicate" in skipped.stderr


def test_train_plot_and_resume_commands(tmp_path):
    file_of(tmp_path / "data.xyz", clusters(8))
    content = small("data.xyz").model_dump()
    options = {**content["model"], "references": "least_squares"}
    lines = ["[model]"] + [f"{k} = {json.dumps(v)}" for k, v in options.items() if v is not None]
    lines += ["[data]", 'train = "data.xyz"', "valid = 0.25", "[run]", "epochs = 2", "threads = 1", 'device = "cpu"']
    Path("small.toml").write_text("\n".join(lines))
    assert "did you mean 'forces'" in sentence(run("train", "small.toml", "--set", "loss.force=1"))
    result = run("train", "small.toml", "--set", "loss.forces=3", "--set", "run.seed=5")
    assert result.exit_code == 0, result.stderr
    assert "force component" in result.output and "model.safetensors" in result.output
    folder = Path("mdgnn-train-small")
    assert json.loads((folder / "config.json").read_text())["loss"]["forces"] == 3
    for path in folder.glob("*.png"):
        path.unlink()
    assert "learning.png" in run("plot", folder).output
    for name in ("learning", "dimers", "parity_valid"):
        assert_picture(folder / f"{name}.png")
    assert result.output.endswith(run("train", "--resume", folder).output), "after a line for each validation"
    assert "it has no config.json" in sentence(run("plot", tmp_path / "nothing"))
    assert run("train").exit_code == 2 and run("train", "--resume", folder, "--force").exit_code == 2
    assert "holds no run" in sentence(run("train", "--resume", "nothing"))
    assert run("info", folder / "model.safetensors").exit_code == 0


def test_interrupted_at_the_command_line(tmp_path, monkeypatch):
    file_of(tmp_path / "data.xyz", clusters(8))
    options = {k: v for k, v in small("data.xyz").model_dump()["model"].items() if v is not None}
    lines = ["[model]"] + [f"{k} = {json.dumps(v)}" for k, v in options.items()]
    Path("small.toml").write_text("\n".join([*lines, "[data]", 'train = "data.xyz"', "[run]", "threads = 1"]))
    before = Watch._add_loss
    monkeypatch.setattr(Watch, "_add_loss", lambda *a: (signal.raise_signal(signal.SIGTERM), before(*a)))
    result = run("train", "small.toml", "--output", "o")
    assert result.exit_code == 128 + signal.SIGTERM
    assert "interrupted after step 1; mdgnn train --resume o goes on" in sentence(result)
    assert Path("o/last.ckpt").exists()


def test_dimer_curves_are_the_models():
    r = np.array([0.9, 1.12, 2.0])
    curve = plots.dimer_curve(LennardJones(), (18, 18), r)
    np.testing.assert_allclose(curve, 4 * (r**-12 - r**-6), rtol=1e-12)


def test_pictures_of_many_points_and_of_none(tmp_path):
    x = np.random.default_rng(0).normal(0, 1, 5000)
    none = np.zeros(0)
    several = {"energy": (x[:5], x[:5]), "forces": (x, x + 0.1), "stress": (none, none)}
    pictures = {
        "many.png": lambda: plots.parity(several, "metal"),
        "one.png": lambda: plots.parity({"energy": (x[:1], x[:1])}, "lj"),
        "dimers.png": lambda: plots.dimers(LennardJones(cutoff=2.5)),
    }
    assert draw(tmp_path, pictures) == list(pictures)
    for name in pictures:
        assert_picture(tmp_path / name)
