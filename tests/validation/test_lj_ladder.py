"""The Lennard-Jones ladder's own instruments: its potential, its minima, its statistics."""

import itertools
import json
import math
from functools import partial
from pathlib import Path

import lj_report
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import Calculator, CalculatorError, all_changes
from ase.md.verlet import VelocityVerlet
from lj_dynamics import EXACT_CUTOFF, Container, _variance, blocked, caloric, state_points
from lj_ladder import run
from lj_minima import TOLERANCE, built, find, hop, lennard_jones, quench, random_start, read_table
from lj_report import _melting, write_report
from lj_rungs import RUNGS, descend, four_atoms
from lj_systems import cluster, exact
from scipy.signal import lfilter
from systems import icosahedron

from mdgnn import LennardJones, MDGNNCalculator
from mdgnn.calculators import FunctionCalculator

DATA = Path(__file__).parents[3] / "shared" / "data"
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
    positions = find(8, target, None, np.random.default_rng(0))
    assert abs(lennard_jones(positions)[0] - target) < TOLERANCE
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


def test_a_model_descends_where_the_true_potential_does():
    start = random_start(8, np.random.default_rng(2))
    energy, where = quench(exact(), start, 1e-5)
    expected, there = quench(lennard_jones, start, 1e-5)
    assert energy == pytest.approx(expected, abs=1e-6) == lennard_jones(where)[0]
    np.testing.assert_allclose(where, there, atol=1e-3)


def correlated(seed, a, n):
    """Series of x_k = a x_(k-1) + noise without end."""
    rng = np.random.default_rng(seed)
    while True:
        yield lfilter([1.0], [1.0, -a], rng.normal(size=n))


def test_errors_of_variances_are_those_of_the_variance():
    """Which is 1 / (1 - a^2)."""
    a, z = 0.9, []
    for x in itertools.islice(correlated(1, a, 20_000), 30):
        variance, error = _variance(x)
        z.append((variance - 1 / (1 - a * a)) / error)
    assert 0.6 < np.std(z) < 1.7 and abs(np.mean(z)) < 0.8


def test_errors_of_blocks_are_those_of_the_mean():
    """The mean has the variance 1 / (n (1 - a)^2)."""
    a, n, estimates = 0.9, 20_000, []
    for x in itertools.islice(correlated(0, a, n), 20):
        mean, error = blocked(x[:, None])
        estimates.append((mean[0], error[0]))
    means, errors = np.array(estimates).T
    expected = 1 / (math.sqrt(n) * (1 - a))
    assert errors == pytest.approx(expected, rel=0.8) and errors.mean() == pytest.approx(expected, rel=0.15)
    assert 0.6 < np.std(means / errors) < 1.7 and abs(np.mean(means / errors)) < 0.8


def test_the_pressure_of_a_liquid_has_its_sign(tmp_path, monkeypatch):
    """Of the true potential, cut and with tails, where the published energy and pressure are -6.239 and 2.23."""
    (tmp_path / "nist_lj_mc.tsv").write_text("#\n#\n0.9 -6.2391 2.2314 -6.1773 2.5848\n0.8 0 0 0 0\n")
    for name, steps in (("SETTLE", 200), ("REST", 100), ("STEPS", 400)):
        monkeypatch.setattr(f"lj_dynamics.{name}", steps)
    points = state_points(exact(EXACT_CUTOFF), tmp_path, tmp_path, [(0.9, 0.85)])
    energy, pressure, *_, temperature = points["0.9, 0.85"]
    assert energy == pytest.approx(-6.24, abs=0.15) and pressure == pytest.approx(2.23, abs=0.8)
    assert temperature == pytest.approx(0.85, abs=0.05)


def test_the_container_keeps_energy_and_atoms():
    """Of 50 atoms that do not see each other, in NVE; its forces are the slope of its energy."""
    rng = np.random.default_rng(0)
    atoms = Atoms("Ar50", rng.normal(0, 0.5, (50, 3)), masses=np.ones(50), calculator=Nothing())
    atoms.set_constraint(Container(2.0))
    atoms.set_velocities(rng.normal(0, 1.0, (50, 3)))
    energies, radii, touched = [], [], []
    for _ in VelocityVerlet(atoms, 0.005).irun(2000):
        energies.append(atoms.get_total_energy())
        radii.append(np.linalg.norm(atoms.positions, axis=1).max())
        touched.append(atoms.get_potential_energy() > 0.1)
    assert np.ptp(energies) < 2e-3 * np.mean(energies) and max(radii) < 2.0 + 4.5 / math.sqrt(100.0)
    assert np.mean(touched) > 0.1
    before, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.positions += 1e-6 * forces
    assert before - atoms.get_potential_energy() == pytest.approx(1e-6 * np.square(forces).sum(), rel=1e-3)


class Nothing(Calculator):
    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


def test_heat_capacities(tmp_path, monkeypatch):
    """Of 13 atoms: far below melting those of 33 harmonic vibrations; far above, a container keeps all."""
    _, minimum = quench(lennard_jones, icosahedron(2).positions, 1e-6)
    monkeypatch.setattr("lj_dynamics.CALORIC", ((13, 15_000),))
    monkeypatch.setattr("lj_dynamics.TEMPERATURES", (0.02, 0.8))
    monkeypatch.setattr("lj_dynamics.minima", lambda *_: {13: cluster(minimum)})
    cold, hot = caloric(FunctionCalculator(lennard_jones), DATA, tmp_path)["13"]
    assert cold[1] == pytest.approx(-44.326801 / 13 + 0.5 * 0.02 * 33 / 13, abs=0.005)
    assert cold[3] == pytest.approx(1.5 + 0.5 * 33 / 13, abs=0.25) and 0 < cold[4] < 0.3 and 0 < cold[2] < 0.002
    assert -2.2 < hot[1] < -0.2


def test_figures_of_another_model_do_not_stay(tmp_path):
    """A column is one model; what failed is said."""

    def climb(model, rung):
        run("one", model, [rung], tmp_path, tmp_path)
        return json.loads((tmp_path / "one.json").read_text())

    first = climb("lj", "lecture")
    assert first["lecture"]["mae"] > 0 and "lj" not in str(first["made"])
    second = climb("exact", "lecture")
    assert second["lecture"]["mae"] < 1e-9 and second["made"] != first["made"]
    monkey = {**RUNGS, "forces": lambda *_: (_ for _ in ()).throw(CalculatorError("no number"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lj_ladder.RUNGS", monkey)
        third = climb("exact", "forces")
    assert third["forces"]["failed"] == "no number" and third["lecture"] == second["lecture"]


def test_a_column_may_be_climbed_by_two_at_once(tmp_path, monkeypatch):
    """What one has measured stays when the other, which began before, ends."""

    def forces(*_):
        run("one", "exact", ["lecture"], tmp_path, tmp_path)
        return {}

    monkeypatch.setitem(RUNGS, "forces", forces)
    run("one", "exact", ["forces"], tmp_path, tmp_path)
    assert set(json.loads((tmp_path / "one.json").read_text())) == {"made", "lecture", "forces"}
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_melting_is_where_the_energy_jumps():
    curve = [[t, 3 * t + (2.0 if t > 0.3 else 0.0), 0.0, 3.0, 0.0] for t in (0.1, 0.2, 0.28, 0.32, 0.4)]
    assert _melting([curve, curve]) == (0.28, 0.32) and _melting([curve[:2]]) is None


def test_the_report_shows_what_failed_and_what_is_no_number(tmp_path, monkeypatch):
    figures, save = [], lj_report._save
    monkeypatch.setattr(lj_report, "_save", lambda figure, axes, path: figures.append(axes) or save(figure, axes, path))
    made = {"model": "SchNet", "digest": "0123", "training": "1 frame"}
    ran = {"seconds": 1.0, "made": {"date": "today", "versions": "all", "machine": "one"}}
    column = {
        "made": made,
        "lecture": {**ran, "mae": math.nan, "r2": 0.5, "median": 0.0, "truth": [0.0, 1.0], "guess": [0.1, 1.1]},
        "forces": {**ran, "failed": "not finite"},
        "relaxed": {**ran, "excess": {"13": math.nan, "38": math.inf}, "gap": 0.0, "true gap": 0.7},
        "hopped": {**ran, "excess": {"3": 1e-5, "4": 1e45}},
        "states": {**ran, "0.9, 0.85": None, "0.8, 0.85": [-5.0, 1.0, 0.01, 0.1, -5.0, 1.0, 0.85]},
        "drift": {**ran, "failed": "not finite"},
        "caloric": {
            **ran,
            "13": [[0.1, -3.0, 0.01, 3.0, 0.1]],
            "55": [[0.1, -5.0, 0.01, 3.0, 0.1], [0.2, -4.0, 0.1, 9.0, 0.5]],
        },
    }
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "one.json").write_text(json.dumps(column))
    (tmp_path / "work" / "two.json").write_text(
        json.dumps({"made": {"model": "the true potential"}, "lecture": column["lecture"]})
    )
    write_report(tmp_path / "work", tmp_path)
    text = (tmp_path / "lj_ladder.md").read_text()
    sections = {
        part.split("\n")[0][0]: {row.split(" | ")[0].strip("| "): row for row in part.splitlines() if row[:2] == "| "}
        for part in text.split("\n## ")[1:]
    }
    assert list(sections) == list("123456")
    one, _, three, four, five, _ = sections.values()
    assert "| **nan** |" in one["MAE, epsilon"] and "| **0.500000** |" in one["R2"]
    assert five["slope of the energy, epsilon per atom and 1,000 steps"].endswith("| **failed** | - |")
    excess = [row for row in text.splitlines() if row.startswith("| largest excess, epsilon |")]
    assert [row.split(" | ")[2:] for row in excess] == [["**nan**", "- |"], ["**1.0e+45**", "- |"]], "relaxed, hopped"
    assert "| **nan** |" in three["N = 13"] and "| **inf** |" in three["N = 38"]
    assert "**0.0000**" in three["icosahedron above octahedron, N = 38"], "two in one basin have no order"
    assert "| **failed** |" in four["rho, T = 0.9, 0.85: pressure"]
    assert "undecided" in four["rho, T = 0.8, 0.85: pressure"]
    assert "9.0 +- 0.5 at 0.2 (the last)" in five["largest heat capacity of 55 atoms, at T"]
    assert {path.name for path in tmp_path.glob("*.png")} == {
        f"lj_ladder_{name}.png" for name in ("accuracy", "dynamics", "liquid")
    }
    (parity, error, excess), (energy, pressure), (drift, curve, heat) = figures
    np.testing.assert_array_equal(parity.collections[0].get_offsets(), [[0.0, 0.1], [1.0, 1.1]])
    np.testing.assert_allclose(error.collections[0].get_offsets(), [[0.0, 0.1], [1.0, 0.1]], rtol=1e-12)
    np.testing.assert_array_equal(excess.lines[0].get_data(), [[13, 38], [1e2, 1e2]]), "at the upper end"
    assert excess.get_yscale() == error.get_yscale() == "log"
    for axes, off in ((energy, 0.0), (pressure, 0.0)):
        assert axes.lines[0].get_ydata().tolist() == [off] and abs(axes.lines[0].get_xdata()[0] - 0.8) < 1e-3
    assert not drift.lines, "which failed"
    assert [line.get_ydata().tolist() for line in heat.lines if len(line.get_xdata()) > 1] == [[3.0, 9.0]]
    assert [line.get_ydata().tolist() for line in curve.lines if len(line.get_xdata()) > 1] == [[-5.0, -4.0]]


def test_columns_whose_runs_are_gone_stay_on_the_page(tmp_path):
    """With their figures, to the letter, under the same headings; the shipped model comes first."""
    ran = {"seconds": 1.0, "made": {"date": "today", "versions": "all", "machine": "one"}}
    for name, excess in (("PaiNN", 1e-5), ("exact", 2e-5), ("lj", 3e-5)):
        found = {**ran, "excess": {"3": excess}}
        column = {"made": {"model": name}, "relaxed": {**found, "gap": 0.7, "true gap": 0.7}, "hopped": found}
        (tmp_path / f"{name}.json").write_text(json.dumps(column))
    write_report(tmp_path, tmp_path)
    whole = (tmp_path / "lj_ladder.md").read_text()
    assert "| | bar | lj | PaiNN | exact |" in whole
    assert whole.count("| largest excess, epsilon | 1e-3 | 3.0e-05 | 1.0e-05 | 2.0e-05 |") == 2
    for name in ("PaiNN", "exact"):
        (tmp_path / f"{name}.json").unlink()
    write_report(tmp_path, tmp_path)
    assert (tmp_path / "lj_ladder.md").read_text().replace("The pictures show lj.\n\n", "") == whole


def test_rungs_of_the_same_model_stay_on_the_page_and_those_of_another_go(tmp_path):
    """One rung climbed again: the page keeps the others, with both runs, until the column is another model."""

    def report(model, date, **rungs):
        ran = {"seconds": 1.0, "made": {"date": date, "versions": "all", "machine": "one"}}
        column = {"made": {"model": model}, **{name: {**ran, **figures} for name, figures in rungs.items()}}
        (tmp_path / "lj.json").write_text(json.dumps(column))
        write_report(tmp_path, tmp_path)
        return (tmp_path / "lj_ladder.md").read_text()

    lecture = {"mae": 0.0123, "r2": 1.0, "median": 0.01, "truth": [0.0], "guess": [0.1]}
    report(
        "narrow",
        "Monday",
        lecture=lecture,
        drift={"slope": 2e-9, "deviation": 1e-6, "temperature": 0.2, "energies": [0.0]},
    )
    again = report("narrow", "Tuesday", drift={"slope": 3e-9, "deviation": 1e-6, "temperature": 0.2, "energies": [0.0]})
    assert "| MAE, epsilon | 0.10 | 0.0123 |" in again and "| 1e-6 | 3.0e-09 |" in again and "2.0e-09" not in again
    assert "lj: narrow. Monday, all, one; Tuesday, all, one\n" in again
    other = report("wide", "Wednesday", drift={"slope": 3e-9, "deviation": 1e-6, "temperature": 0.2, "energies": [0.0]})
    assert "| MAE, epsilon | 0.10 | - |" in other and "Monday" not in other


@pytest.mark.parametrize("seed", [4, 7])
def test_relaxations_stay_in_the_basin(seed):
    """Of the true potential: what does not come back is then the model's fault. BFGS leaves the basin from here."""
    energy, minimum = quench(lennard_jones, built(55), 1e-7)
    atoms = cluster(minimum + np.random.default_rng(seed).normal(0, 0.05, minimum.shape))
    atoms.calc = exact()
    assert descend(atoms) and abs(lennard_jones(atoms.positions)[0] - energy) < 1e-4
