"""The optimizer that `mdgnn relax` takes unasked is right for every size; one that cannot fit is refused."""

import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from command_line import run, sentence

import mdgnn
from mdgnn.dynamics import relax
from mdgnn.dynamics.lj_clusters import lj_cluster, true_lj_energy
from mdgnn.dynamics.relaxation import check_size


@pytest.fixture(autouse=True)
def in_empty_folder_without_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mdgnn.dynamics.relaxation.draw", lambda *_: [])


def summary(folder):
    return json.loads((Path(folder) / "summary.json").read_text())


def test_ten_steps_of_a_thousand_atoms_take_seconds(model):
    """BFGS would diagonalize a matrix of 3,000 rows ten times, which takes minutes."""
    begin = time.perf_counter()
    result = run("relax", "lj:1000", "--model", model, "--steps", 10, "--output", "o")
    assert time.perf_counter() - begin < 90
    assert result.exit_code == 1 and "not converged: after 10 steps" in sentence(result)
    assert summary("o")["settings"]["optimizer"] == "LBFGS"
    assert summary("o")["final_energy"] < summary("o")["initial_energy"]


def test_ten_thousand_atoms_fit(model):
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), "short.safetensors")
    crystal = bulk("Ar", "fcc", a=1.6, cubic=True).repeat((13, 13, 15))
    crystal.rattle(0.01, seed=0)
    write("crystal.xyz", crystal)
    assert len(crystal) > 10_000
    result = run("relax", "crystal.xyz", "--model", "short.safetensors", "--steps", 2, "--output", "o")
    assert "not converged: after 2 steps" in sentence(result)
    assert summary("o")["final_energy"] < summary("o")["initial_energy"]


@pytest.mark.parametrize(
    ("optimizer", "n", "size"),
    [("BFGS", 10_000, "30,000 x 30,000 numbers for 10,000 atoms, 7.2 GB"),
     ("BFGSLineSearch", 10_000, "30,000 x 30,000 numbers for 10,000 atoms, 7.2 GB"),
     ("GPMin", 1000, "30,010 x 30,010 numbers for 1,000 atoms after ten steps, 7.2 GB")],
)  # fmt: skip
def test_what_cannot_fit_is_refused_before_anything_is_written(model, optimizer, n, size):
    write("many.xyz", bulk("Ar", "fcc", a=1.6).repeat((n // 100, 10, 10)))
    result = run("relax", "many.xyz", "--model", model, "--optimizer", optimizer, "--output", "o")
    assert result.exit_code == 1 and not Path("o").exists()
    assert f"{optimizer} works on matrices of {size} each; take LBFGS" in sentence(result)


@pytest.mark.parametrize("optimizer", ["BFGS", "LBFGS", "LBFGSLineSearch", "FIRE", "FIRE2", "MDMin"])
def test_what_fits_is_not_refused(optimizer):
    check_size(optimizer, 1000)
    if optimizer != "BFGS":
        check_size(optimizer, 10_000_000)


def test_memory_that_is_used_up_all_the_same_is_a_sentence(model, monkeypatch):
    def refused(*_, **__):
        raise MemoryError("Unable to allocate 6.71 GiB")

    monkeypatch.setattr("mdgnn.dynamics.relaxation._optimize", refused)
    assert "there is not enough memory: 6.71 GiB more were asked for" in sentence(
        run("relax", "lj:13", "--model", model)
    )


@pytest.mark.parametrize("n", [13, 38, 55])
def test_the_best_known_minima(n):
    """From the best known shapes, displaced by 0.1 sigma: their energies, of the shipped model's geometries too."""
    lowest = {13: -44.326801, 38: -173.928427, 55: -279.248470}[n]
    for seed in range(3):
        start = lj_cluster(str(n), np.random.default_rng(seed))
        start.positions += np.random.default_rng(seed).normal(0, 0.1, start.positions.shape)
        relaxed = relax(start, "lj", folder=Path("o"), force=True)
        assert relaxed.converged and relaxed.steps < 100
        assert relaxed.summary["true_lj_energy"] == pytest.approx(lowest, abs=0.05)


def test_the_true_energy_is_that_of_all_pairs_in_little_memory():
    """As one graph, those of 10,000 atoms took 16 GB when the relaxation was over and its summary not yet written."""
    atoms = lj_cluster("600", np.random.default_rng(0))
    exact = mdgnn.MDGNNCalculator(mdgnn.LennardJones(), dtype="float64").get_potential_energy(atoms)
    assert true_lj_energy(atoms) == pytest.approx(exact, rel=1e-12)
    assert true_lj_energy(atoms[:1]) == 0
    many = Atoms(numbers=np.full(10_000, 18), positions=1.1 * np.argwhere(np.ones((20, 20, 25))))
    tracemalloc.start()
    try:
        assert -90_000 < true_lj_energy(many) < -50_000
        assert tracemalloc.get_traced_memory()[1] < 500e6
    finally:
        tracemalloc.stop()


def test_a_displaced_icosahedron_of_309_atoms_stays_one():
    """With steps of up to 0.2 sigma its energy went up to five million epsilon, and came down to a glass."""
    whole = lj_cluster("309", np.random.default_rng(0))
    start = whole.copy()
    start.positions += np.random.default_rng(2).normal(0, 0.1, start.positions.shape)
    relaxed, best = relax(start, "lj"), relax(whole, "lj")
    assert relaxed.converged and relaxed.energy == pytest.approx(best.energy, abs=0.01)
    assert not list(Path().iterdir()), "nothing is written without a folder"
