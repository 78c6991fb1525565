"""Cutoffs by pairs of elements and by radii."""

import numpy as np
import pytest
from ase import Atoms

import mdgnn


@pytest.mark.parametrize(
    ("cutoff", "message"),
    [
        ({("H", "H"): np.nan}, "at least 0, got nan for .*'H', 'H'"),
        ({("H", "H"): -1.0}, "at least 0, got -1.0"),
        ({("H", "Xx"): 1.0}, "symbols of elements, got 'Xx'"),
        ({"HH": 1.0}, "pairs of elements such as .*, got one for 'HH'"),
        ([-1.0, 2, 2], "radii of at least 0, got -1.0 for atom 0"),
        ([1.0, np.inf, 2], "finite radii of at least 0, got inf for atom 1"),
    ],
)
def test_bad_cutoffs_get_a_sentence(cutoff, message):
    with pytest.raises(ValueError, match=message):
        mdgnn.neighbor_list("ij", Atoms("HOH", np.eye(3)), cutoff)


def test_one_rule_at_the_cutoff_for_every_form_of_it():
    """A float32 distance of float32(0.7) is not below 0.7, which float64 would say."""
    positions = np.array([[0, 0, 0], [0.7, 0, 0], [9, 9, 9]], dtype=np.float32)
    for cutoff in (0.7, np.float32(0.7), {("H", "H"): 0.7, ("O", "O"): 1.0}, [0.35, 0.35, 0.5]):
        receivers = mdgnn.primitive_neighbor_list("i", False, np.eye(3), positions, cutoff, numbers=[1, 1, 8])
        assert len(receivers) == 0
    with pytest.raises(ValueError, match="real numbers, got complex64"):
        mdgnn.primitive_neighbor_list("i", False, np.eye(3), positions + 1j, 1.0)
    with pytest.raises(ValueError, match=r"pbc as one bool or three, got shape \(2,\)"):
        mdgnn.primitive_neighbor_list("i", [True, False], np.eye(3), positions, 1.0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("self_interaction", [False, True])
def test_the_list_is_the_longest_ones_without_what_is_beyond_the_pairs_cutoff(dtype, self_interaction):
    """Random elements and radii in a skewed box, partly outside of it, with self images."""
    rng = np.random.default_rng(3)
    cell = np.array([[4.0, 0.3, 0], [1.0, 3.5, 0.2], [-0.5, 0.4, 5.0]], dtype=dtype)
    positions = (rng.random((60, 3)) * 8 - 2).astype(dtype)
    numbers, radii = rng.choice([1, 6, 8], 60), rng.random(60) * 2.4
    table = {(1, 1): 1.5, (1, 6): 4.7, (8, 6): 0.0, ("O", "O"): 2.5, (6, 6): 0.01}
    of = {(a, b): 0.0 for a in (1, 6, 8) for b in (1, 6, 8)} | {(1, 1): 1.5, (1, 6): 4.7, (6, 1): 4.7, (8, 8): 2.5}
    of[6, 6] = 0.01
    for cutoff, longest, cutoff_of in (
        (table, 4.7, lambda i, j: np.array([of[p] for p in zip(numbers[i], numbers[j], strict=True)])),
        (radii, 2 * radii.max(), lambda i, j: radii[i] + radii[j]),
    ):
        arguments = ("ijSDd", [True, False, True], cell, positions)
        edges = mdgnn.primitive_neighbor_list(*arguments, cutoff, numbers, self_interaction)
        everything = mdgnn.primitive_neighbor_list(*arguments, longest, numbers, self_interaction)
        near = everything[4] < cutoff_of(*everything[:2]).astype(dtype)
        assert 100 < near.sum() < len(near) / 2
        for ours, expected in zip(edges, everything, strict=True):
            np.testing.assert_array_equal(ours, expected[near])
