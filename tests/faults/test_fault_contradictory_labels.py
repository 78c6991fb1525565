"""One structure with two different energies was no duplicate, and passed without a word."""

import numpy as np
import pytest
from ase.io import write

pytest.importorskip("lightning")

from labelled import molecules

from mdgnn.data import DataError, read_frames


def file_of(path, frames):
    write(path, frames, format="extxyz")
    return path


def again(atoms, energy=0.0, forces=0.0):
    """The same structure with other labels."""
    copy = atoms.copy()
    copy.calc = type(atoms.calc)(copy, **{k: np.array(v) for k, v in atoms.calc.results.items()})
    copy.calc.results["energy"] = float(atoms.calc.results["energy"]) + energy
    copy.calc.results["forces"][1, 2] += forces
    return copy


def test_both_frames_and_the_difference_are_named(tmp_path):
    frames = molecules(5)
    path = file_of(tmp_path / "a.xyz", [*frames, again(frames[3], energy=0.5)])
    words = r"5: the same structure as .*a.xyz, frame 3, but the energy is -3.5 eV here and -4 eV there, 0.5 apart"
    with pytest.raises(DataError, match=words):
        read_frames([path])
    kept = read_frames([path], bad="skip")
    assert len(kept) == 5 and [b.number for b in kept.skipped] == [5]
    path = file_of(tmp_path / "b.xyz", [*frames, again(frames[2], energy=1e-6, forces=0.7)])
    with pytest.raises(
        DataError, match=r"frame 5: the same .* frame 2, but the forces on atom 1 are 0.7 eV/Angstrom apart"
    ):
        read_frames([path])


def test_noise_is_no_contradiction(tmp_path):
    frames = molecules(4)
    twice = [again(atoms, energy=1e-6 * (k + 1) * len(atoms), forces=1e-3) for k, atoms in enumerate(frames)]
    assert len(read_frames([file_of(tmp_path / "a.xyz", [*frames, *twice])])) == 8
    in_kcal = [again(frames[0], energy=1e-4)]
    assert len(read_frames([file_of(tmp_path / "b.xyz", [*frames, *in_kcal])], units="any")) == 5
    with pytest.raises(
        DataError, match="frame 4: the same structure as .*frame 0, but the energy is 1 here and -1 there, 2 "
    ):
        read_frames([file_of(tmp_path / "c.xyz", [*frames, again(frames[0], energy=2.0)])], units="any")


def test_two_files_and_two_sets_contradict_each_other_too(tmp_path):
    frames = molecules(4)
    first, second = file_of(tmp_path / "a.xyz", frames), file_of(tmp_path / "b.xyz", [again(frames[1], energy=3)])
    with pytest.raises(DataError, match=r"b.xyz, frame 0: the same structure as .*a.xyz, frame 1, but"):
        read_frames([first, second])
    checked = {}
    read_frames([first], checked=checked)
    with pytest.raises(DataError, match=r"b.xyz, frame 0: the same structure as .*a.xyz, frame 1, but"):
        read_frames([second], checked=checked)


def test_a_frame_that_was_left_out_contradicts_nothing(tmp_path):
    """It is no longer there to be compared with."""
    frames = molecules(3)
    far = again(frames[0], energy=1e5)  # an energy that is far above free atoms
    paths = [file_of(tmp_path / "a.xyz", [far, frames[1]]), file_of(tmp_path / "b.xyz", [frames[0]])]
    accepted = read_frames(paths, bad="skip")
    assert len(accepted) == 2 and [b.number for b in accepted.skipped] == [0]
