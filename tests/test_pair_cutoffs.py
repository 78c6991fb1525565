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
        found = mdgnn.primitive_neighbor_list("i", False, np.eye(3), positions, cutoff, numbers=[1, 1, 8])
        assert len(found) == 0
    with pytest.raises(ValueError, match="real numbers, got complex64"):
        mdgnn.primitive_neighbor_list("i", False, np.eye(3), positions + 1j, 1.0)
    with pytest.raises(ValueError, match=r"pbc as one bool or three, got shape \(2,\)"):
        mdgnn.primitive_neighbor_list("i", [True, False], np.eye(3), positions, 1.0)
