"""Pictures: of any system within seconds, and nothing that happens to one happens to the run that it is of."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.io import write
from command_line import run, sentence
from figures import assert_picture

import mdgnn
from mdgnn.dynamics import run_folder, trajectory
from mdgnn.plots import draw, process, radial, runs, style
from mdgnn.plots import training as pictures
from mdgnn.plots.structures import EDGES, MOST_ATOMS, scene, structures

PICTURES = ["energy.png", "radial_distribution.png", "structures.png"]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def relaxation(n):
    """A log of n steps."""
    return np.stack([np.arange(n), -np.ones(n), np.ones(n)], axis=1)


def energy(log):
    return partial(runs.plot_relaxation, log=log, energy_unit="eV", force_unit="eV/Angstrom")


class Hangs:
    """What never arrives in the process that draws."""

    def __reduce__(self):
        return time.sleep, (1000,)


def test_dynamics_in_a_cell_of_a_million_sigma_ends_with_pictures_of_the_atoms(model):
    """ASE's plot_atoms draws the line of such a cell in a million pieces."""
    atoms = Atoms("Ar8", 1.1 * np.argwhere(np.ones((2, 2, 2))), cell=[1e6] * 3, pbc=True)
    write("wide.xyz", atoms)
    mdgnn.save(mdgnn.LennardJones(cutoff=2.5), "short.safetensors")
    begin = time.perf_counter()
    result = run("md", "wide.xyz", "--model", "short.safetensors", "--steps", 20, "--output", "o")
    assert result.exit_code == 0 and result.stderr == ""
    assert time.perf_counter() - begin < 60
    for name in (*PICTURES, "temperature.png"):
        assert_picture(Path("o", name))
    seen = scene(atoms, reduced=True)
    assert seen.corners is None and "the cell is much larger: 1e+06 x 1e+06 x 1e+06 σ" in seen.notes
    assert (seen.high - seen.low).max() < 5, "the picture is of the atoms"


def test_a_cell_that_the_atoms_fill_is_drawn_by_its_twelve_edges():
    crystal = bulk("Cu", "fcc", a=3.6, cubic=True).repeat(3)
    seen = scene(crystal, reduced=False)
    assert len(EDGES) == 12 and seen.notes == []
    lengths = [np.linalg.norm(seen.corners[a] - seen.corners[b]) for a, b in EDGES]
    np.testing.assert_allclose(lengths, 3 * 3.6)


def test_atoms_that_flew_off_are_counted_and_the_others_seen():
    atoms = Atoms("Ar27", 1.1 * np.argwhere(np.ones((3, 3, 3))))
    atoms.positions[5], atoms.positions[9] = [1e6, 0, 0], [0, 0, -1e5]
    seen = scene(atoms, reduced=True)
    assert len(seen.positions) == 25 and (seen.high - seen.low).max() < 10
    assert seen.notes == ["far away, and not shown: 2 atoms"]
    pair = scene(Atoms("Ar2", [[0, 0, 0], [1e6, 0, 0]]), reduced=True)
    assert len(pair.positions) == 2 and pair.notes == [], "of two, neither is the one that flew off"


def test_a_million_atoms_are_some_of_them_and_the_picture_says_so():
    n = 1_000_000
    atoms = Atoms(numbers=np.full(n, 18), positions=np.random.default_rng(0).uniform(0, 100, (n, 3)))
    seen = scene(atoms, reduced=True)
    assert len(seen.positions) == MOST_ATOMS and seen.notes == ["10,000 of 1,000,000 atoms"]
    assert (np.diff(seen.positions[:, 2]) >= 0).all(), "those in front hide those behind"
    assert draw(Path(), {"s.png": lambda: structures({"before": atoms, "after": atoms}, True, n)}) == ["s.png"]


def test_positions_that_are_not_finite_are_left_out_and_said(capsys):
    atoms = Atoms("Ar3", [[0, 0, 0], [np.nan, 0, 0], [1.1, 0, 0]])
    assert scene(atoms, reduced=True).notes == ["2 of 3 atoms", "without a finite position: 1"]
    nowhere = Atoms("Ar", [[np.nan] * 3])
    wanted = {
        "some.png": lambda: radial.distribution({"after": [atoms]}, "sigma", 3),
        "none.png": lambda: radial.distribution({"after": [nowhere]}, "sigma", 1),
        "nowhere.png": lambda: structures({"after": nowhere}, True, 1),
        "log.png": lambda: energy(np.full((3, 3), np.nan)),
    }
    assert draw(Path(), wanted) == ["some.png", "log.png"]
    assert capsys.readouterr().err == (
        "mdgnn: the pictures none.png, nowhere.png were not drawn: no atom has a finite position\n"
    )


def test_atoms_drawn_by_lot_have_the_distribution_of_all():
    crystal = bulk("Ar", "fcc", a=1.6, cubic=True).repeat(12)
    crystal.rattle(0.05, seed=1)
    _, exact, m = radial.radial_distribution([crystal], 2.0)
    _, some, fewer = radial.radial_distribution([crystal], 2.0, most_pairs=60_000)
    assert m == len(crystal) and 200 <= fewer < m
    peak = exact > 1
    assert some[peak].sum() == pytest.approx(exact[peak].sum(), rel=0.05)
    cluster = Atoms(crystal.numbers, crystal.positions)
    (_, exact, _), (_, some, fewer) = (
        radial.radial_distribution([cluster], 2.0, most_pairs=most) for most in (10**9, 60_000)
    )
    assert fewer < len(cluster) and some.sum() == pytest.approx(exact.sum(), rel=0.05)


def test_a_hundred_frames_of_a_hundred_thousand_atoms_at_one_place_stay_few_pairs():
    """All pairs of these are 1e10."""
    heap = Atoms(numbers=np.full(100_000, 18), positions=np.random.default_rng(0).uniform(0, 2, (100_000, 3)))
    _, _, m = radial.radial_distribution([heap] * 100, 8.0)
    assert 200 <= m <= 800


def test_a_long_log_is_a_band_that_keeps_each_extreme():
    figure = style.new_figure(3, 3)
    axes = figure.subplots()
    y = np.sin(np.arange(1_000_000) / 1e4)
    y[[123_456, 654_321]], y[5] = (7, -9), np.inf
    style.line(axes, np.arange(1_000_000), y)
    drawn = axes.lines[0].get_ydata()
    assert len(drawn) == 2000 and drawn.max() == 7 and drawn.min() == -9
    style.line(axes, np.arange(4), y[:4])
    assert np.array_equal(axes.lines[1].get_ydata(), y[:4])


def test_all_of_many_points_are_counted_outliers_too():
    truth = np.random.default_rng(0).normal(size=1_000_000)
    said = truth + 0.1
    said[0], said[1], said[2] = 50, np.nan, -np.inf
    shown = pictures.pairs(truth, said, "forces", "eV/Å")
    assert shown.counts.sum() == 999_998 and (shown.counts[:, -5:].sum(), shown.ends[1] > 50) == (1, True)
    assert shown.notes == ["2 of 1,000,000 points are not finite, and not shown"]
    few = pictures.pairs(truth[:10], truth[:10], "forces", "eV/Å")
    assert few.counts is None and few.points.shape == (2, 10) and few.title == "forces, RMSE 0 eV/Å"
    none = pictures.pairs(truth[1:2], said[1:2], "a $ and ^ b, 力", "")
    assert draw(Path(), {"p.png": lambda: pictures.parity([shown, few, none])}) == ["p.png"]


@pytest.mark.parametrize("n_atoms", [1, 8, 300])
def test_frames_are_found_without_reading_all(n_atoms, monkeypatch):
    """Also where the rest of a line looks like the first line of a frame."""
    rng, all_of_them = np.random.default_rng(0), []
    with Path("t.xyz").open("wb") as file:
        for _ in range(40):
            atoms = Atoms(numbers=np.full(n_atoms, 18), positions=rng.integers(0, 9, (n_atoms, 3)) + 0.00000008)
            all_of_them.append(atoms)
            write("one.xyz", atoms, format="extxyz")
            file.write(Path("one.xyz").read_bytes())
    frames = trajectory.sample_frames(Path("t.xyz"), range(20, 40), 40, n_atoms)
    assert len(frames) == 20
    for here, there in zip(frames, all_of_them[20:], strict=True):
        np.testing.assert_allclose(here.positions, there.positions, atol=1e-7)
    monkeypatch.setattr(trajectory, "MOST_LINES", 3 * n_atoms)
    monkeypatch.setattr(trajectory, "MOST_ATOMS", 3 * max(1, n_atoms // 2))
    few = trajectory.sample_frames(Path("t.xyz"), range(20, 40), 40, n_atoms)
    assert len(few) == 3 and all(len(atoms) == max(1, n_atoms // 2) for atoms in few)


def test_the_data_are_on_the_disk_before_a_picture_is_begun(model, monkeypatch):
    seen = []

    def looks(folder, pictures):
        seen.append({name: (folder / name).exists() for name in (run_folder.SUMMARY, run_folder.FINAL)})

    monkeypatch.setattr("mdgnn.dynamics.md_plots.draw", looks)
    monkeypatch.setattr("mdgnn.dynamics.relaxation.draw", looks)
    for command in ("md", "relax"):
        assert run(command, "lj:13", "--model", model, "--steps", 60, "--output", command).exit_code == 0
    assert seen == [{run_folder.SUMMARY: True, run_folder.FINAL: True}] * 2


def test_training_is_over_before_its_pictures_and_plot_tells_if_one_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    from training_runs import clusters, file_of, small

    from mdgnn.training import outcome
    from mdgnn.training.run import train

    seen, threads = [], torch.get_num_threads()
    monkeypatch.setattr(outcome, "draw", lambda folder, _: seen.append((folder / "summary.json").exists()) or [])
    try:
        train(small(file_of(tmp_path / "data.xyz", clusters(8)), "run.epochs=1"), tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    assert seen == [True]
    result = run("plot", tmp_path / "run")
    assert result.exit_code == 1 and "3 of 3 pictures could not be drawn" in sentence(result)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_picture_is_drawn_ends_the_drawing_alone(number, capsys):
    before = signal.getsignal(number)

    def interrupted():
        signal.raise_signal(number)
        return energy(relaxation(3))

    begin = time.perf_counter()
    assert draw(Path(), {"a.png": interrupted, "b.png": lambda: energy(relaxation(3))}) == []
    assert capsys.readouterr().err == "mdgnn: the pictures a.png, b.png were not drawn: interrupted\n"
    assert time.perf_counter() - begin < 20 and signal.getsignal(number) is before


def test_ctrl_c_in_a_terminal_while_pictures_are_drawn_leaves_a_finished_run(model):
    """The signal goes to the whole group of processes, as a terminal sends it, twice."""
    program = (
        "import mdgnn.dynamics.relaxation as relax, mdgnn.plots.process as process; from mdgnn.cli import main\n"
        "process._CODE, draw = 'import time; time.sleep(1000)', relax.draw\n"
        "relax.draw = lambda *job: (print('drawing', flush=True), draw(*job))\n"
        "main()"
    )
    command = [sys.executable, "-c", program, "relax", "lj:13", "--model", str(model), "--output", "o"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout.readline() == "drawing\n"
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        told, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "largest force" in told and "were not drawn: interrupted" in errors and "Traceback" not in errors
    assert json.loads(Path("o/summary.json").read_text())["converged"]


def test_a_drawing_that_takes_too_long_is_ended(monkeypatch, capsys):
    monkeypatch.setattr(process, "LONGEST_S", 1.0)
    begin = time.perf_counter()
    assert draw(Path(), {"slow.png": lambda: energy(Hangs())}) == []
    assert capsys.readouterr().err == "mdgnn: the picture slow.png was not drawn: drawing took more than 1 s\n"
    assert time.perf_counter() - begin < 20


def test_what_fails_is_one_sentence_and_an_older_picture_goes(capsys):
    Path("a.png").write_bytes(b"old")
    Path("b.png").write_bytes(b"old")
    wanted = {
        "a.png": lambda: partial(energy(relaxation(3)), energy_unit=3),
        "b.png": lambda: 1 / 0,
        "c.png": lambda: energy(relaxation(3)),
    }
    assert draw(Path(), wanted) == ["c.png"]
    told = capsys.readouterr().err.splitlines()
    assert sorted(told) == [
        "mdgnn: the picture a.png was not drawn: 'int' object has no attribute 'replace'",
        "mdgnn: the picture b.png was not drawn: division by zero",
    ]
    assert [path.name for path in Path().glob("*.png")] == ["c.png"]


def test_a_folder_that_takes_no_pictures_fails_no_run(model, monkeypatch):
    real = Path.unlink

    def full(path, missing_ok=False):
        if path.suffix == ".png" and Path("o/summary.json").exists():
            raise OSError(28, "No space left on device")
        real(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", full)
    result = run("relax", "lj:13", "--model", model, "--output", "o")
    assert result.exit_code == 0
    assert result.stderr.count("mdgnn: ") == 1 and "were not drawn: No space left on device" in result.stderr
    assert "o/energy.png, o/radial_distribution.png, o/structures.png" in result.stderr
