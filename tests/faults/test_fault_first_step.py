"""A model that was absurd before any training was told to take a smaller learning rate, or ended without a word."""

import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

pytest.importorskip("lightning")

from training_runs import clusters, file_of, labelled, small

import mdgnn
from mdgnn import LennardJones
from mdgnn.training.folder import RunError
from mdgnn.training.run import train

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


def boxes(n=10):
    """Displaced crystals of several densities, with 500 neighbours within 5 sigma."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(n):
        atoms = bulk("Ar", "fcc", a=rng.uniform(1.5, 1.65), cubic=True)
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        frames.append(labelled(atoms, LennardJones(cutoff=3.0)))
    return frames


def painn(path, *settings):
    return small(path, "model.cutoff=5.0", "run.epochs=1", "model.dtype=float32", *settings, architecture="PaiNN")


def test_published_sums_on_dense_data_are_told_at_the_start(tmp_path, capsys):
    path = file_of(tmp_path / "boxes.xyz", boxes())
    with pytest.raises(RunError, match=r"the loss is (inf|nan) in step 1: before any training energies are ") as caught:
        train(
            painn(path, "model.mean_neighbours=1.0", "model.n_interactions=5", "model.n_features=8"), tmp_path / "run"
        )
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mdgnn: before any training ")]
    assert len(told) == 1
    for sentence in (str(caught.value), told[0]):
        assert "rate" not in sentence and "\n" not in sentence
        assert re.search(
            r"epsilon per atom off, where labels differ by 0\.\d+ and forces are .* off, where labels", sentence
        )
        assert re.search(rf"furthest off is {path}, frame \d\. Does mean_neighbours = 1 \(the data have \d+", sentence)
    train(painn(path), tmp_path / "fitted")
    assert "before any training" not in capsys.readouterr().err


def test_a_first_model_of_other_energies_is_told(tmp_path, capsys):
    """Those of another method, or in another unit."""
    frames = clusters(16)
    train(small(file_of(tmp_path / "a.xyz", frames), "run.epochs=1"), tmp_path / "first")
    for atoms in frames:
        atoms.calc.results["energy"] -= 3e4 * len(atoms)
    content = small(file_of(tmp_path / "b.xyz", frames), "run.epochs=1").model_dump()
    content["model"] = {"start": str(tmp_path / "first" / "model.safetensors")}
    capsys.readouterr()
    train(mdgnn.training.config.parse(content), tmp_path / "second")
    told = capsys.readouterr().err
    assert re.search(r"before any training energies are 3e\+04 epsilon per atom off, .* those of the data\?", told)


def test_a_repulsion_that_begins_too_far_out_is_told(tmp_path, capsys):
    path = file_of(tmp_path / "clusters.xyz", clusters(16))
    settings = ("model.repulsion=2.4", "run.epochs=1", "model.n_knots=600")
    train(small(path, *settings), tmp_path / "run")
    assert re.search(r"Does repulsion = 2.4 \(the least distance is \d\.\d+\) under", capsys.readouterr().err)


def test_atoms_that_nearly_coincide_are_told_in_step_1(tmp_path):
    """The labels are so large that float32 has no room for the square."""
    frames = clusters(15)
    frames.append(labelled(Atoms("Ar2", [[0, 0, 0], [0.002, 0, 0]])))
    path = file_of(tmp_path / "data.xyz", frames)
    config = small(path, "model.dtype=float32", "run.epochs=1", f"data.valid={path}", "data.batch_size=32")
    with pytest.raises(RunError, match=rf"in step 1: before any training .*furthest off is {path}, frame 15\. "):
        train(config, tmp_path / "run")


def test_a_model_that_is_worse_than_a_constant_is_told(data, tmp_path, capsys):
    train(small(data, "run.epochs=1", "optimizer.lr=100.0", "optimizer.clip=0"), tmp_path / "bad")
    told = capsys.readouterr().err
    assert re.search(r"mdgnn: .*the MAE of energy is \d\S+, that of a constant \d.*; the MAE of forces is \d", told)
    train(small(data, "run.epochs=40", "data.valid=0.4", "optimizer.lr=0.01"), tmp_path / "good")
    assert "constant" not in capsys.readouterr().err
    settings = ("loss.energy=0.0", "run.epochs=1", "optimizer.lr=1e-9")
    train(small(data, *settings), tmp_path / "forces")
    assert "of energy" not in capsys.readouterr().err, "nobody has asked for energies"
