"""One energy that was 214 eV off moved the references of all; nobody was told."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

pytest.importorskip("lightning")

from training_runs import clusters, file_of, small

from mdgnn.data import Dataset, Keys, read_frames
from mdgnn.training.build import build
from mdgnn.training.config import parse
from mdgnn.training.data import read_sets
from mdgnn.training.references import least_squares, summarize
from mdgnn.training.run import train
from mdgnn.training.suspects import suspects, without

pytestmark = pytest.mark.usefixtures("one_thread_and_no_pictures")


def by_emt(atoms):
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def alloys(n=20, seed=0):
    """Crystals of copper and aluminium, displaced as at several temperatures."""
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = bulk("Cu", cubic=True) * (2, 1, 1)
        atoms.symbols[rng.random(len(atoms)) < 0.4] = "Al"
        atoms.positions += rng.normal(0, rng.uniform(0.02, 0.15), atoms.positions.shape)
        frames.append(by_emt(atoms))
    return frames


def all_sorts():
    """What is rare and right: lone atoms, dimers from end to end, compressed and expanded crystals, surfaces."""
    frames = [Atoms("Cu"), Atoms("Al")]
    frames += [Atoms("Cu2", [[0, 0, 0], [r, 0, 0]]) for r in np.linspace(1.2, 5, 12)]
    frames += [bulk("Cu", a=3.6 * s, cubic=True) for s in np.linspace(0.65, 1.5, 18)]
    frames += [fcc111("Cu", (1, 1, n), vacuum=8.0) for n in (1, 2, 5)]
    return [by_emt(atoms) for atoms in frames]


def summary_of(frames):
    dataset = Dataset(frames, 4.0)
    return summarize([dataset[k] for k in range(len(dataset))], dataset.elements)


@pytest.mark.parametrize("off", [214.0, -214.0])
def test_a_wrong_energy_is_named_and_moves_no_reference(off):
    sound, frames = summary_of(alloys()), alloys()
    assert suspects(sound, "metal") == [] and without(sound, []).weights.tolist() == sound.weights.tolist()
    frames[7].calc.results["energy"] += off
    summary = summary_of(frames)
    (found,) = suspects(summary, "metal")
    assert found.number == 7 and ("above" if off > 0 else "below") in found.reason and "eV per atom" in found.reason
    assert float(found.reason.split("(")[1].split()[0]) == pytest.approx(abs(off), rel=0.02), "in all"
    right = np.delete(np.arange(20), 7)
    expected = least_squares(sound._replace(weights=np.isin(np.arange(20), right).astype(float)))
    np.testing.assert_array_equal(least_squares(without(summary, [found])), expected)
    assert np.abs(least_squares(summary) - expected).max() > 1, "it was worth it"


def test_what_can_be_right_is_no_suspect():
    for frames in (alloys() + all_sorts(), all_sorts(), alloys(4)):
        assert suspects(summary_of(frames), "metal") == []
    strange = alloys()
    strange[3].calc.results["energy"] += 214
    assert suspects(summary_of(strange), "any") == [], "nothing is known of other units"
    strange[3].info["weight"] = 0.0
    assert suspects(summary_of(strange), "metal") == [], "it does not count anyway"


def test_a_force_from_nowhere_is_named_and_moves_no_scale():
    sound, frames = summary_of(alloys()), alloys()
    frames[4].calc.results["forces"][2] = [0, 0, 900.0]
    summary = summary_of(frames)
    (found,) = suspects(summary, "metal")
    assert found.number == 4 and "a force of 900 eV/Angstrom" in found.reason
    assert summary.rms_force > 10 * sound.rms_force
    assert without(summary, [found]).rms_force == pytest.approx(sound.rms_force, rel=0.1)


def test_a_run_tells_it_at_the_start(tmp_path, capsys):
    frames = clusters(24)
    clean = train(small(file_of(tmp_path / "clean.xyz", frames), "run.epochs=1"), tmp_path / "clean")
    assert "suspicious" not in capsys.readouterr().err
    frames[11].calc.results["energy"] += 214
    path = file_of(tmp_path / "wrong.xyz", frames)
    found = train(small(path, "run.epochs=1", "data.valid=0.1"), tmp_path / "wrong")["found"]
    told = capsys.readouterr().err
    assert f"mdgnn: {path}, frame 11: suspicious: the energy is " in told and 'data.bad = "skip"' in told
    assert found["references"] == pytest.approx(clean["found"]["references"], rel=0.1)
    skipped = train(small(path, "run.epochs=1", "data.bad=skip"), tmp_path / "skipped")
    assert sum(skipped["structures"].values()) == 23
    assert skipped["skipped"][0].startswith(f"{path}, frame 11: suspicious: ")
    assert "1 bad structure left out" in capsys.readouterr().err


def test_the_validation_and_test_sets_are_looked_at_too(tmp_path):
    frames, others = clusters(12), clusters(12, seed=1)
    others[5].calc.results["energy"] -= 300
    paths = file_of(tmp_path / "train.xyz", frames), file_of(tmp_path / "valid.xyz", others)
    config = small(paths[0], f"data.valid={paths[1]}")
    sets = read_sets(config.data, Keys(), 2.5, 0, units="lj", need=("energy", "forces"))
    assert [(frame.file, frame.number) for frame in sets.suspicious] == [(paths[1], 5)] and len(sets.valid) == 12


def test_sound_data_have_the_references_of_least_squares_to_the_bit(tmp_path):
    path = file_of(tmp_path / "sound.xyz", alloys())
    dataset = Dataset(read_frames([path]), 4.0)
    model = {"architecture": "SchNet", "n_features": 4, "cutoff": 4.0}
    _, found = build(parse({"model": model, "data": {"train": path}}), dataset, Keys())
    counts = np.array([[np.sum(dataset.frame(k).numbers == z) for z in (13, 29)] for k in range(20)], dtype=float)
    energies = np.array([dataset.frame(k).get_potential_energy() for k in range(20)])
    assert found["references"] == np.linalg.lstsq(counts, energies, rcond=None)[0].tolist()
