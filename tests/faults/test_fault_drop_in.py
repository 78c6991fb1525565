"""What replaces a function of ASE takes its arguments, by position and by name, as ASE itself gives them."""

import inspect

import ase.neighborlist
import numpy as np
import pytest
from ase.build import bulk

import mdgnn
from mdgnn.adapters.ase import PrimitiveNeighborList


@pytest.mark.parametrize("name", ["neighbor_list", "primitive_neighbor_list", "first_neighbors"])
def test_functions_have_the_parameters_of_ase(name):
    ours, theirs = (list(inspect.signature(getattr(of, name)).parameters) for of in (mdgnn, ase.neighborlist))
    assert ours == theirs


@pytest.mark.parametrize("method", ["__init__", "update", "build", "get_neighbors"])
def test_the_class_has_the_parameters_of_ase(method):
    of = (PrimitiveNeighborList, ase.neighborlist.NewPrimitiveNeighborList)
    ours, theirs = (list(inspect.signature(getattr(one, method)).parameters) for one in of)
    assert ours == theirs


def test_a_limit_of_bins_makes_no_difference():
    """And arguments by name, as `ase.calculators.vdwcorrection` gives them."""
    atoms = bulk("Cu", cubic=True)
    expected = mdgnn.neighbor_list("ijS", atoms, 4.0)
    few = mdgnn.neighbor_list(quantities="ijS", a=atoms, cutoff=4.0, self_interaction=False, max_nbins=1.0)
    again = mdgnn.primitive_neighbor_list("ijS", atoms.pbc, atoms.cell, atoms.positions, 4.0, max_nbins=1.0)
    for edges in (few, again):
        assert all(np.array_equal(x, y) for x, y in zip(edges, expected, strict=True))
