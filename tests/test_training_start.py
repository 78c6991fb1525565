"""What training begins with: models by configuration or from a file, references, frozen parameters, data that fit."""

import pytest
import torch
from ase import Atoms

pytest.importorskip("lightning")

from systems import gnn, radial
from training_runs import clusters, file_of, labelled, small

import mdgnn
from mdgnn import LennardJones
from mdgnn.training.build import freeze
from mdgnn.training.config import ConfigError, parse
from mdgnn.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


def test_fine_tuning_starts_from_the_model(data, tmp_path):
    train(small(data), tmp_path / "first")
    path = tmp_path / "first" / "model.safetensors"
    config = small(data).model_dump()
    config["model"] = {"start": str(path), "dtype": "float64", "freeze": ["layers.*"]}
    train(parse({**config, "optimizer": {"lr": 1e-30}, "run": {**config["run"], "epochs": 1}}), tmp_path / "same")
    before, same = mdgnn.load(path), mdgnn.load(tmp_path / "same" / "model.safetensors")
    graph = mdgnn.Graph.from_atoms(clusters(3, seed=9), 2.5)
    torch.testing.assert_close(
        mdgnn.evaluate(before, graph).energy, mdgnn.evaluate(same, graph).energy, rtol=1e-12, atol=0
    )
    train(parse({**config, "run": {**config["run"], "epochs": 2}}), tmp_path / "tuned")
    tuned = mdgnn.load(tmp_path / "tuned" / "model.safetensors")
    for (name, a), (_, b) in zip(before.named_parameters(), tuned.named_parameters(), strict=True):
        assert torch.equal(a, b) == (name.startswith("layers.") or name == "rbf_centers"), name


def test_freezing_names_what_does_not_match():
    model = radial("SchNet")
    freeze(model, ["embedding.*", "interactions.0.*"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith(("embedding.", "interactions.0."))}
    with pytest.raises(ConfigError, match="no parameter matches 'layer.*'; there are embedding.weight"):
        freeze(model, ["layer.*"])
    with pytest.raises(ConfigError, match="nothing is left to train"):
        freeze(gnn(), ["*"])


def test_references_and_scale_go_into_the_model(data, tmp_path):
    train(small(data, "run.epochs=1", "model.references={Ar = -2.5}", "model.scale=3"), tmp_path)
    config = mdgnn.load(tmp_path / "model.safetensors").config
    assert config["shift"] == [-2.5] and config["scale"] == [3.0]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("loss.stress=1", r"\[loss\] stress has a weight, but no structure of the training set has any"),
        ("model.readout=mean", r"\[model\] readout = 'mean'"),
        ("model.elements=[2]", r"elements = \[2\], and the training set has \[18\] too"),
        ("model.n_layers=x", r"\[model\] "),
        ("model.references=isolated", "the training set has no lone atom of Ar"),
        ("model.freeze=['nothing']", "no parameter matches 'nothing'"),
    ],
)
def test_configurations_that_do_not_fit_the_data(data, tmp_path, setting, words):
    with pytest.raises(ValueError, match=words):
        train(small(data, setting), tmp_path / "run")
    assert not (tmp_path / "run").exists(), "nothing is written, or goes, before that is found"


def test_nothing_has_a_weight(data, tmp_path):
    with pytest.raises(ConfigError, match="gives nothing a weight in the end"):
        train(small(data, "loss.energy=0", "loss.forces=[[0, 1], [5, 0]]"), tmp_path)


def test_lone_atoms_stay_with_the_training_set(tmp_path):
    """Where their energies are needed, whatever the seed."""
    lone = labelled(Atoms("Ar"), LennardJones())
    lone.calc.results["energy"] = -3.25
    data = file_of(tmp_path / "with.xyz", [lone, *clusters(3)])
    for seed in range(3):
        settings = ("data.valid=0.6", "model.references=isolated", "run.epochs=1", f"run.seed={seed}")
        assert train(small(data, *settings), tmp_path / str(seed))["found"]["references"] == [-3.25]
