"""Accepted and ignored: what a calculator is told applies, or is an error that lists what there is."""

import pickle

import numpy as np
import pytest
import torch
from ase.io import read, write
from systems import crystal, gnn, radial
from typer.testing import CliRunner

import mdgnn
from mdgnn import Ensemble, MDGNNCalculator
from mdgnn.cli import app
from mdgnn.engine import UnsupportedError

THERE_ARE = "there are model, device, dtype, skin, backend, too_close"


def test_parameters_that_are_set_apply():
    atoms = crystal()
    calc = atoms.calc = MDGNNCalculator("lj")
    single = atoms.get_potential_energy()
    assert calc.set(dtype="float64", backend="torch", skin=0.3) == {"dtype": "float64", "backend": "torch", "skin": 0.3}
    assert (calc.dtype, calc.backend, calc.neighbors.skin) == (torch.float64, "torch", 0.3)
    expected = MDGNNCalculator("lj", dtype="float64", backend="torch", skin=0.3).compute(atoms)["energy"]
    assert atoms.get_potential_energy() == expected != single, (
        "results of before are forgotten, and no weight is rounded"
    )
    assert calc.set(dtype="float64") == calc.set(device="cpu") == calc.set() == {}
    assert calc.results["energy"] == expected, "nothing has changed"
    calc.set(dtype="float32", backend="auto", skin=0.0)
    assert atoms.get_potential_energy() == single


def test_weights_keep_their_precision_through_changes():
    model = radial("PaiNN", torch.float64)
    atoms = crystal()
    calc = MDGNNCalculator(model)
    calc.set(dtype="float64")
    expected = MDGNNCalculator(model, dtype="float64").compute(atoms)
    np.testing.assert_array_equal(calc.compute(atoms)["forces"], expected["forces"])


def test_another_model_can_be_set():
    atoms = crystal()
    calc = MDGNNCalculator("lj")
    model = radial("SchNet")
    assert calc.set(model=model, too_close="ignore").keys() == {"model", "too_close"}
    assert calc.compute(atoms)["energy"] == MDGNNCalculator(model).compute(atoms)["energy"]
    assert calc.parameters["model"] == "SchNet" and calc.too_close == "ignore"


def test_a_file_that_has_changed_since_is_not_read_again(tmp_path):
    mdgnn.save(radial("SchNet", torch.float64), tmp_path / "m.safetensors")
    calc = MDGNNCalculator(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").unlink()
    calc.set(dtype="float64")
    expected = MDGNNCalculator(radial("SchNet", torch.float64), dtype="float64").compute(crystal())
    assert calc.compute(crystal())["energy"] == expected["energy"]


@pytest.mark.parametrize("name", ["foo", "label", "directory", "atoms", "Dtype", "command", "restart"])
def test_parameters_that_are_none(name):
    with pytest.raises(TypeError, match=f"MDGNNCalculator has no parameter '{name}'; {THERE_ARE}"):
        MDGNNCalculator("lj", **{name: "x"})
    calc = MDGNNCalculator("lj")
    with pytest.raises(TypeError, match=f"MDGNNCalculator has no parameter '{name}'; {THERE_ARE}"):
        calc.set(dtype="float64", **{name: "x"})
    assert calc.dtype == torch.float32, "all or nothing"
    with pytest.raises(TypeError, match=f"MDGNNCalculator has no parameter '{name}'; {THERE_ARE}"):
        Ensemble(["lj", "lj"], **{name: "x"})


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"dtype": "float16"}, "'float32' or 'float64'"), ({"backend": "gpu"}, "backend"), ({"skin": -1.0}, "skin"),
     ({"too_close": "no"}, "too_close"), ({"device": "meta"}, "no kernels"), ({"device": "cuda:99"}, "CUDA device"),
     ({"device": "gpu"}, "such as cpu, cuda")],
)  # fmt: skip
def test_values_that_cannot_be(changes, error):
    """The calculator is then what it was."""
    calc = MDGNNCalculator("lj")
    before = calc.compute(crystal())["energy"]
    with pytest.raises(ValueError, match=error):
        calc.set(**changes)
    assert calc.compute(crystal())["energy"] == before and "float32" in repr(calc) and calc.too_close == "warn"


def test_attributes_are_not_written_in_vain():
    calc = MDGNNCalculator("lj")
    for name in ("device", "dtype", "backend", "model", "skin"):
        with pytest.raises(AttributeError):
            setattr(calc, name, "cpu")
    with pytest.raises(ValueError, match="too_close"):
        calc.too_close = "never"
    calc.too_close = "ignore"
    assert calc.parameters["too_close"] == "ignore"


def test_parameters_go_to_files_and_through_pickles(tmp_path):
    """A module among them could not be written."""
    atoms = crystal()
    atoms.calc = MDGNNCalculator(radial("SchNet"), dtype="float64")
    atoms.get_potential_energy()
    write(tmp_path / "a.traj", atoms)
    assert read(tmp_path / "a.traj").get_potential_energy() == atoms.get_potential_energy()
    again = pickle.loads(pickle.dumps(atoms.calc))
    assert again.set(dtype="float32") == {"dtype": "float32"}
    assert again.parameters == {**atoms.calc.parameters, "dtype": "float32"}


def test_an_ensemble_sets_its_members():
    ensemble = Ensemble(["lj", "lj"])
    assert ensemble.set(dtype="float64", warn_above=2.0) == {"dtype": "float64", "warn_above": 2.0}
    assert {m.dtype for m in ensemble.members} == {torch.float64} and ensemble.warn_above == 2.0
    with pytest.raises(TypeError, match="Ensemble has no parameter 'model'; there are warn_above, device"):
        ensemble.set(model="lj")
    with pytest.raises(ValueError, match="dtype"):
        ensemble.set(dtype="float16")
    assert {m.dtype for m in ensemble.members} == {torch.float64}


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("md lj:3 --ensemble nve --friction 0.5", "a friction goes with the ensemble langevin, not with nve"),
        ("md lj:3 --ensemble langevin --pressure 1", "a pressure goes with the ensemble npt, not with langevin"),
        ("dataset lj x.xyz --kind boxes --largest 20", "goes with the kinds all and clusters, not with boxes"),
        ("dataset lj x.xyz --kind lecture --largest 20", "goes with the kinds all and clusters, not with lecture"),
        ("relax lj:3 --index 1", "--index (index=) goes with a file"),
    ],
)
def test_options_that_nothing_looks_at(command, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 1 and sentence in result.output
    assert not any(tmp_path.iterdir())


def test_an_ensemble_changes_as_a_whole_or_not():
    mixed = Ensemble([gnn(), gnn(aggregation="max")], backend="torch")
    with pytest.raises(UnsupportedError):  # of the second one alone
        mixed.set(backend="engine", dtype="float64")
    assert [(m.backend, m.dtype) for m in mixed.members] == [("torch", torch.float32)] * 2
