"""Training of other scalars than the energy: exact functions of structures, alone and beside energies."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

pytest.importorskip("lightning")

from command_line import run, sentence
from figures import assert_picture
from property_runs import ALONE, SECTIONS, coordination, labels_of, molecules, settings
from training_runs import file_of

import mdgnn
from mdgnn import Graph, MDGNNCalculator
from mdgnn.data import read_frames
from mdgnn.training import folder as files
from mdgnn.training.callbacks import Watch
from mdgnn.training.config import ConfigError, parse
from mdgnn.training.folder import read_log
from mdgnn.training.run import resume, train

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
    assert row["energy_mae"] == "" and float(row["bonds_rmse"]) == pytest.approx(figures["bonds_rmse"], rel=1e-12)


def test_the_command_evaluates_as_numpy_does(learnt, tmp_path, monkeypatch):
    folder, _, test = learnt
    monkeypatch.chdir(tmp_path)
    result = run("evaluate", folder / files.MODEL, test, "--property", "neighbours=coordination_of", "--output", "o")
    assert result.exit_code == 0, result.stderr
    assert "bonds" in result.output and "…" not in result.output, "every figure has room in 80 columns"
    assert_picture(Path("o/parity.png"))
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
        assert errors["all"][f"{name}_mae"] == pytest.approx(np.abs(e).mean(), rel=1e-12), name
        assert errors["all"][f"{name}_rmse"] == pytest.approx(np.sqrt((e**2).mean()), rel=1e-12), name
    of_carbon = error["neighbours"][np.concatenate([a.numbers for a in frames]) == 6]
    assert errors["element C"]["neighbours_mae"] == pytest.approx(np.abs(of_carbon).mean(), rel=1e-12)
    assert "bonds_mae" not in errors["element C"] and "energy_mae" not in errors["all"]
    lines = list(csv.DictReader(Path("o/structures.csv").read_text().splitlines()))
    assert float(lines[2]["predicted_bonds"]) - float(lines[2]["bonds"]) == pytest.approx(
        error["bonds"][2] * n[2], rel=1e-12
    )
    assert lines[0]["energy"] == lines[0]["predicted_energy"] == ""
    told = run("info", folder / files.MODEL).output.replace("│", " ")  # lines of a cell that is folded
    assert "learnt no energies" in " ".join(told.split())
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
    from mdgnn.training.callbacks import InterruptedTrainingError

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


def test_any_atoms_alike(property_data, tmp_path):
    """One shift stands for all elements; a sum grows with the number of atoms."""
    config = settings(property_data, model={"elements": "any"}, data={"valid": [property_data]}, run={"epochs": 1})
    train(config, tmp_path)
    model = mdgnn.load(tmp_path / files.MODEL)
    assert model.config.elements == "any"
    frames = [*read_frames([property_data], need=())]
    n, bonds, means = np.array([(len(a), a.info["bonds"], a.info["coordination"]) for a in frames]).T
    expected = {"bonds": (n @ bonds) / (n @ n), "coordination": means.mean()}
    expected["neighbours"] = np.concatenate([coordination(a) for a in frames]).mean()
    shifts = {p.name: p.shift for p in model.heads.properties}
    for name, shift in expected.items():
        assert shifts[name] == pytest.approx([shift], rel=1e-12), name


@pytest.fixture
def first(tmp_path):
    """A file of molecules with energies, and a model that has learnt those and the number of hydrogens."""
    data = file_of(tmp_path / "data.xyz", molecules(8, energies=True))
    train(
        settings(data, SECTIONS[:1], {}, run={"epochs": 1}, model={"repulsion": 0.9, "n_knots": 96}), tmp_path / "first"
    )
    return data, tmp_path / "first" / files.MODEL


def tuned(start, data, folder, sections=SECTIONS[:2], loss=ALONE, freeze=(), valid=0.25, **optimizer):
    """The model after one epoch, by default of steps that are none."""
    data_section = {"batch_size": 1, "valid": valid}
    content = settings(data, sections, loss, data=data_section, run={"epochs": 1}).model_dump()
    content |= {"model": {"start": str(start), "freeze": list(freeze)}, "optimizer": {"lr": 1e-30, **optimizer}}
    train(parse(content), folder)
    return mdgnn.load(folder / files.MODEL)


def test_what_a_first_model_knows_of_a_property_stays(first, property_data, tmp_path):
    old, new = mdgnn.load(first[1]), tuned(first[1], property_data, tmp_path / "new")
    assert new.heads.properties[0] == old.heads.properties[0] and new.heads.properties[1].name == "bonds"
    before, after = (list(model.heads.networks[0].parameters()) for model in (old, new))
    assert len(before) == len(after) == 4
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)
    assert not new.heads.energy
    with pytest.raises(ConfigError, match=r"new/model.safetensors' has learnt no energies"):
        tuned(tmp_path / "new" / files.MODEL, first[0], tmp_path / "refused", SECTIONS[:1], {"energy": 1.0})


def test_of_another_kind_a_first_model_knows_nothing(first, property_data, tmp_path):
    old = mdgnn.load(first[1]).heads
    new = tuned(first[1], property_data, tmp_path / "new", [{**SECTIONS[0], "kind": "intensive"}]).heads
    assert [p.kind for p in new.properties] == ["intensive"] and len(new.properties[0].shift) == 1
    before, after = list(old.networks[0].parameters()), list(new.networks[0].parameters())
    assert len(before) == len(after) == 4 and not any(map(torch.equal, before, after))


@pytest.mark.parametrize("freeze", [["heads.*"], ["atom_embedding.*", "layers.*"]], ids=["heads", "features"])
def test_frozen_parts_stay_and_with_the_features_energies(freeze, first, property_data, tmp_path):
    """Where energies are not learnt, their readout stays too; where a batch has no label, weights would only decay."""
    holes = molecules(8)
    for atoms in holes[:4]:
        del atoms.info["n_h"], atoms.info["bonds"]
    data, old = file_of(tmp_path / "holes.xyz", holes), mdgnn.load(first[1])
    decaying = {"lr": 0.1, "weight_decay": 0.5, "ema": 0.0}
    new = tuned(first[1], data, tmp_path / "new", freeze=freeze, valid=[property_data], **decaying)
    assert new.heads.energy == (freeze != ["heads.*"])
    frozen = ("output_mlp.", "repulsion.", "rbf_centers", *(pattern.removesuffix("*") for pattern in freeze))
    for name, parameter in old.named_parameters():
        assert torch.equal(parameter, new.get_parameter(name)) == name.startswith(frozen), name
    if new.heads.energy:
        graph = Graph.from_atoms(molecules(3, seed=5), 2.5)
        assert torch.equal(mdgnn.evaluate(new, graph).energy, mdgnn.evaluate(old, graph).energy)
