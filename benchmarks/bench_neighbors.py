"""Neighbour list: i, j, S and D of every pair within 3.5"""

import numpy as np
import pytest
from clusters import CUTOFF, SIZES, argon

from mdgnn import get_num_threads, neighbor_list

ase_neighborlist = pytest.importorskip("ase.neighborlist")
vesin = pytest.importorskip("vesin")


@pytest.mark.parametrize("code", ["ours", "ASE", "vesin"])
@pytest.mark.parametrize("n_atoms", SIZES)
def test_neighbor_list(timed, n_atoms, code):
    atoms = argon(n_atoms)
    peer = vesin.NeighborList(cutoff=CUTOFF, full_list=True, n_threads=get_num_threads())
    functions = {
        "ours": lambda: neighbor_list("ijSD", atoms, CUTOFF),
        "ASE": lambda: ase_neighborlist.neighbor_list("ijSD", atoms, CUTOFF),
        "vesin": lambda: peer.compute(atoms.positions, np.zeros((3, 3)), False, "ijSD"),
    }
    n_edges = len(functions["ours"]()[0])
    assert len(functions[code]()[0]) == n_edges
    timed(functions[code], "ijSD", n_atoms, n_edges, code)
