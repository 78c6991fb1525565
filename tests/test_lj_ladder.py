"""The Lennard-Jones ladder's own instruments: its potential, its minima, its statistics."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from lj_dynamics import blocked
from lj_minima import TOLERANCE, built, find, hop, lennard_jones, quench, random_start, read_table
from lj_rungs import four_atoms

from mdgnn import LennardJones, MDGNNCalculator

DATA = Path(__file__).parents[2] / "shared" / "data"
table = pytest.mark.skipif(not (DATA / "lj_ccd.tsv").exists(), reason="the table of minima is not here")


def test_its_potential_is_ours():
    positions = random_start(20, np.random.default_rng(0))
    energy, gradient = lennard_jones(positions)
    atoms = Atoms("Ar20", positions, calculator=MDGNNCalculator(LennardJones(), dtype="float64", too_close="ignore"))
    assert energy == pytest.approx(atoms.get_potential_energy(), rel=1e-12)
    np.testing.assert_allclose(-gradient, atoms.get_forces(), atol=1e-9 * np.abs(gradient).max())


@table
@pytest.mark.parametrize("n", [38, 55, 75, 98, 147])
def test_built_clusters_are_the_minima_of_the_table(n):
    start = built(n)
    assert start.shape == (n, 3)
    energy, _ = quench(lennard_jones, start, 1e-6)
    assert abs(energy - read_table(DATA / "lj_ccd.tsv")[n]) < TOLERANCE


@table
def test_basin_hopping_finds_minima_and_refuses_others():
    target = read_table(DATA / "lj_ccd.tsv")[8]
    found = find(8, target, None, np.random.default_rng(0))
    assert abs(lennard_jones(found)[0] - target) < TOLERANCE
    best, _, hops = hop(
        partial(quench, lennard_jones),
        random_start(8, np.random.default_rng(1)),
        np.random.default_rng(1),
        target + 1,
        50,
    )
    assert best < target + 1 and hops < 50
    assert read_table(DATA / "lj_ccd.tsv")[150] == -893.310258


def test_the_lectures_clusters_have_the_energies_that_it_prints():
    energies = [lennard_jones(atoms.positions)[0] for atoms in four_atoms(np.random.RandomState(42), 3)]
    assert [round(e, 4) for e in energies] == [56.1277, -0.7629, -1.3259]


def test_errors_of_blocks_are_those_of_the_mean():
    """A correlated series: x_k = a x_(k-1) + noise has a mean with the variance 1 / (n (1 - a)^2)."""
    rng, a, n, z = np.random.default_rng(0), 0.9, 20_000, []
    for _ in range(20):
        x = np.zeros(n)
        noise = rng.normal(size=n)
        for k in range(1, n):
            x[k] = a * x[k - 1] + noise[k]
        mean, error = blocked(x[:, None])
        z.append(mean[0] / error[0])
        assert error[0] == pytest.approx(1 / (math.sqrt(n) * (1 - a)), rel=0.8)
    assert np.std(z) < 2, "the mean is within its error, mostly"
