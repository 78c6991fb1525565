"""Training of other scalars than the energy: exact functions of structures, alone and beside energies."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

pytest.importorskip("lightning")

from property_runs import SECTIONS, coordination, labels_of, molecules, settings
from test_cli import PNG, run, sentence
from training_runs import file_of

import mdgnn
from mdgnn import Graph, MDGNNCalculator
from mdgnn.data import read_frames
from mdgnn.training import folder as files
from mdgnn.training.config import ConfigError, parse
from mdgnn.training.folder import read_log
from mdgnn.training.run import resume, train
from mdgnn.training.watch import Watch

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """A run that learns all four from a file without energies: what it leaves, and the data it was tested on."""
    folder = tmp_path_factory.mktemp("learnt")
    data, test = file_of(folder / "train.xyz", molecules(40)), file_of(folder / "test.xyz", molecules(16, seed=1))
    n = torch.get_num_threads()
    config = settings(
        data,
        model={"node_dim": 16, "edge_dim": 12, "basis": [0.7, 2.5, 0.2], "n_knots": 256},
        data={"valid": [test], "batch_size": 8},
        optimizer={"lr": 0.02, "schedule": "onecycle", "ema": 0.9},
        run={"epochs": 30, "validate_epochs": 30},
    )
    summary = train(config, folder / "run")
    torch.set_num_threads(n)
    return folder / "run", summary, test


def test_exact_functions_are_learnt(learnt):
    """Energies are not, and nobody is told any."""
    folder, summary, test = learnt
    figures = summary["errors"]["valid"]
    assert set(figures) == {"n_structures", *(f"{s['name']}_{kind}" for s in SECTIONS for kind in ("mae", "rmse"))}
    spread = {
        s["name"]: p.scale for s, p in zip(SECTIONS, mdgnn.load(folder / files.MODEL).heads.properties, strict=True)
    }
    assert figures["n_h_rmse"] < 0.05
    for name in ("bonds", "coordination", "neighbours"):
        assert figures[f"{name}_rmse"] < 0.25 * spread[name], name
    calc = MDGNNCalculator(folder / files.MODEL, dtype="float64")
    atoms = read_frames([test], need=())[3]
    assert calc.get_property("n_h", atoms) == pytest.approx((atoms.numbers == 1).sum(), abs=0.5)
    assert calc.get_property("neighbours", atoms).shape == (len(atoms),)
    assert calc.implemented_properties == [s["name"] for s in SECTIONS]
    pictures = {path.name for path in folder.glob("*.png")}
    assert pictures == {"learning.png", "parity_valid.png"}, "and no energies of dimers"
    row = read_log(folder / files.LOG)[-1]
    assert row["energy_mae"] == "" and float(row["bonds_rmse"]) == pytest.approx(figures["bonds_rmse"])


def test_the_command_evaluates_as_numpy_does(learnt, tmp_path, monkeypatch):
    folder, _, test = learnt
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", folder / files.MODEL, test, "--property", "neighbours=coordination_of", "--output", "o")
    assert result.exit_code == 0, result.stderr
    assert "bonds" in result.output and "…" not in result.output, "every figure has room in 80 columns"
    assert Path("o/parity.png").read_bytes().startswith(PNG)
    errors = json.loads(Path("o/errors.json").read_text())["errors"]
    frames = read_frames([test], need=())
    calc = MDGNNCalculator(folder / files.MODEL, dtype="float64")
    said = calc.evaluate(list(frames))
    n = np.array([len(a) for a in frames])
    error = {
        "bonds": [s["bonds"] - labels_of(a)[0]["bonds"] for a, s in zip(frames, said, strict=True)] / n,
        "coordination": np.array(
            [s["coordination"] - coordination(a).mean() for a, s in zip(frames, said, strict=True)]
        ),
        "neighbours": np.concatenate([s["neighbours"] - coordination(a) for a, s in zip(frames, said, strict=True)]),
    }
    for name, e in error.items():
        assert errors["all"][f"{name}_mae"] == pytest.approx(np.abs(e).mean(), rel=1e-5), name
        assert errors["all"][f"{name}_rmse"] == pytest.approx(np.sqrt((e**2).mean()), rel=1e-5), name
    of_carbon = error["neighbours"][np.concatenate([a.numbers for a in frames]) == 6]
    assert errors["element C"]["neighbours_mae"] == pytest.approx(np.abs(of_carbon).mean(), rel=1e-5)
    assert "bonds_mae" not in errors["element C"] and "energy_mae" not in errors["all"]
    lines = list(csv.DictReader(Path("o/structures.csv").read_text().splitlines()))
    assert float(lines[2]["predicted_bonds"]) - float(lines[2]["bonds"]) == pytest.approx(
        error["bonds"][2] * n[2], rel=1e-5
    )
    assert lines[0]["energy"] == lines[0]["predicted_energy"] == ""
    assert "learnt no energies" in run("info", folder / files.MODEL).output
    other = ("evaluate", folder / files.MODEL, test, "--output", "p")
    assert "--property neighbours: no structure has" in sentence(run(*other, "--property", "neighbours=charge"))
    assert "(n_h, bonds, coordination, neighbours), got 'gap=x'" in sentence(run(*other, "--property", "gap=x"))
    wrong = molecules(3, seed=2)
    for atoms in wrong:
        atoms.info["bonds"] = [1.0, 2.0]
    other = ("evaluate", folder / files.MODEL, file_of("wrong.xyz", wrong), "--output", "p")
    assert "expected one number as bonds, got shape (2,)" in sentence(run(*other))
    without = run(*other, "--property", "bonds=")
    assert without.exit_code == 0 and "bonds" not in without.output and "coordination" in without.output
    file_of("bare.xyz", [Atoms("CH", [[0, 0, 0], [1.1, 0, 0]])])
    assert "expected labels to compare with: " in sentence(run("evaluate", folder / files.MODEL, "bare.xyz"))


def test_beside_energies_and_resumed_by_the_bit(tmp_path, monkeypatch):
    """Learning curve, tables, mean of weights and all: an interrupted run ends as one that was not."""
    from mdgnn.training.watch import InterruptedTrainingError

    data = file_of(tmp_path / "data.xyz", molecules(16, energies=True))
    config = settings(data, loss={}, architecture="PaiNN", optimizer={"ema": 0.5})
    summary = train(config, tmp_path / "whole")
    assert {"energy_mae", "forces_rmse", "bonds_mae", "neighbours_mae"} <= set(summary["errors"]["valid"])
    model = mdgnn.load(tmp_path / "whole" / files.MODEL)
    assert model.heads.energy and mdgnn.Engine.load(tmp_path / "whole" / files.MODEL)
    before, steps = Watch._save, []

    def then_stop(self, trainer, best):
        before(self, trainer, best)
        steps.append(trainer.global_step)
        if len(steps) == 2:
            raise InterruptedTrainingError(15, steps[-1], self.folder)

    monkeypatch.setattr(Watch, "_save", then_stop)
    with pytest.raises(InterruptedTrainingError):
        train(config, tmp_path / "parts")
    resume(tmp_path / "parts")
    for name in (files.LOG, files.SUMMARY, files.MODEL):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_starting_from_another_model(property_data, tmp_path):
    """What it knows of a property stays; frozen, what it says of energies too."""
    first = tmp_path / "first" / files.MODEL
    with_energies = file_of(tmp_path / "data.xyz", molecules(8, energies=True))
    train(settings(with_energies, SECTIONS[:1], {}, run={"epochs": 1}), tmp_path / "first")
    old = mdgnn.load(first)

    bare = file_of(tmp_path / "bare.xyz", [*molecules(2), Atoms("CH", [[0, 0, 0], [1.1, 0, 0]])])

    def go(name, file, **model):
        content = settings(file, SECTIONS[:2], data={"valid": [property_data], "batch_size": 1}).model_dump()
        content["model"] = {"start": str(first), "dtype": "float64", **model}
        config = parse({**content, "optimizer": {"lr": 1e-30}, "run": {**content["run"], "epochs": 1}})
        train(config, tmp_path / name)
        return mdgnn.load(tmp_path / name / files.MODEL)

    tuned = go("tuned", property_data)
    assert tuned.heads.properties[0] == old.heads.properties[0] and tuned.heads.properties[1].name == "bonds"
    for a, b in zip(old.heads.networks[0].parameters(), tuned.heads.networks[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    assert not tuned.heads.energy
    # Where a batch has no label, there is nothing to learn at all.
    kept = go("kept", bare, freeze=["atom_embedding.*", "layers.*", "output_mlp.*"])
    assert kept.heads.energy
    graph = Graph.from_atoms(molecules(3, seed=5), 2.5)
    assert torch.equal(mdgnn.evaluate(kept, graph).energy, mdgnn.evaluate(old, graph).energy)
    content = settings(with_energies, SECTIONS[:1], {}).model_dump()
    content["model"] = {"start": str(tmp_path / "tuned" / files.MODEL)}
    with pytest.raises(ConfigError, match=r"tuned/model.safetensors' has learnt no energies"):
        train(parse(content), tmp_path / "refused")
