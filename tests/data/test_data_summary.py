"""Summaries of frames, and shares of them: against numpy, frame by frame."""

import math

import numpy as np
from ase import Atoms
from labelled import labelled, molecules

from mdgnn.data import split_structures, summarize


def frames():
    rng = np.random.default_rng(0)
    for k in range(12):
        atoms = Atoms("H2O" if k % 3 else "Ar4", rng.uniform(0, 3, (3 if k % 3 else 4, 3)))
        atoms = labelled(atoms, -3.0 * k, seed=k)
        atoms.info["config_type"] = ("b", "a", "")[k % 3]
        yield atoms


def of(atoms):
    return atoms.calc.results


def test_summaries_are_those_of_their_frames():
    given = list(frames())
    summaries = summarize(iter(given))
    assert [s.config_type for s in summaries] == ["", "a", "b", None]
    for summary in summaries:
        group = [a for a in given if summary.config_type in (None, a.info["config_type"])]
        assert summary.n_frames == len(group)
        assert summary.n_atoms == (min(map(len, group)), max(map(len, group)))
        assert set(summary.elements) == {symbol for a in group for symbol in a.get_chemical_symbols()}
        np.testing.assert_allclose(sorted(summary.energies), sorted(of(a)["energy"] / len(a) for a in group))
        forces = np.concatenate([of(a)["forces"] for a in group])
        np.testing.assert_allclose(summary.force_rms, np.sqrt(np.mean(forces**2)))
        np.testing.assert_allclose(summary.largest_force, np.linalg.norm(forces, axis=1).max())
        distances = [a.get_all_distances()[np.triu_indices(len(a), 1)].min() for a in group]
        np.testing.assert_allclose(summary.shortest_distance, min(distances))


def test_what_frames_do_not_have_is_not_a_number():
    atom, cell = Atoms("He"), Atoms("He", cell=[3, 4, 5], pbc=True)
    (alone,), (crystal,) = summarize([atom]), summarize([cell])
    assert len(alone.energies) == 0 and math.isnan(alone.force_rms) and math.isnan(alone.largest_force)
    assert alone.shortest_distance == math.inf and crystal.shortest_distance == 3
    assert summarize([]) == []


def test_frames_of_one_structure_go_together():
    given = molecules(10) * 3
    parts = split_structures(given, (0.5, 0.3, 0.2), seed=1)
    assert [len(part) for part in parts] == [15, 9, 6]
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(30))
    structures = [{given[k].positions.tobytes() for k in part} for part in parts]
    assert sum(map(len, structures)) == len(set.union(*structures)) == 10
    again = split_structures(iter(given), (0.5, 0.3, 0.2), seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not np.array_equal(split_structures(given, (0.5,), seed=2)[0], parts[0])
