"""Molecular dynamics from the command line: units, conservation, and runs that are stopped, killed and continued."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import CalculatorError
from figures import assert_picture
from typer.testing import CliRunner

import mdgnn
from mdgnn import MDGNNCalculator
from mdgnn.cli import app
from mdgnn.dynamics import RunError, checkpoint

# Runs the command line, and kills itself in the middle of the evaluation with this number.
KILLED = """
import os, signal, sys
from mdgnn import MDGNNCalculator
from mdgnn.cli import main
calls, calculate = int(sys.argv.pop(1)), MDGNNCalculator.calculate
def counted(self, *args, **kwargs):
    global calls
    calls -= 1
    if calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    calculate(self, *args, **kwargs)
MDGNNCalculator.calculate = counted
main()
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Model files: the exact potential, and one cut so short that the list of neighbours keeps changing."""
    folder = tmp_path_factory.mktemp("models")
    mdgnn.save(mdgnn.LennardJones(), folder / "full")
    mdgnn.save(mdgnn.LennardJones(cutoff=1.7), folder / "short")
    mdgnn.save(mdgnn.LennardJones(cutoff=1.8), folder / "other")
    mdgnn.save(mdgnn.SimpleGNN(elements=[1, 8]), folder / "metal")
    return folder


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments, status=0):
    result = CliRunner().invoke(app, ["md", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    if status:
        lines = result.stderr.strip().splitlines()
        assert len(lines) == 1, result.stderr
        return lines[0]
    return result.output


def read_log(folder):
    return np.loadtxt(Path(folder) / "log.csv", delimiter=",", skiprows=1, ndmin=2)


def summary(folder):
    return json.loads((Path(folder) / "summary.json").read_text())


def assert_same_run(a, b):
    """Checkpoints, trajectories and logs agree in every bit."""
    a, b = Path(a), Path(b)
    with np.load(a / "checkpoint.npz") as first, np.load(b / "checkpoint.npz") as second:
        assert sorted(first) == sorted(second)
        for name in first:
            assert first[name].tobytes() == second[name].tobytes(), name
    for name in ("trajectory.xyz", "log.csv", "final.xyz"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def signal_in_evaluation(monkeypatch, which, number):
    """Send this process a signal in the middle of an evaluation of the potential."""
    calculate, calls = MDGNNCalculator.calculate, []

    def counted(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == which:
            os.kill(os.getpid(), number)
        calculate(self, *args, **kwargs)

    monkeypatch.setattr(MDGNNCalculator, "calculate", counted)


def settings(models, ensemble, dtype="float32"):
    common = ("lj:38", "--model", models / "short", "--seed", 3, "--temperature", 0.8, "--dtype", dtype)
    return *common, "--ensemble", ensemble, "--steps", 150, "--interval", 7, "--checkpoint-interval", 25


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory):
    """The folder of uninterrupted runs, by ensemble."""
    folder = tmp_path_factory.mktemp("whole")
    run(*settings(models, "nve", "float64"), "--output", folder / "nve")
    run(*settings(models, "langevin"), "--output", folder / "langevin")
    return folder


@pytest.mark.parametrize(("ensemble", "dtype"), [("nve", "float64"), ("langevin", "float32")])
def test_a_killed_run_continues_bit_for_bit(models, whole, ensemble, dtype):
    frames = ase.io.read(whole / ensemble / "trajectory.xyz", index=":")
    moved = np.linalg.norm(frames[-1].positions - frames[0].positions, axis=1).max()
    assert moved > 0.3, "the list was rebuilt meanwhile"

    arguments = [sys.executable, "-c", KILLED, "79"]
    command = [*arguments, "md", *map(str, settings(models, ensemble, dtype)), "--output", "killed"]
    assert subprocess.run(command, timeout=120).returncode == -signal.SIGKILL
    state = checkpoint.load(Path("killed/checkpoint.npz"))
    assert state.step == 75
    assert Path("killed/log.csv").stat().st_size > state.lengths[1], "the log went on after the checkpoint"
    with Path("killed/trajectory.xyz").open("a") as file:
        file.write("38\nhalf a fra")
    run("--restart", "killed")
    assert_same_run(whole / ensemble, "killed")
    assert summary("killed")["steps_in_this_session"] == 75


def test_a_run_killed_before_its_first_checkpoint_writes_no_frame_twice(models, whole):
    command = [sys.executable, "-c", KILLED, "5", "md", *map(str, settings(models, "nve", "float64"))]
    assert subprocess.run([*command, "--output", "killed"], timeout=120).returncode == -signal.SIGKILL
    assert checkpoint.load(Path("killed/checkpoint.npz")).step == 0
    run("--restart", "killed")
    assert_same_run(whole / "nve", "killed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_good_order(models, whole, monkeypatch, number):
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        signal_in_evaluation(patch, 31, number)
        sentence = run(*settings(models, "langevin"), "--output", "stopped", status=128 + number)
    assert "stopped after step 30 of 150" in sentence and "mdgnn md --restart stopped" in sentence
    assert signal.getsignal(number) is before
    assert checkpoint.load(Path("stopped/checkpoint.npz")).step == 30
    assert not Path("stopped/summary.json").exists()
    run("--restart", "stopped")
    assert_same_run(whole / "langevin", "stopped")


def test_a_signal_ends_a_relaxation_in_good_order(models, monkeypatch):
    signal_in_evaluation(monkeypatch, 4, signal.SIGINT)
    arguments = ["relax", "lj:38", "--model", str(models / "short"), "--fmax", "1e-9", "--output", "out"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 130 and "mdgnn relax out/trajectory.xyz" in done.stderr, done.output
    assert len(ase.io.read("out/trajectory.xyz", index=":")) == 4


def test_a_finished_run_can_be_extended(models, whole):
    run(*settings(models, "langevin"), "--steps", 60, "--output", "short")
    run("--restart", "short", "--steps", 150)
    assert_same_run(whole / "langevin", "short")
    assert "done 150 steps already" in run("--restart", "short", "--steps", 100, status=1)


def test_a_restart_is_the_same_run_or_none(models):
    here = models / "copy"
    here.write_bytes((models / "short").read_bytes())
    run("lj:13", "--model", here, "--steps", 20, "--output", "run")
    kept = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    assert "dtype is float32 in the run to continue, not float64" in run(
        "--restart", "run", "--dtype", "float64", status=1
    )
    assert "content of model" in run("--restart", "run", "--model", models / "other", status=1)
    here.write_bytes((models / "other").read_bytes())
    assert "content of model" in run("--restart", "run", status=1)
    run("--restart", "run", "--model", models / "short", "--dtype", "float32", "--steps", 20)

    whole = (Path("run") / "checkpoint.npz").read_bytes()
    Path("run/checkpoint.npz").write_bytes(whole[: len(whole) // 2])
    assert "is not a complete checkpoint" in run("--restart", "run", status=1)
    Path("run/checkpoint.npz").write_bytes(whole)
    Path("run/trajectory.xyz").write_bytes(kept["trajectory.xyz"][:-10])
    assert "shorter than its checkpoint says" in run("--restart", "run", status=1)


def test_a_full_disk_leaves_the_last_checkpoint(models, whole):
    """Stands in for a full disk: the system refuses to let a file grow beyond 60 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        sentence = run(*settings(models, "langevin"), "--output", "full", status=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in sentence and "trajectory.xyz" in sentence
    assert 0 < checkpoint.load(Path("full/checkpoint.npz")).step < 150
    run("--restart", "full")
    assert_same_run(whole / "langevin", "full")


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(models, monkeypatch):
    run("lj:13", "--model", models / "full", "--steps", 10, "--output", "run")
    before = Path("run/checkpoint.npz").read_bytes()

    def refuse(*_, **__):
        raise OSError(28, "No space left on device")

    state = checkpoint.load(Path("run/checkpoint.npz"))
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match="No space left on device; the checkpoint before it is intact"):
        checkpoint.save(Path("run/checkpoint.npz"), state)
    assert Path("run/checkpoint.npz").read_bytes() == before
    assert not list(Path("run").glob("*.part"))


def test_a_failing_model_stops_the_run_and_keeps_what_was_written(models, monkeypatch):
    calculate, calls = MDGNNCalculator.calculate, []

    def fails(self, *args, **kwargs):
        calls.append(1)
        if len(calls) > 60:
            raise CalculatorError("the model returned energy that are not finite")
        calculate(self, *args, **kwargs)

    monkeypatch.setattr(MDGNNCalculator, "calculate", fails)
    assert "not finite" in run(*settings(models, "nve"), "--output", "run", status=1)
    assert checkpoint.load(Path("run/checkpoint.npz")).step == 50
    assert len(ase.io.read("run/trajectory.xyz", index=":")) == len(read_log("run")) == 1 + 59 // 7


def test_reduced_time_is_tau(models):
    """A Lennard-Jones dimer vibrates with omega^2 = k / mu, k = 72 * 2^(-1/3) epsilon / sigma^2 and mu = m / 2."""
    ase.io.write("dimer.xyz", Atoms("Kr2", [[0, 0, 0], [2 ** (1 / 6) + 0.001, 0, 0]]))
    common = ("--model", models / "full", "--dtype", "float64", "--temperature", 0, "--output", "run")
    run("dimer.xyz", *common, "--timestep", 0.004, "--steps", 800, "--interval", 1)
    distance = np.array([frame.get_distance(0, 1) for frame in ase.io.read("run/trajectory.xyz", index=":")])
    assert (Path("run/log.csv").read_text().splitlines()[0]).split(",")[1] == "time[tau]"
    time = read_log("run")[:, 1]
    np.testing.assert_allclose(time, 0.004 * np.arange(801), atol=1e-12)
    up = np.flatnonzero(np.diff(np.sign(distance - distance.mean())) > 0)
    period = (time[up[-1]] - time[up[0]]) / (len(up) - 1)
    assert period == pytest.approx(2 * np.pi / np.sqrt(2 * 72 * 2 ** (-1 / 3)), rel=0.01)


@pytest.mark.parametrize(("name", "symbol", "unit"), [("full", "Xe", 1.0), ("metal", "O", units.fs)])
def test_a_free_atom_keeps_the_momentum_of_its_file(models, name, symbol, unit):
    """Its path is velocity times time: the timestep is in tau or fs, the mass 1 or the element's."""
    atom = Atoms(symbol, [[0.0, 0.0, 0.0]])
    atom.set_momenta([[0.3, -0.2, 0.1]])
    ase.io.write("atom.xyz", atom)
    run("atom.xyz", "--model", models / name, "--timestep", 2, "--steps", 50, "--output", "run")
    final = ase.io.read("run/final.xyz")
    mass = 1.0 if name == "full" else atom.get_masses()[0]
    np.testing.assert_allclose(final.positions[0], np.array([0.3, -0.2, 0.1]) / mass * 100 * unit, rtol=1e-6)
    np.testing.assert_allclose(final.get_momenta(), atom.get_momenta(), atol=1e-8)
    assert summary("run")["units"]["time"] == ("tau" if name == "full" else "fs")


def test_energy_is_conserved_to_second_order(models):
    scatter = []
    for timestep, steps in ((0.008, 400), (0.004, 800)):
        common = ("--model", models / "full", "--dtype", "float64", "--temperature", 0.2, "--interval", 2)
        output = run("lj:13", *common, "--timestep", timestep, "--steps", steps, "--output", f"run{timestep}")
        written = summary(f"run{timestep}")
        told = dict([cell.strip() for cell in line.split("│")[1:3]] for line in output.splitlines() if "│" in line)
        assert told["steps"] == f"{steps} of {timestep} tau" and told["output"] == f"run{timestep}"
        assert told["total energy"] == f"{written['final_total_energy']:.6f} epsilon"
        assert told["at the start"] == f"{written['initial_total_energy']:.6f} epsilon"
        assert told["mean temperature"] == f"{written['mean_temperature_second_half']:.4g} epsilon/kB (second half)"
        assert told["drift per atom"] == f"{written['energy_drift_per_atom']:.2e} epsilon"
        assert abs(written["energy_drift_per_atom"]) < 1e-4
        scatter.append(written["energy_fluctuation_per_atom"])
    assert 3 < scatter[0] / scatter[1] < 5


def test_the_thermostat_holds_its_temperature(models):
    common = ("--model", models / "full", "--ensemble", "langevin", "--friction", 5, "--temperature", 0.15)
    run("lj:13", *common, "--steps", 1500, "--timestep", 0.005, "--output", "run")
    assert summary("run")["mean_temperature_second_half"] == pytest.approx(0.15, rel=0.25)
    first, last = (ase.io.read("run/trajectory.xyz", index=index) for index in (0, -1))
    np.testing.assert_allclose(last.get_center_of_mass(), first.get_center_of_mass(), atol=1e-6)
    for name in ("energy.png", "temperature.png", "radial_distribution.png", "structures.png"):
        assert_picture(Path("run") / name)
