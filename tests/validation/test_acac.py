"""The shipped model of acetylacetone: a stable molecule, whose errors on the test set are those of its table."""

from pathlib import Path

import numpy as np
import pytest
from acac import bonds, dynamics, errors, frequencies
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.io import read
from ase.optimize import BFGS

from mdgnn import MDGNNCalculator

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "acac"


@pytest.fixture
def relaxed():
    atoms = read(ROOT / "validation" / "results" / "acac.xyz")
    atoms.calc = MDGNNCalculator("acac", dtype="float64", too_close="ignore")
    return atoms


def test_it_is_relaxed_and_without_imaginary_modes(relaxed):
    assert np.linalg.norm(relaxed.get_forces(), axis=1).max() < 1e-4
    modes = frequencies(relaxed)
    assert len(modes) == 3 * 15 - 6 and modes.min() > 10, "1/cm"
    assert 2800 < modes.max() < 3600, "C-H and O-H stretches"


def test_two_picoseconds_at_room_temperature(relaxed):
    run = dynamics(relaxed, 4000)
    assert run["broken"] == 0 and 200 < run["temperature"] < 400


@pytest.mark.skipif(not DATA.exists(), reason="the data set is not here: mdgnn/pretrained/get_acac.py gets it")
def test_errors_on_the_test_set():
    mean_errors = errors(MDGNNCalculator("acac", too_close="ignore"), read(DATA / "test_MD_300K.xyz", ":"))
    assert mean_errors["energy"] <= 2.5 and mean_errors["forces"] <= 12.0, "meV, meV/Angstrom"


def test_its_instruments_tell_a_saddle_and_a_bond():
    """Water held straight has imaginary modes; nitrogen has one bond."""
    straight = Atoms("OHH", [[0, 0, 0], [0, 0, 1.0], [0, 0, -1.0]], calculator=EMT())
    assert frequencies(straight).min() < 0
    nitrogen = molecule("N2", calculator=EMT())
    BFGS(nitrogen, logfile=None).run(fmax=1e-3)
    assert bonds(nitrogen) == {(0, 1)}
