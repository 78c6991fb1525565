"""What training begins with: models by configuration or from a file, references, frozen parameters, data that fit."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms

pytest.importorskip("lightning")

from systems import gnn, radial
from training_runs import clusters, file_of, labelled, small

import mdgnn
from mdgnn import LennardJones
from mdgnn.data import Dataset, Keys
from mdgnn.model_file import read_header
from mdgnn.training.build import build, freeze
from mdgnn.training.callbacks import Watch
from mdgnn.training.config import ConfigError, parse
from mdgnn.training.folder import RunError, fingerprint, read_log
from mdgnn.training.outcome import redraw
from mdgnn.training.run import resume, train

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


def test_fine_tuning_goes_on_without_the_file_it_started_from(data, tmp_path):
    """A resolved configuration holds every key, which `start` took for its own references; the file was read again."""
    path = tmp_path / "first.safetensors"
    mdgnn.save(gnn(), path, {"by": "hand"})
    config = small(data).model_dump()
    config["model"] = {"start": str(path)}
    assert parse(parse(config).content()) == parse(config)
    whole = train(parse({**config, "run": {**config["run"], "epochs": 3}}), tmp_path / "whole")
    assert mdgnn.load(tmp_path / "whole" / "model.safetensors").dtype == torch.float64, "that of the file"
    assert whole["found"]["files"] == fingerprint([str(path)])
    assert whole["found"]["training_of_start"] == {"by": "hand"}, "its record, in that of this run"
    train(parse({**config, "run": {**config["run"], "epochs": 2}}), tmp_path / "part")
    path.unlink()
    resume(tmp_path / "part", ["run.epochs=3"])
    for name in ("log.csv", "summary.json", "model.safetensors"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert redraw(tmp_path / "part") == ["learning.png", "dimers.png", "parity_valid.png"]
    with pytest.raises(ConfigError, match="brings its own references"):
        parse({**config, "model": {"start": str(path), "references": "none"}})


@pytest.mark.parametrize(("of_start", "factor"), [(1.0, 1.2), (1.0, 0.8), (0.0, 1.2)])
def test_the_least_distance_of_a_start_and_of_its_data(tmp_path, of_start, factor):
    """The smaller one has been learnt; 0 says that nothing is known of the start."""
    start = gnn()
    start.config = replace(start.config, min_distance=of_start)
    mdgnn.save(start, tmp_path / "start.safetensors")
    frames = clusters(4)
    for atoms in frames:
        atoms.positions *= factor
    dataset = Dataset([labelled(atoms) for atoms in frames], 2.5)
    config = parse({"model": {"start": str(tmp_path / "start.safetensors")}, "data": {"train": "none"}})
    least = build(config, dataset, Keys())[0].min_distance
    assert least == (min(of_start, dataset.shortest) if of_start else dataset.shortest)
    assert (dataset.shortest > 1) == (factor > 1)


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
    assert config.shift == (-2.5,) and config.scale == (3.0,)


def test_references_from_a_file_are_in_the_units_of_the_model(data, tmp_path):
    """They were always checked as eV, of which an atom has no 200."""
    lone = labelled(Atoms("Ar"))
    lone.calc.results["energy"] = 200.0
    path = file_of(tmp_path / "atoms.xyz", [lone])
    record = train(small(data, "run.epochs=1", f"model.references={path}"), tmp_path / "run")["found"]
    assert record["references"] == [200.0] and record["files"] == fingerprint([path])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("loss.stress=1", r"\[loss\] stress has a weight, but no structure of the training set has any"),
        ("model.readout=mean", r"\[model\] readout = 'mean': an energy is a sum over atoms"),
        ("model.elements=['Ar']", r"elements: expected atomic numbers, got 'Ar'"),
        ("model.references=least-squares", "did you mean 'least_squares'"),
        ("model.elements=[2]", r"elements = \[2\], and the training set has \[18\] too"),
        ("model.n_layers=x", r"\[model\] expected n_layers as an integer, got 'x'"),
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


@pytest.mark.parametrize("part", ["valid", "test"])
def test_elements_that_the_model_will_not_know(data, tmp_path, part):
    """They were met when all epochs were over, and there was no model."""
    frames = clusters(2)
    frames[1].numbers[0] = 10
    other = file_of(tmp_path / "other.xyz", [labelled(a) for a in frames])
    name = {"valid": "validation", "test": "test"}[part]
    with pytest.raises(ConfigError, match=rf"will know \[18\], and the {name} set has \[10\] too"):
        train(small(data, f"data.{part}={other}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_too_few_for_the_processes(data, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    with pytest.raises(ConfigError, match="the validation set has 4 structures, too few for 6 processes"):
        train(small(data), tmp_path / "run")


def test_an_infinite_cutoff_is_trained_recorded_and_resumed(data, tmp_path):
    """The record held an infinity, which a model file refuses: at the end."""
    content = small(data, "model.cutoff=inf", "run.epochs=1").model_dump()
    config = parse({**content, "model": {**content["model"], "envelope": None}})
    assert parse(config.content()) == config
    train(config, tmp_path)
    assert mdgnn.load(tmp_path / "model.safetensors").cutoff == float("inf")
    resume(tmp_path, ["run.epochs=2"])
    assert len(read_log(tmp_path / "log.csv")) == 2
    with pytest.raises(ConfigError, match=r"basis: expected finite numbers or text, got \[0.7, inf\]"):
        small(data, "model.basis=[0.7, inf]")


def test_a_run_that_fails_leaves_its_best_model(data, tmp_path, monkeypatch):
    before = Watch._add_loss

    def fail(watch, trainer, outputs, batch_idx):
        if batch_idx == 7:
            raise RunError("enough")
        before(watch, trainer, outputs, batch_idx)

    monkeypatch.setattr(Watch, "_add_loss", fail)
    with pytest.raises(RunError, match="enough"):
        train(small(data), tmp_path)
    record = read_header(tmp_path / "model.safetensors")["training"]
    assert record["best_epoch"] in (1, 2) and not (tmp_path / "summary.json").exists()


def test_lone_atoms_stay_with_the_training_set(tmp_path):
    """Where their energies are needed, whatever the seed."""
    lone = labelled(Atoms("Ar"), LennardJones())
    lone.calc.results["energy"] = -3.25
    data = file_of(tmp_path / "with.xyz", [lone, *clusters(3)])
    for seed in range(3):
        settings = ("data.valid=0.6", "model.references=isolated", "run.epochs=1", f"run.seed={seed}")
        assert train(small(data, *settings), tmp_path / str(seed))["found"]["references"] == [-3.25]
