"""Dynamics at constant pressure: what it conserves and samples, restarts, units, and cells that are none."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.constraints import FixAtoms
from figures import assert_picture
from scipy.optimize import brentq
from systems import gnn
from test_md import KILLED, assert_same_run, read_log, run, signal_in_evaluation, summary

import mdgnn
from mdgnn import MDGNNCalculator
from mdgnn.dynamics import NPT, checkpoint
from mdgnn.dynamics.npt import MTK
from mdgnn.dynamics.units import LJ, METAL

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fcc(a=1.59, repeat=2):
    return bulk("Ar", "fcc", a=a, cubic=True) * repeat


def dynamics(atoms, timestep, temperature, pressure, barostat_time=2.0):
    atoms.set_masses(np.ones(len(atoms)))
    atoms.set_velocities(np.random.default_rng(1).normal(0, np.sqrt(temperature), (len(atoms), 3)))
    NPT().settle(atoms)
    return MTK(atoms, timestep, temperature, pressure, replace(LJ, barostat_time=barostat_time))


def mean_and_error(values, n_blocks=8):
    """The mean of a series, and its error from the scatter of the means of blocks."""
    blocks = np.asarray(values)[: len(values) // n_blocks * n_blocks].reshape(n_blocks, -1).mean(axis=1)
    return blocks.mean(), blocks.std(ddof=1) / np.sqrt(n_blocks)


def test_the_conserved_energy_is_conserved_to_second_order():
    scatter = []
    for timestep, steps in ((0.008, 300), (0.004, 600)):
        atoms = fcc()
        atoms.calc = MDGNNCalculator("lj", dtype="float64")
        md = dynamics(atoms, timestep, 0.5, 2.0)
        energies = []
        for _ in range(steps):
            md.step()
            energies.append(md.get_conserved_energy())
        assert abs(np.polyfit(np.arange(steps), energies, 1)[0] * steps) < 0.01 * 48 * 0.5  # of its thermal energy
        scatter.append(np.std(energies))
    assert 3 < scatter[0] / scatter[1] < 5.5


def test_pressure_and_temperature_are_those_asked_for():
    ase.io.write("solid.xyz", fcc())
    common = ("--ensemble", "npt", "--temperature", 0.5, "--pressure", 1.5, "--timestep", 0.01, "--interval", 5)
    output = run("solid.xyz", *common, "--steps", 3000, "--output", "run")
    log, written = read_log("run"), summary("run")
    for column, name, target, most in ((7, "pressure", 1.5, 0.15), (5, "temperature", 0.5, 0.02)):
        mean, error = mean_and_error(log[len(log) // 5 :, column])
        assert error < most and abs(mean - target) < 4 * error, name
        assert written[f"mean_{name}_second_half"] == pytest.approx(log[len(log) // 2 :, column].mean(), rel=1e-13)
    assert written["mean_density_second_half"] == pytest.approx((32 / log[len(log) // 2 :, 6]).mean(), rel=1e-13)
    assert abs(written["conserved_energy_drift_per_atom"]) < 2e-3
    assert "mean pressure" in output and "mean density" in output and "1/sigma^3" in output
    last = ase.io.read("run/final.xyz")
    assert last.get_volume() == pytest.approx(log[-1, 6], rel=1e-6) and np.ptp(log[:, 6]) > 0.1
    np.testing.assert_allclose(last.cell.array / last.cell.array[0, 0], np.eye(3), atol=1e-7)  # the shape stays
    assert np.abs(last.get_momenta().sum(axis=0)).max() < 1e-3  # float32 forces cancel to their precision
    for name in ("density.png", "energy.png", "temperature.png", "radial_distribution.png", "structures.png"):
        assert_picture(Path("run") / name)


def test_an_ideal_gas_has_pv_of_nkt():
    """Volumes of N atoms at rest as a whole have weight V^(N - 1) exp(-PV / kT): mean N kT/P, variance N (kT/P)^2.

    They have 3 (N - 1) degrees of freedom: of 3 N the temperature would be N / (N - 1) of what was asked for.
    """
    atoms = fcc(a=5.0)[:16]
    atoms.calc = MDGNNCalculator(gnn(cutoff=0.05))
    md = dynamics(atoms, 0.05, 1.5, 0.05, barostat_time=3.0)
    volumes, temperatures = [], []
    for _ in range(6000):
        md.step()
        volumes.append(atoms.get_volume())
        temperatures.append(2 * atoms.get_kinetic_energy() / (3 * 15))
    mean, error = mean_and_error(temperatures[500:])
    assert 4 * error < 0.5 * 1.5 / 15 and abs(mean - 1.5) < 4 * error
    mean, error = mean_and_error(volumes[500:])
    assert error < 0.05 * mean and abs(mean - 16 * 1.5 / 0.05) < 4 * error
    assert np.std(volumes[500:]) == pytest.approx(np.sqrt(16) * 1.5 / 0.05, rel=0.25)


def test_a_cold_crystal_has_the_volume_of_its_equation_of_state():
    calc = MDGNNCalculator("lj", dtype="float64")

    def pressure(a):
        return -calc.get_stress(fcc(a))[:3].mean()

    volumes = []
    for target in (0.0, 8.0):
        a = brentq(lambda a, p=target: pressure(a) - p, 1.3, 1.6)
        atoms = fcc(a * 1.005)
        atoms.calc = calc
        md = dynamics(atoms, 0.008, 0.01, target, barostat_time=8.0)
        during_run = []
        for _ in range(600):
            md.step()
            during_run.append(atoms.get_volume())
        volumes.append(np.mean(during_run[300:]))
        assert volumes[-1] == pytest.approx(8 * a**3, rel=5e-3), target
    assert volumes[1] < 0.95 * volumes[0]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A structure, and a run of it that is not interrupted."""
    folder = tmp_path_factory.mktemp("npt")
    ase.io.write(folder / "solid.xyz", fcc(a=1.65))
    run(*settings(folder), "--output", folder / "whole")
    return folder


def settings(folder):
    common = (folder / "solid.xyz", "--ensemble", "npt", "--pressure", 2, "--temperature", 0.7, "--seed", 3)
    return *common, "--steps", 120, "--interval", 7, "--checkpoint-interval", 25


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_stopped_anywhere_continues_bit_for_bit(whole, monkeypatch, seed):
    volumes = read_log(whole / "whole")[:, 6]
    assert np.ptp(volumes) > 0.01 * volumes[0]
    at = int(np.random.default_rng(seed).integers(3, 118))
    with monkeypatch.context() as patch:
        signal_in_evaluation(patch, at, signal.SIGINT)
        assert "stopped after step" in run(*settings(whole), "--output", "stopped", status=130)
    step = checkpoint.load(Path("stopped/checkpoint.npz")).step
    assert at - 3 <= step <= at
    run("--restart", "stopped")
    assert_same_run(whole / "whole", "stopped")


def test_a_killed_run_continues_bit_for_bit(whole):
    command = [sys.executable, "-c", KILLED, "67", "md", *map(str, settings(whole)), "--output", "killed"]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    assert checkpoint.load(Path("killed/checkpoint.npz")).step == 50
    run("--restart", "killed", "--pressure", 2)
    assert_same_run(whole / "whole", "killed")
    assert "pressure is 2.0 in the run to continue, not 3.0" in run("--restart", "killed", "--pressure", 3, status=1)


def test_a_checkpoint_without_a_barostat_is_refused(whole):
    run(*settings(whole), "--steps", 5, "--output", "run")
    with np.load("run/checkpoint.npz") as content:
        kept = {name: content[name] for name in content if name != "integrator_barostat"}
    np.savez("run/checkpoint.npz", **kept)
    assert "lacks barostat of its integrator" in run("--restart", "run", "--steps", 10, status=1)


def test_other_ensembles_know_nothing_of_it():
    run("lj:13", "--steps", 10, "--output", "run")
    with np.load("run/checkpoint.npz") as content:
        assert sorted(content) == sorted([*checkpoint.ARRAYS, "record"])
        assert "pressure" not in json.loads(str(content["record"]))["settings"]
    assert "pressure" not in summary("run")["settings"] and not Path("run/density.png").exists()
    assert read_log("run").shape[1] == 6
    assert "run to continue has no pressure" in run("--restart", "run", "--pressure", 3, status=1)


def test_units_are_bar_and_grams_for_a_model_in_electronvolts():
    atoms = bulk("Ar", "fcc", a=5.3, cubic=True) * 2
    mdgnn.save(mdgnn.SimpleGNN(elements=[18], envelope="polynomial", cutoff=4.5), "metal")
    ase.io.write("argon.xyz", atoms)
    common = ("--model", "metal", "--ensemble", "npt", "--temperature", 40, "--dtype", "float64", "--output", "run")
    run("argon.xyz", *common, "--pressure", 1000, "--steps", 20, "--interval", 1)
    head = Path("run/log.csv").read_text().splitlines()[0].split(",")
    assert head[6:] == ["volume[Angstrom^3]", "pressure[bar]", "conserved_energy[eV]"]
    log, final = read_log("run"), checkpoint.load(Path("run/checkpoint.npz")).atoms
    final.calc = MDGNNCalculator("metal", dtype="float64")
    pressure = -np.trace(final.get_stress(voigt=False, include_ideal_gas=True)) / 3
    assert log[-1, 7] == pytest.approx(pressure / (1e5 * units.Pascal), rel=1e-9)
    assert METAL.ase_pressure * 1e4 == pytest.approx(units.GPa, rel=1e-14)
    density = 32 * 39.948 * 1.66053907 / log[len(log) // 2 :, 6]
    assert summary("run")["mean_density_second_half"] == pytest.approx(density.mean(), rel=1e-4)
    assert log[-1, 5] == pytest.approx(final.get_temperature() * 32 / 31, rel=1e-9)  # the whole rests


def test_the_motion_of_the_whole_is_taken_from_momenta_that_a_file_has():
    atoms = fcc()
    momenta = np.random.default_rng(0).normal(0, 0.5, (32, 3))
    atoms.set_momenta(momenta + 3.0)
    ase.io.write("moving.xyz", atoms)
    run("moving.xyz", "--ensemble", "npt", "--steps", 0, "--output", "run")
    at_the_start = checkpoint.load(Path("run/checkpoint.npz")).atoms.get_momenta()
    parallel = momenta - momenta.mean(axis=0)
    np.testing.assert_allclose(at_the_start, parallel * (at_the_start[0, 0] / parallel[0, 0]), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        ({"pbc": False}, (), "periodic in all three directions; structure.xyz is periodic along none"),
        ({"pbc": (True, False, True)}, (), "structure.xyz is periodic along a and c"),
        ({"constraint": FixAtoms([0])}, (), "expects no constraints; structure.xyz has FixAtoms"),
        ({"cell": [6, 6, 0]}, (), "cell vector on periodic axis 2"),
        ({}, ("--pressure", "nan"), "finite pressure, got nan"),
        ({}, ("--pressure", "inf"), "finite pressure, got inf"),
        ({}, ("--temperature", 0), "temperature above 0"),
        ({}, ("--friction", 1), "friction goes with the ensemble langevin"),
        ({}, ("--ensemble", "nve", "--pressure", 1), "pressure goes with the ensemble npt, not with nve"),
        ({}, ("--ensemble", "langevin", "--pressure", 0), "pressure goes with the ensemble npt, not with langevin"),
    ],
)
def test_what_cannot_be_gets_a_sentence(change, arguments, words):
    atoms = fcc()
    for name, value in change.items():
        getattr(atoms, f"set_{name}")(value)
    ase.io.write("structure.xyz", atoms)
    assert words in run("structure.xyz", "--ensemble", "npt", "--output", "out", *arguments, status=1)
    assert not Path("out").exists()
    ase.io.write("one.xyz", fcc()[:1])
    assert "at least two atoms" in run("one.xyz", "--ensemble", "npt", status=1)


def test_a_model_without_a_cutoff_gets_a_sentence():
    mdgnn.save(mdgnn.LennardJones(), "full")
    ase.io.write("structure.xyz", fcc())
    assert "cutoff" in run("structure.xyz", "--model", "full", "--ensemble", "npt", status=1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--pressure", 1e7), "cell exploded or collapsed: from 32"),
        (("--pressure", -20, "--temperature", 1), "the cell exploded"),
        (("--pressure", 100, "--model", "soft"), "the cell collapsed to"),
        (("--temperature", 1000), "the cell exploded"),
    ],
)
def test_a_cell_that_is_none_ends_the_run_and_keeps_what_was_written(arguments, words):
    mdgnn.save(mdgnn.LennardJones(epsilon=1e-9, sigma=0.01, cutoff=0.1), "soft")
    mdgnn.save(mdgnn.LennardJones(cutoff=1.8), "short")
    ase.io.write("structure.xyz", fcc())
    common = ("structure.xyz", "--model", "short", "--ensemble", "npt", "--steps", 4000, "--interval", 1)
    sentence = run(*common, "--checkpoint-interval", 3, "--output", "run", *arguments, status=1)
    assert words in sentence, sentence
    state, log = checkpoint.load(Path("run/checkpoint.npz")), read_log("run")
    assert len(log) == len(ase.io.read("run/trajectory.xyz", index=":")) and np.isfinite(log).all()
    assert 0 <= len(log) - 1 - state.step < 3
