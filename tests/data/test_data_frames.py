"""Frames from files: labels under any key and in any format, and every kind of bad frame by its name."""

import pickle
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from labelled import labelled, molecules
from systems import crystal

from mdgnn.data import DataError, FrameList, Keys, read_frames
from mdgnn.data.labels import LabelError
from mdgnn.data.targets import targets_of

ACAC = Path(__file__).parents[3] / "shared" / "data" / "acac"


def same_structure(a, b):
    return (
        np.array_equal(a.numbers, b.numbers)
        and np.array_equal(a.positions, b.positions)
        and np.array_equal(a.cell, b.cell)
    )


def renamed(atoms, keys, stress_as=None):
    """The labels under other names, in info and arrays."""
    out = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    out.info[keys.energy] = atoms.calc.results["energy"]
    out.arrays[keys.forces] = atoms.calc.results["forces"]
    if stress_as:
        out.info[keys.stress] = stress_as(atoms.calc.results["stress"])
    return out


@pytest.mark.parametrize("name", ["x.xyz", "x.extxyz", "x.traj", "x.db", "x.json"])
def test_labels_survive_formats(tmp_path, name):
    frames = [labelled(crystal(seed=k), -3.0 - k, seed=k, stress=True) for k in range(3)]
    for frame in frames:
        frame.positions = frame.positions.round(8)
        frame.calc.atoms.positions = frame.positions
    path = tmp_path / name
    if path.suffix == ".db":
        with ase.db.connect(path) as db:
            for frame in frames:
                db.write(frame)
    else:
        ase.io.write(path, frames)
    frames_read = read_frames([path], need=("energy", "forces", "stress"))
    assert isinstance(frames_read, FrameList) and len(frames_read) == 3 and frames_read.skipped == []
    for a, b in zip(frames, frames_read, strict=True):
        ours, theirs = targets_of(a), targets_of(b)
        assert same_structure(a, b)
        for label in ("energy", "forces", "stress"):
            assert np.array_equal(getattr(ours, label), getattr(theirs, label)), label
    part = read_frames([f"{path}@1:"])
    assert [targets_of(a).energy.item() for a in part] == [-4.0, -5.0] and part.name(0).endswith("frame 1")
    assert [targets_of(a).energy.item() for a in read_frames([f"{path}@-1"])] == [-5.0]


@pytest.mark.parametrize("name", ["x.xyz", "x.db"])
def test_any_key_in_info_arrays_or_a_database(tmp_path, name):
    keys = Keys("REF_energy", "REF_forces", "REF_stress", extra=("gap", "charge_of"))
    original = labelled(crystal(), stress=True)
    frame = renamed(original, keys, lambda s: s)
    frame.info |= {"gap": 1.25, "weight": 2.5, "config_type": "bulk"}
    frame.arrays["charge_of"] = np.arange(32.0)
    if name == "x.db":
        data = {"REF_forces": frame.arrays["REF_forces"], "charge_of": np.arange(32.0)}
        data["REF_stress"] = frame.info["REF_stress"]
        pairs = {k: frame.info[k] for k in ("REF_energy", "gap", "weight", "config_type")}
        with ase.db.connect(tmp_path / name) as db:
            db.write(Atoms(frame.symbols, frame.positions, cell=frame.cell, pbc=True), pairs, data)
    else:
        ase.io.write(tmp_path / name, frame)
    frames_read = read_frames([tmp_path / name], keys, need=("energy", "forces", "stress", "gap", "charge_of"))
    targets, expected = targets_of(frames_read[0], keys), targets_of(original)
    assert targets.energy == expected.energy and np.array_equal(targets.forces, expected.forces)
    np.testing.assert_allclose(targets.stress, expected.stress, rtol=1e-15)
    assert targets.extra["gap"].tolist() == [1.25] and targets.extra["charge_of"].tolist() == list(range(32))
    assert targets.weight.tolist() == [2.5] and targets.config_type == ["bulk"]


def test_stress_of_every_kind_is_the_derivative_of_the_energy():
    """dE/d(strain) / volume by finite difference, as ASE has it, from 3 x 3, Voigt's six and a virial."""
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.set_cell(atoms.cell.array @ [[1.02, 0.01, 0], [0, 0.99, 0.03], [0, 0, 1.01]], scale_atoms=True)
    derivative, h = np.zeros((3, 3)), 1e-5
    for a in range(3):
        for b in range(3):
            for sign in (1, -1):
                strained = atoms.copy()
                strain = np.eye(3)
                strain[a, b] += sign * h / 2
                strain[b, a] += sign * h / 2
                strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                strained.calc = EMT()
                derivative[a, b] += sign * strained.get_potential_energy() / (2 * h * atoms.get_volume())
    atoms.calc = EMT()
    voigt = atoms.get_stress()
    full = atoms.get_stress(voigt=False)
    np.testing.assert_allclose(full, derivative, atol=1e-7)
    for name, value in {
        "stress": full,
        "my_stress": voigt,
        "nine": full.ravel(),
        "virial": -full * atoms.get_volume(),
        "REF_virials": -voigt * atoms.get_volume(),
    }.items():
        frame = atoms.copy()
        frame.calc = None
        frame.info[name] = value
        np.testing.assert_allclose(targets_of(frame, Keys(stress=name)).stress[0], derivative, atol=1e-7, err_msg=name)
    frame = atoms.copy()
    frame.info["virial"] = -full * atoms.get_volume()
    np.testing.assert_allclose(targets_of(frame).stress[0], derivative, atol=1e-7)  # the default name has substitutes
    with pytest.raises(LabelError, match="volume"):
        targets_of(Atoms("H", info={"virial": np.eye(3)}))


def bad_frame(kind):
    """A frame with one thing wrong, and what must be said of it."""
    frame = molecules(1, seed=5)[0]
    results, info = frame.calc.results, frame.info
    if kind == "nan energy":
        results["energy"] = np.nan
        return frame, "energy is not finite"
    if kind == "infinite force":
        results["forces"][2, 1] = -np.inf
        return frame, "forces of atom 2 are not finite"
    if kind == "nan position":
        frame.positions[1, 0] = np.nan
        return frame, "position of atom 1 is not finite"
    if kind == "no energy":
        del results["energy"]
        return frame, "no energy (there are: forces"
    if kind == "no forces":
        del results["forces"]
        return frame, "no forces"
    if kind == "forces of another shape":
        results["forces"] = results["forces"][:, :2]
        return frame, f"forces of shape ({len(frame)}, 3), got ({len(frame)}, 2)"
    if kind == "two energies":
        results["energy"] = np.array([1.0, 2.0])
        return frame, "one number as energy, got shape (2,)"
    if kind == "ambiguous":
        info["energy"] = 17.0
        return frame, "energy stands there twice"
    if kind == "no number":
        info["energy"] = results.pop("energy") and "much"
        return frame, "expected numbers as energy, got 'much'"
    if kind == "at one place":
        frame.positions[2] = frame.positions[0] + 1e-6
        return frame, "atoms 0 and 2 are at one place"
    if kind == "at one place across the boundary":
        frame.set_cell([20, 20, 20])
        frame.pbc = True
        frame.positions[2] = frame.positions[0] + [0, 20, 0]
        return frame, "atoms 0 and 2 are at one place"
    if kind == "no cell":
        frame.pbc = (True, False, False)
        return frame, "cell vectors on the periodic axes, got a singular cell"
    if kind == "weight":
        info["weight"] = -1.0
        return frame, "weight of at least 0"
    assert kind == "a force too large"
    results["forces"][1] = [0, 0, 2000.0]
    return frame, "suspicious: a force of 2000 eV/Angstrom on atom 1"


KINDS = (
    *("nan energy", "infinite force", "nan position", "no energy", "no forces", "forces of another shape"),
    *("two energies", "ambiguous", "no number", "at one place", "at one place across the boundary", "no cell"),
    *("weight", "a force too large"),
)


@pytest.mark.parametrize("kind", KINDS)
def test_bad_frames_are_named(tmp_path, kind):
    frame, words = bad_frame(kind)
    frames = molecules(4)
    frames.insert(2, frame)
    path = tmp_path / "x.traj"  # which keeps whatever there is
    frame.calc.atoms = frame.copy()
    ase.io.write(path, frames)
    with pytest.raises(DataError) as raised:
        read_frames([path])
    assert str(raised.value).startswith("1 bad frame; ") and f"{path}, frame 2: " in str(raised.value)
    assert words in str(raised.value)
    frames_read = read_frames([path], bad="skip")
    assert len(frames_read) == 4 and [(s.file, s.number) for s in frames_read.skipped] == [(str(path), 2)]
    assert words in frames_read.skipped[0].reason
    assert [a.calc.results["energy"] for a in frames_read] == [-1, -2, -3, -4]


def test_what_is_not_needed_may_be_missing(tmp_path):
    frames = molecules(3)
    del frames[1].calc.results["forces"]
    ase.io.write(tmp_path / "x.xyz", frames)
    frames_read = read_frames([tmp_path / "x.xyz"], need=("energy",))
    assert [targets_of(a).forces is None for a in frames_read] == [False, True, False]
    with pytest.raises(ValueError, match="'gap'"):
        read_frames([tmp_path / "x.xyz"], need=("gap",))


def test_a_lone_atom_needs_no_forces(tmp_path):
    """Without them it was refused where its energy was wanted as a reference."""
    lone = Atoms("H")
    lone.calc = SinglePointCalculator(lone, energy=-13.6)
    ase.io.write(tmp_path / "x.xyz", [lone, *molecules(2)])
    assert len(read_frames([tmp_path / "x.xyz"])) == 3


def test_duplicates_across_files_and_the_count(tmp_path):
    ase.io.write(tmp_path / "a.xyz", molecules(15))
    ase.io.write(tmp_path / "b.xyz", molecules(14) + molecules(2, seed=9))
    with pytest.raises(DataError) as raised:
        read_frames([tmp_path / "a.xyz", tmp_path / "b.xyz"])
    text = str(raised.value)
    assert "14 bad frames" in text and "and 4 more" in text and text.count("frame") >= 20
    assert f"{tmp_path}/b.xyz, frame 3: a duplicate of {tmp_path}/a.xyz, frame 3" in text
    frames_read = read_frames([tmp_path / "a.xyz", tmp_path / "b.xyz"], bad="skip")
    assert len(frames_read) == 17 and len(frames_read.skipped) == 14
    other = molecules(1)
    other[0].calc.results["energy"] += 1e-9
    ase.io.write(tmp_path / "c.xyz", molecules(1) + other)
    assert len(read_frames([tmp_path / "c.xyz"])) == 2, "another energy is another label"
    slab = labelled(Atoms("H2", [[0, 0, 1], [0, 0, 2]], cell=[5, 5, 5], pbc=(1, 1, 0)))
    whole = slab.copy()
    whole.pbc, whole.calc = True, SinglePointCalculator(whole, **slab.calc.results)
    ase.io.write(tmp_path / "d.xyz", [slab, whole])
    assert len(read_frames([tmp_path / "d.xyz"])) == 2, "other boundaries are another structure"


def test_equal_reasons_are_told_once(tmp_path):
    frames = molecules(15)
    for frame in frames[1:]:
        del frame.calc.results["forces"]
    ase.io.write(tmp_path / "x.xyz", frames)
    with pytest.raises(DataError, match=r"14 bad frames; .*x.xyz, frame 1: no forces .* \(and 13 more of this file\)$"):
        read_frames([tmp_path / "x.xyz"])


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no data file .*missing\.xyz"):
        read_frames([tmp_path / "missing.xyz"])
    ase.io.write(tmp_path / "x.xyz", molecules(3))
    with pytest.raises(DataError, match="slice such as"):
        read_frames([f"{tmp_path / 'x.xyz'}@some"])
    with pytest.raises(DataError, match="at least one frame"):
        read_frames([f"{tmp_path / 'x.xyz'}@7:"])
    text = (tmp_path / "x.xyz").read_text()
    (tmp_path / "cut.xyz").write_text(text[: len(text) - 100])
    with pytest.raises(DataError, match="cannot read frame 2 of"):
        read_frames([tmp_path / "cut.xyz"])
    with pytest.raises(ValueError, match="'lj'"):
        read_frames([tmp_path / "x.xyz"], units="real")


def test_frame_lists_are_sequences_that_pickle(tmp_path):
    ase.io.write(tmp_path / "x@1.xyz", molecules(6))  # a name with an @
    with ase.db.connect(tmp_path / "x.db") as db:
        for frame in molecules(6, seed=3):
            db.write(frame)
    frames = read_frames([tmp_path / "x@1.xyz", tmp_path / "x.db"])
    again = pickle.loads(pickle.dumps(frames))
    assert len(frames) == len(again) == 12 and all(map(same_structure, frames, again))
    part = frames[[1, 8, -1]]
    assert all(map(same_structure, part, [frames[1], frames[8], frames[11]])) and part.name(1).endswith("x.db, frame 2")
    assert len(frames[2:5]) == 3
    with pytest.raises(IndexError):
        frames[12]


@pytest.mark.skipif(not ACAC.is_dir(), reason="there is no ../shared/data/acac")
def test_acetylacetone():
    frames = read_frames([ACAC / "train_300K.xyz", ACAC / "test_MD_300K.xyz"])
    assert len(frames) == 1150
    targets = targets_of(frames[0])
    assert targets.energy.item() == -9391.45554428476 and targets.forces[0, 0].item() == 1.47339228
    assert targets.config_type == ["300K_MD"] and targets.stress is None
    atoms = read_frames([ACAC / "isolated_atoms.xyz"], need=("energy",))
    assert [a.get_chemical_formula() for a in atoms] == ["H", "C", "O"]


def test_changed_single_points_are_found():
    atoms = labelled(Atoms("H2", [[0, 0, 0], [0.7, 0, 0]]))
    assert isinstance(atoms.calc, SinglePointCalculator)
    atoms.positions += [[0, 0, 0], [0.1, 0, 0]]
    from mdgnn.data import Dataset

    with pytest.raises(DataError, match="frame 0: the atoms were changed"):
        Dataset([atoms], 3.0)
