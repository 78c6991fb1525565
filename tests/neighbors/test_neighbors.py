"""The neighbour list against an independent brute force and ASE's list, and its own laws."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.geometry import complete_cell
from ase.neighborlist import neighbor_list as ase_neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import crystal, icosahedron, neighbor_cases, slab, triclinic, water

import mdgnn
from mdgnn.neighbors import NeighborList

CASES = [pytest.param(atoms, cutoff, id=name) for name, atoms, cutoff in neighbor_cases()]


def brute_force(atoms, cutoff, tolerance):
    """{(i, j, S): distance} of all edges shorter than cutoff + tolerance, by trying every image of wrapped atoms."""
    cell = np.where(np.array(atoms.pbc)[:, None], atoms.cell.array, 0)
    basis = complete_cell(cell)
    fractional = np.linalg.solve(basis.T, atoms.positions.T).T
    wrap = np.floor(fractional).astype(int) * atoms.pbc
    r = atoms.positions - wrap @ cell
    heights = 1 / np.linalg.norm(np.linalg.inv(basis), axis=0)
    reach = [int(np.ceil(cutoff / h)) + 1 if p else 0 for h, p in zip(heights, atoms.pbc, strict=True)]
    edges = {}
    for n in itertools.product(*(range(-m, m + 1) for m in reach)):
        d = np.linalg.norm(r[None] - r[:, None] + np.array(n) @ cell, axis=2)
        for i, j in np.argwhere(d < cutoff + tolerance):
            if i != j or any(n):
                edges[(i, j, *(np.array(n) + wrap[i] - wrap[j]))] = d[i, j]
    return edges


def assert_same_edges(atoms, cutoff, i, j, S):
    scale = np.abs(atoms.positions).max(initial=1.0) + cutoff
    tolerance = 1e-14 * scale * 16
    listed = set(zip(i.tolist(), j.tolist(), *S.T.tolist(), strict=True))
    expected = brute_force(atoms, cutoff, tolerance)
    assert len(listed) == len(i), "an edge is listed twice"
    assert listed <= set(expected), "edges that are too long"
    missing = [e for e, d in expected.items() if e not in listed and d < cutoff - tolerance]
    assert not missing, f"missing edges {missing[:3]}"


@pytest.mark.parametrize("away", [0, 3])
def test_more_candidates_than_16_bits_can_number(away):
    """Two atoms of one small cell, one of them `away` cells further: every lattice vector gives a pair."""
    n, cutoff, step = np.arange(-24, 25), 21.3, np.array([0.3, 0.1, 0.2])
    lattice = np.stack(np.meshgrid(n, n, n, indexing="ij"), -1).reshape(-1, 3)
    positions = np.stack([np.zeros(3), step + np.array([away, 0, -away])])
    i, j, S, d = mdgnn.primitive_neighbor_list("ijSd", True, np.eye(3), positions, cutoff)
    for a in range(2):
        for b in range(2):
            vectors = lattice + step * (b - a)
            r = np.linalg.norm(vectors, axis=1)
            near = (r < cutoff) & (r > 0)
            here = (i == a) & (j == b)
            np.testing.assert_array_equal(S[here], lattice[near] - np.array([away, 0, -away]) * (b - a))
            np.testing.assert_allclose(d[here], r[near], rtol=1e-12)
    assert (i == 0).sum() > 2**16


@pytest.mark.parametrize(("atoms", "cutoff"), CASES)
def test_equals_brute_force(atoms, cutoff):
    i, j, S, D, d = mdgnn.neighbor_list("ijSDd", atoms, cutoff)
    assert_same_edges(atoms, cutoff, i, j, S)
    assert np.all(d < cutoff)
    scale = np.abs(atoms.positions).max(initial=1.0)
    cell = np.where(np.array(atoms.pbc)[:, None], atoms.cell.array, 0)
    size = scale + np.abs(S @ cell).max(initial=0)
    np.testing.assert_allclose(D, atoms.positions[j] - atoms.positions[i] + S @ cell, rtol=0, atol=1e-15 * size)
    np.testing.assert_allclose(d, np.linalg.norm(D, axis=1), rtol=1e-14)


@pytest.mark.parametrize(("atoms", "cutoff"), CASES)
def test_equals_ase(atoms, cutoff):
    ours = mdgnn.neighbor_list("ijSd", atoms, cutoff)
    theirs = ase_neighbor_list("ijSd", atoms, cutoff)
    order = np.lexsort((*theirs[2].T[::-1], theirs[1], theirs[0]))
    for a, b in zip(ours[:3], theirs[:3], strict=True):
        np.testing.assert_array_equal(a, b[order])
    np.testing.assert_allclose(ours[3], theirs[3][order], rtol=1e-12, atol=1e-14 * np.abs(atoms.positions).max())


@pytest.mark.parametrize(("atoms", "cutoff"), CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_order_is_canonical_and_list_is_symmetric(atoms, cutoff, dtype):
    edges = NeighborList(cutoff).update(atoms.positions.astype(dtype), atoms.cell.array.astype(dtype), atoms.pbc)
    assert edges.vectors.dtype == dtype
    rows = list(zip(edges.receivers, edges.senders, *edges.shifts.T, strict=True))
    assert rows == sorted(rows)
    np.testing.assert_array_equal(np.diff(edges.row_ptr), np.bincount(edges.receivers, minlength=len(atoms)))
    vector_of = dict(zip(rows, edges.vectors, strict=True))
    for (i, j, *S), D in vector_of.items():
        np.testing.assert_array_equal(vector_of[(j, i, *(-s for s in S))], -D)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_systems_equal_brute_force(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pbc = rng.random(3) < 0.5
    cell = rng.normal(0, 1, (3, 3)) * rng.uniform(0.3, 4, 3)[:, None]
    if abs(np.linalg.det(cell)) < 0.05 * np.prod(np.linalg.norm(cell, axis=1)):
        cell = cell + 3 * np.eye(3)
    n = int(rng.integers(0, 14))
    atoms = Atoms(f"Ar{n}", rng.random((n, 3)) @ cell + rng.normal(0, 3, (n, 3)), cell=cell, pbc=pbc)
    cutoff = float(rng.uniform(0.05, 1.5) * np.cbrt(abs(np.linalg.det(cell))))
    assert_same_edges(atoms, cutoff, *mdgnn.neighbor_list("ijS", atoms, cutoff))


@pytest.mark.parametrize("cells", [1, 1000])
def test_unwrapping_changes_shifts_only(cells):
    atoms = triclinic(True)
    moved = atoms.copy()
    shifts = np.random.default_rng(0).integers(-cells, cells + 1, (len(atoms), 3))
    moved.positions += shifts @ atoms.cell.array
    i, j, S, d = mdgnn.neighbor_list("ijSd", moved, 1.5)
    rows = sorted(zip(i, j, *(S + shifts[j] - shifts[i]).T, strict=True))
    assert rows == list(
        zip(*mdgnn.neighbor_list("ij", atoms, 1.5), *mdgnn.neighbor_list("S", atoms, 1.5).T, strict=True)
    )
    np.testing.assert_allclose(np.sort(d), np.sort(mdgnn.neighbor_list("d", atoms, 1.5)), rtol=0, atol=1e-11)


def test_a_distance_equal_to_the_cutoff_is_outside():
    atoms = Atoms("Ar2", [[0, 0, 0], [1.5, 0, 0]])
    assert len(mdgnn.neighbor_list("i", atoms, 1.5)) == 0
    assert len(mdgnn.neighbor_list("i", atoms, np.nextafter(1.5, 2))) == 2


def test_self_interaction_means_what_it_means_in_ase():
    atoms = Atoms("Ar2", [[0, 0, 0], [1, 0, 0]], cell=[2, 2, 2], pbc=[True, False, False])
    ours = mdgnn.neighbor_list("ijS", atoms, 2.1, self_interaction=True)
    theirs = ase_neighbor_list("ijS", atoms, 2.1, self_interaction=True)
    order = np.lexsort((*theirs[2].T[::-1], theirs[1], theirs[0]))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b[order])


@pytest.mark.parametrize(
    "cutoff",
    [{("H", "O"): 1.2, ("H", "H"): 1.0}, {(1, 1): 1.7}, {}, [0.6, 0.5, 0.5], np.array([1.0, 0.2, 0.2]), np.zeros(3)],
    ids=str,
)
def test_cutoff_per_pair_and_per_atom_as_in_ase(cutoff):
    atoms = water()
    ours = mdgnn.neighbor_list("ij", atoms, cutoff)
    if isinstance(cutoff, dict) and not cutoff:
        assert len(ours[0]) == 0  # ASE fails on an empty dict
        return
    theirs = ase_neighbor_list("ij", atoms, np.array(cutoff) if isinstance(cutoff, list) else cutoff)
    assert sorted(zip(*ours, strict=True)) == sorted(zip(*theirs, strict=True))


def test_quantities_come_in_the_order_asked_for():
    atoms = crystal()
    i, j, d, D, S = mdgnn.neighbor_list("ijdDS", atoms, 2.0)
    again = mdgnn.neighbor_list("SDdji", atoms, 2.0)
    for a, b in zip((S, D, d, j, i), again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert isinstance(mdgnn.neighbor_list("d", atoms, 2.0), np.ndarray)
    assert i.dtype == j.dtype == S.dtype == np.int64


@pytest.mark.parametrize("n", [0, 1])
def test_empty_and_single(n):
    out = mdgnn.neighbor_list("ijdDS", Atoms(f"Ar{n}", np.zeros((n, 3))), 2.0)
    assert [a.shape for a in out] == [(0,), (0,), (0,), (0, 3), (0, 3)]


def test_infinite_cutoff_lists_all_pairs_of_an_open_system():
    atoms = icosahedron(3)
    i = mdgnn.neighbor_list("i", atoms, np.inf)
    assert len(i) == 55 * 54
    with pytest.raises(ValueError, match="finite cutoff for a periodic system"):
        mdgnn.neighbor_list("i", crystal(), np.inf)


@pytest.mark.parametrize(
    "atoms", [icosahedron(6), crystal() * 4, slab() * (4, 4, 1)], ids=["cluster", "crystal", "slab"]
)
def test_bits_do_not_depend_on_threads(atoms):
    results = []
    try:
        for n_threads in (1, 2, 5):
            mdgnn.set_num_threads(n_threads)
            results.append(mdgnn.neighbor_list("ijSD", atoms, 3.5))
    finally:
        mdgnn.set_num_threads(None)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("quantities", ["ij", "ijSD"])
@pytest.mark.parametrize("unwrapped", [False, True])
def test_memory_is_that_of_the_result_and_a_quarter(quantities, unwrapped):
    code = f"""if True:
        import numpy as np, mdgnn
        place = lambda n, size: np.random.default_rng(0).uniform(0, size, (n, 3))
        positions, cell = place(12_000, 24.5), np.eye(3) * 24.5
        if {unwrapped}:
            positions += np.random.default_rng(1).integers(-9, 9, positions.shape) * 24.5
        mdgnn.primitive_neighbor_list("ijSD", True, cell, positions[:50], 3.5)
        status = lambda: open("/proc/self/status").read()  # ru_maxrss begins with the parent's
        peak = lambda: int(status().split("VmHWM:")[1].split()[0]) * 1024
        before = peak()
        result = mdgnn.primitive_neighbor_list("{quantities}", True, cell, positions, 3.5)
        size = sum(a.nbytes for a in result)
        assert size > 2e7 and peak() - before < 1.25 * size, ((peak() - before) / size, size)
    """
    subprocess.run([sys.executable, "-c", code], check=True)


def test_non_contiguous_and_integer_input():
    positions = np.zeros((4, 6))[:, ::2]
    positions[:, 0] = range(4)
    edges = NeighborList(1.5).update(positions)
    np.testing.assert_array_equal(edges.senders, [1, 0, 2, 1, 3, 2])
    again = NeighborList(1.5).update(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]))
    np.testing.assert_array_equal(again.vectors, edges.vectors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cutoff": -1.0}, "positive cutoff, got -1"),
        ({"cutoff": float("nan")}, "positive cutoff, got nan"),
        ({"quantities": "ijx"}, "quantities out of"),
        ({"positions": [[0, 0, 0], [0, np.nan, 0]]}, "finite positions, got nan for atom 1"),
        ({"cell": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "singular cell"),
        ({"cell": np.zeros((3, 3))}, "singular cell"),
        ({"cutoff": [1.0]}, "one radius for each of the 2 atoms"),
    ],
    ids=lambda v: "" if isinstance(v, str) else "-".join(v),
)
def test_bad_input_gets_a_sentence(change, message):
    atoms = Atoms("Ar2", change.get("positions", np.eye(3)[:2]), cell=change.get("cell", np.eye(3)), pbc=True)
    with pytest.raises(ValueError, match=message):
        mdgnn.neighbor_list(change.get("quantities", "ij"), atoms, change.get("cutoff", 1.0))
