"""What the pictures of runs show: which numbers, on which axes, in which units."""

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from figures import curve, figures_of, legend

from mdgnn import LennardJones, MDGNNCalculator
from mdgnn.dynamics import NPT, NVE, Langevin, relax, simulate
from mdgnn.dynamics.lj_clusters import lj_cluster
from mdgnn.plots import training as pictures
from mdgnn.plots.structures import scene
from mdgnn.plots.style import BLOCKS
from mdgnn.training import plots

N = 13


def cluster():
    atoms = lj_cluster(str(N), np.random.default_rng(0))
    atoms.positions += np.random.default_rng(1).normal(0, 0.05, atoms.positions.shape)
    return atoms


def exact(cutoff=None):
    model = LennardJones() if cutoff is None else LennardJones(cutoff=cutoff)
    return MDGNNCalculator(model, dtype="float64")


def read_log(folder):
    return np.loadtxt(folder / "log.csv", delimiter=",", skiprows=1)


def labels(figure):
    return [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.axes]


def assert_shows(figure, *structures):
    """Panels have these atoms, those in front last."""
    for axes, atoms in zip(figure.axes, structures, strict=True):
        shown = np.array(axes.collections[0].get_offsets())
        np.testing.assert_allclose(shown, scene(atoms, reduced=True).positions[:, :2], atol=1e-6)


def test_a_relaxation(tmp_path, monkeypatch):
    figures = figures_of(monkeypatch, "mdgnn.dynamics.relaxation")
    relaxed = relax(cluster(), exact(), folder=tmp_path / "run")
    assert list(figures) == ["energy.png", "radial_distribution.png", "structures.png"]
    log = read_log(tmp_path / "run")
    top, bottom = figures["energy.png"].axes
    assert labels(figures["energy.png"]) == [("", "energy (ε)"), ("step", "largest force (ε/σ)")]
    assert len(top.lines) == len(bottom.lines) == 1 and bottom.get_yscale() == "log" and top.get_yscale() == "linear"
    np.testing.assert_array_equal(curve(top), log[:, :2].T)
    np.testing.assert_array_equal(curve(bottom), log[:, [0, 2]].T)

    (axes,) = figures["radial_distribution.png"].axes
    assert labels(figures["radial_distribution.png"]) == [("distance r (σ)", "neighbours per atom, dN/dr (1/σ)")]
    assert legend(axes) == ["before", "after"] and axes.get_xlim()[0] == 0 == axes.get_ylim()[0]
    for number in range(2):
        r, density = curve(axes, number)
        assert density.sum() * (r[1] - r[0]) == pytest.approx(N - 1), "each atom has all others as neighbours"
    assert np.abs(curve(axes, 1)[0][curve(axes, 1)[1].argmax()] - 1.1) < 0.1, "at the distance of a bond"

    before, after = figures["structures.png"].axes
    assert (before.get_title(), after.get_title()) == ("before", "after")
    assert [len(axes.collections[0].get_offsets()) for axes in (before, after)] == [N, N]
    assert len(before.lines) == 0, "no cell"
    assert_shows(figures["structures.png"], cluster(), relaxed.atoms)
    for axes in (before, after):
        (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
        x, y = np.array(axes.collections[0].get_offsets()).T
        assert x0 < x.min() < x.max() < x1 and y0 < y.min() < y.max() < y1


@pytest.mark.parametrize("ensemble", [NVE(0.2), Langevin(0.2)], ids=lambda ensemble: ensemble.name)
def test_dynamics(tmp_path, monkeypatch, ensemble):
    figures = figures_of(monkeypatch, "mdgnn.dynamics.md_plots")
    simulate(cluster(), exact(), ensemble, folder=tmp_path / "run", steps=60, interval=3)
    assert list(figures) == ["energy.png", "temperature.png", "radial_distribution.png", "structures.png"]
    log = read_log(tmp_path / "run")
    top, bottom = figures["energy.png"].axes
    assert labels(figures["energy.png"]) == [
        ("", "energy per atom (ε)"), ("time (τ)", "total − initial, per atom (ε)")
    ]  # fmt: skip
    assert legend(top) == ["total", "potential"] and len(bottom.lines) == 1
    for number in range(2):
        np.testing.assert_allclose(curve(top, number), [log[:, 1], log[:, 2 + number] / N])
    np.testing.assert_allclose(curve(bottom)[1], (log[:, 2] - log[0, 2]) / N, atol=1e-15)

    (axes,) = figures["temperature.png"].axes
    assert labels(figures["temperature.png"]) == [("time (τ)", "temperature (ε/k$_B$)")]
    np.testing.assert_array_equal(curve(axes), log[:, [1, 5]].T)
    half = log[len(log) // 2 :]
    np.testing.assert_allclose(curve(axes, 1), [half[[0, -1], 1], [half[:, 5].mean()] * 2])
    expected = [f"mean {half[:, 5].mean():.4g}"] + ["thermostat 0.2"] * (ensemble.name == "langevin")
    assert legend(axes) == expected and len(axes.lines) == 1 + len(expected)
    if ensemble.name == "langevin":
        assert set(curve(axes, 2)[1]) == {0.2}

    frames = ase.io.read(tmp_path / "run" / "trajectory.xyz", ":")
    (axes,) = figures["radial_distribution.png"].axes
    assert legend(axes) == [f"mean of {len(half)} frames of the second half"]
    r, density = curve(axes)
    assert density.sum() * (r[1] - r[0]) == pytest.approx(N - 1)
    ends = np.linspace(0, axes.get_xlim()[1], len(r) + 1)
    pairs = [atoms.get_all_distances()[~np.eye(N, dtype=bool)] for atoms in frames[len(frames) // 2 :]]
    counts, _ = np.histogram(pairs, ends)
    np.testing.assert_allclose(density, counts / (N * len(pairs) * ends[1]), rtol=1e-12)
    assert_shows(figures["structures.png"], frames[0], frames[-1])


def test_dynamics_under_pressure(tmp_path, monkeypatch):
    figures = figures_of(monkeypatch, "mdgnn.dynamics.md_plots")
    crystal = bulk("Ar", "fcc", a=1.6, cubic=True) * 3
    simulate(crystal, exact(2.0), NPT(0.3, pressure=1.5), folder=tmp_path / "run", steps=40, interval=2)
    log = read_log(tmp_path / "run")
    density, pressure = figures["density.png"].axes
    assert labels(figures["density.png"]) == [("", "density (1/σ³)"), ("time (τ)", "pressure (ε/σ³)")]
    np.testing.assert_allclose(curve(density), [log[:, 1], len(crystal) / log[:, 6]])
    np.testing.assert_array_equal(curve(pressure), log[:, [1, 7]].T)
    assert "barostat 1.5" in legend(pressure) and set(curve(pressure, 2)[1]) == {1.5}
    _, bottom = figures["energy.png"].axes
    assert bottom.get_ylabel() == "conserved − initial, per atom (ε)"
    np.testing.assert_allclose(curve(bottom)[1], (log[:, 8] - log[0, 8]) / len(crystal), atol=1e-15)
    (axes,) = figures["radial_distribution.png"].axes
    assert axes.get_ylabel() == "radial distribution g(r)"
    r, g = curve(axes)
    assert g[r < 0.8].max() == 0 and g[r > 2].mean() == pytest.approx(1, abs=0.1), "of a gas of the same density"
    for panel in figures["structures.png"].axes:
        assert len(panel.lines) == 12, "the edges of the cell"


def test_learning():
    rows = [
        {
            "epoch": str(k), "train_loss": f"{1 / (k + 1)}", "valid_loss": f"{2 / (k + 1)}", "lr": "0.001",
            "energy_mae": f"{0.1 / (k + 1)}", "energy_rmse": f"{0.2 / (k + 1)}", "stress_mae": "", "stress_rmse": "",
        }
        for k in range(5)
    ]  # fmt: skip
    figure = plots.learning(rows, "lj")()
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss", "energy per atom (ε)", "learning rate"]
    assert all(axes.get_yscale() == "log" for axes in figure.axes) and figure.axes[-1].get_xlabel() == "epoch"
    assert legend(figure.axes[0]) == ["training", "validation"] and legend(figure.axes[1]) == ["RMSE", "MAE"]
    loss, error, rate = figure.axes
    assert [len(axes.lines) for axes in figure.axes] == [2, 2, 1]
    for axes, number, first in ((loss, 0, 1), (loss, 1, 2), (error, 0, 0.2), (error, 1, 0.1)):
        np.testing.assert_allclose(curve(axes, number), [range(5), [first / (k + 1) for k in range(5)]], rtol=1e-14)
    np.testing.assert_array_equal(curve(rate), [range(5), [0.001] * 5])


def test_parity():
    x = np.random.default_rng(0).normal(0, 1, 5000)
    none = np.zeros(0)
    figure = plots.parity({"energy": (x[:5], x[:5] + 1), "forces": (x, x + 0.1), "stress": (none, none)}, "metal")()
    few, many = figure.axes
    assert labels(figure) == [("reference (eV)", "model (eV)"), ("reference (eV/Å)", "model (eV/Å)")]
    assert few.get_title() == "energy per atom, RMSE 1 eV" and many.get_title() == "force component, RMSE 0.1 eV/Å"
    for axes in (few, many):
        assert axes.get_xlim() == axes.get_ylim() == tuple(curve(axes)[0]) == tuple(curve(axes)[1]), "the diagonal"
    np.testing.assert_array_equal(curve(few, 1), [x[:5], x[:5] + 1])
    (image,) = many.images
    ends = many.get_xlim()
    counts, *_ = np.histogram2d(x + 0.1, x, pictures.SQUARES, [ends, ends])  # rows are what the model says
    np.testing.assert_array_equal(image.get_array().filled(0), counts)
    assert image.origin == "lower" and image.get_extent() == [*ends, *ends] and counts.sum() == 5000
    assert not few.images and few.get_xlim()[0] < x[:5].min() and few.get_ylim()[1] > x[:5].max() + 1


def test_dimers():
    figure = plots.dimers(LennardJones(cutoff=2.5))()
    (axes,) = figure.axes
    assert labels(figure) == [("distance (σ)", "energy (ε)")] and legend(axes) == ["any two atoms"]
    r, energy = curve(axes)
    assert (r[0], r[-1]) == axes.get_xlim() and energy[r > 2.5].tolist() == [0.0] * (r > 2.5).sum()
    lowest = np.argmin(energy)
    assert r[lowest] == pytest.approx(2 ** (1 / 6), abs=0.01) and axes.get_ylim()[0] < energy[lowest] < -0.9
    assert len(r) < BLOCKS, "every point of it"
