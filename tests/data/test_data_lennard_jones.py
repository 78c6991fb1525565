"""Lennard-Jones data: labels against ASE's calculator and a direct sum, kinds of frames, seeds, and the files."""

import itertools

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones as ASELennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from systems import crystal, icosahedron

from mdgnn import LennardJones, MDGNNCalculator
from mdgnn.data import Dataset, read_frames
from mdgnn.dynamics import lj_frames as frames_of
from mdgnn.dynamics import quench
from mdgnn.dynamics.lj_frames import (
    apart,
    boxes,
    clusters,
    compact,
    in_sphere,
    label,
    lj_frames,
    minima,
    tail,
    weigh,
)

FULL = MDGNNCalculator(LennardJones(), dtype="float64")
SHORT = MDGNNCalculator(LennardJones(cutoff=2.5, mode="shifted"), dtype="float64")


def cut(cutoff):
    return MDGNNCalculator(LennardJones(cutoff=cutoff, mode="cut"), dtype="float64")


def direct_sum(positions):
    """Energy and forces of a cluster, pair by pair."""
    energy, forces = 0.0, np.zeros_like(positions)
    for i, j in itertools.combinations(range(len(positions)), 2):
        d = positions[j] - positions[i]
        r = np.sqrt(d @ d)
        energy += 4 * (r**-12 - r**-6)
        slope = 4 * (-12 * r**-13 + 6 * r**-7)
        forces[i] += slope * d / r
        forces[j] -= slope * d / r
    return energy, forces


def test_labels_of_clusters_are_the_whole_sum(tmp_path):
    """In the file too: its positions are those that were labelled."""
    frames = list(lj_frames(19, seed=0, kind="clusters", largest=9))
    ase.io.write(tmp_path / "lj.xyz", frames)
    for atoms in read_frames([tmp_path / "lj.xyz"], units="lj"):
        results = atoms.calc.results
        energy, forces = direct_sum(atoms.positions)
        assert results["energy"] == pytest.approx(energy, rel=1e-12, abs=1e-12)
        np.testing.assert_allclose(results["forces"], forces, rtol=1e-9, atol=6e-9)  # eight decimals in the file
        ase_says = ASELennardJones(rc=1e4, ro=9e3)
        ase_says.calculate(atoms)
        assert results["energy"] == pytest.approx(ase_says.results["energy"], rel=1e-10)
        np.testing.assert_allclose(results["forces"], ase_says.results["forces"], rtol=1e-9, atol=1e-8)


def test_labels_of_boxes_are_converged():
    """Cut at 10 with tails, against 20 with tails; and against ASE, which has no tails."""
    for atoms, energy_error in ((bulk("Ar", "fcc", a=1.55), 1e-4), (crystal(0.1), 5e-5)):
        near, far = atoms.copy(), atoms.copy()
        label([near], cut(10.0), 10.0)
        label([far], cut(20.0), 20.0)
        ours, truth = near.calc.results, far.calc.results
        assert abs(ours["energy"] - truth["energy"]) / len(atoms) < energy_error
        np.testing.assert_allclose(ours["forces"], truth["forces"], atol=1e-4)
        np.testing.assert_allclose(ours["stress"], truth["stress"], atol=5e-4)
        ase_says = ASELennardJones(rc=10.0)  # which shifts energies, and nothing else
        pressure = tail(len(atoms), atoms.get_volume(), 10.0)[1]
        np.testing.assert_allclose(ours["forces"], ase_says.get_forces(atoms), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours["stress"][3:], ase_says.get_stress(atoms)[3:], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours["stress"][:3] + pressure, ase_says.get_stress(atoms)[:3], rtol=1e-9, atol=1e-9)


def test_tail_is_the_integral():
    """2 pi N rho int r^2 V, and -2/3 pi rho^2 int r^3 V', by the trapezoidal rule in 1/r."""
    n, volume, cutoff = 100, 120.0, 3.0
    x = np.linspace(1e-9, 1 / cutoff, 200001)
    r = 1 / x
    v, dv = 4 * (r**-12 - r**-6), 4 * (-12 * r**-13 + 6 * r**-7)
    density = n / volume
    energy = 2 * np.pi * n * density * np.trapezoid(v * r**4, x)
    pressure = -2 / 3 * np.pi * density**2 * np.trapezoid(dv * r**5, x)
    assert tail(n, volume, cutoff) == pytest.approx((energy, pressure), rel=1e-6)


def test_the_kinds_of_frames():
    frames = list(itertools.islice(clusters(1, FULL, sizes=[7]), 44))
    kinds = [a.info["config_type"] for a in frames]
    assert set(kinds) == {"dimer", "displaced", "crowded", "langevin", "basin_hopping"} and kinds.count("dimer") >= 2
    minima = [a for a, kind in zip(frames, kinds, strict=True) if kind == "basin_hopping"]
    label(frames, FULL)
    assert all(np.abs(a.calc.results["forces"]).max() < 0.02 for a in minima)
    assert all(isinstance(a.calc, SinglePointCalculator) and not a.pbc.any() for a in frames)
    assert all(np.array_equal(a.positions, a.positions.round(8)) and "momenta" not in a.arrays for a in frames)
    others = [f for f, kind in zip(frames, kinds, strict=True) if kind not in ("dimer", "crowded")]
    crowded = [f for f, kind in zip(frames, kinds, strict=True) if kind == "crowded"]
    assert Dataset(others, 3.0).shortest > 0.8 > Dataset(crowded, 3.0).shortest > 0.55


def test_frames_with_strong_forces_weigh_less():
    """By the largest force, 24 (2 r^-13 - r^-7) of a dimer, squared; the lecture's data are as they are."""
    for r in (0.7, 1.5):
        (dimer,) = pair = [Atoms("Ar2", [[0, 0, 0], [r, 0, 0]])]
        label(pair, FULL)
        weigh(dimer)
        assert dimer.info["weight"] == pytest.approx(min(1, (150 / abs(24 * (2 * r**-13 - r**-7))) ** 2))
    single = Atoms("Ar", calculator=FULL)
    weigh(single)
    assert single.info["weight"] == 1
    assert all("weight" not in a.info for a in lj_frames(3, 0, "lecture"))
    assert all(0 < a.info["weight"] <= 1 for a in lj_frames(8, 0, "all", 5))


def test_atoms_are_moved_apart_and_no_more():
    positions = np.array([[0, 0, 0], [0.3, 0, 0], [0, 5.0, 0], [0, 6.0, 0]])
    moved = apart(positions, 0.8)
    assert np.linalg.norm(moved[0] - moved[1]) >= 0.8 and np.array_equal(moved[2:], positions[2:])
    assert np.linalg.norm(in_sphere(50, np.random.default_rng(0)), axis=1).max() <= 0.5 + 0.62 * 50 ** (1 / 3)


def test_boxes_are_solid_and_melted():
    frames = list(itertools.islice(boxes(0, SHORT, repeat=2), 24))
    kinds = [a.info["config_type"] for a in frames]
    assert kinds == ["solid"] * 8 + ["strained"] * 4 + ["liquid"] * 12 and Dataset(frames, 2.0).shortest > 0.82
    assert all(a.pbc.all() and len(a) == 32 for a in frames)

    def order(atoms):
        """Of the crystal: the largest structure factor of the planes (111), 1 when nothing moves."""
        planes = 2 * np.array([[1, 1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, -1]])  # in cells of 2 x 2 x 2
        phases = np.exp(2j * np.pi * atoms.get_scaled_positions() @ planes.T)
        return np.abs(phases.mean(axis=0)).max()

    assert min(order(a) for a in frames[:8]) > 0.6 > 0.55 > np.median([order(a) for a in frames[12:]])
    assert len({round(a.get_volume(), 6) for a in frames}) == 6, "a density for each kind, and strained cells"


def test_basin_hopping_finds_the_minimum_of_seven():
    atoms = compact(7, np.random.default_rng(3))
    energies = [FULL.get_potential_energy(a) for a in minima(_with(atoms), np.random.default_rng(0), hops=12)]
    assert min(energies) == pytest.approx(-16.505384, abs=1e-4)
    assert quench(_with(icosahedron(2))).energy == pytest.approx(-44.326801, abs=1e-4)
    assert [len(compact(n, np.random.default_rng(0))) for n in (3, 13, 38, 55, 100)] == [3, 13, 38, 55, 100]


def _with(atoms):
    atoms.calc = FULL
    return atoms


def test_frames_follow_the_seed():
    def drawn(n, seed):
        return [a.positions for a in lj_frames(n, seed, "clusters", 5)]

    first = drawn(12, 0)
    assert all(map(np.array_equal, first, drawn(12, 0))) and all(map(np.array_equal, first, drawn(7, 0)))
    assert not any(a.shape == b.shape and np.array_equal(a, b) for a, b in zip(first, drawn(12, 1), strict=True))
    kinds = [a.info["config_type"] for a in lj_frames(4, 0, "all", 5)]
    assert kinds[3] == "solid" and kinds[0] == "dimer"


def test_liquids_are_as_hot_as_asked(monkeypatch):
    """They come from a temperature of 3, and once were 0.3 too hot."""
    temperatures = []

    def watched(atoms, temperature, *args, **options):
        for frame in dynamics(atoms, temperature, *args, **options):
            if options["frames"] == 12:
                temperatures.append((temperature, np.square(frame.get_velocities()).mean()))
            yield frame

    dynamics = frames_of._dynamics
    monkeypatch.setattr(frames_of, "_dynamics", watched)
    list(itertools.islice(boxes(0, SHORT, repeat=2), 4 * 24))
    asked, kinetic = np.array(temperatures).reshape(4, 12, 2).mean(axis=1).T
    assert len(set(asked)) == 4 and np.abs(kinetic - asked).max() < 0.25
    assert kinetic.mean() == pytest.approx(asked.mean(), abs=0.1)
