"""Bugs that other neighbour lists had, by name: ours must not."""

import os
import threading

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from fuzz_neighbors import brute_force, check, check_batch, ours, random_system
from systems import icosahedron, triclinic

import mdgnn
from mdgnn import NeighborList

RNG = np.random.default_rng(0)


def same_as_brute_force(positions, cell, pbc, cutoff):
    pbc = np.broadcast_to(np.asarray(pbc, dtype=bool), 3).copy()
    return check((np.ascontiguousarray(positions), np.ascontiguousarray(cell, dtype=positions.dtype), pbc, cutoff))


def test_short_fuzz_campaign():
    recent = []
    for number in range(400):
        check(system := random_system(np.random.default_rng([1, number])))
        recent = [*recent[-3:], system]
        if number % 20 == 19:
            check_batch(sorted(recent, key=lambda s: -s[3])[-2:])


def test_duplicate_pairs_and_wrong_counts_nvalchemi_2_3():
    """Bins that are visited twice where an axis has one or two of them."""
    for cells in (0.6, 1.1, 2.2, 3.3):
        positions = RNG.random((30, 3)) * cells
        assert same_as_brute_force(positions, np.eye(3) * cells, True, 1.0) > 0


def test_zero_cell_is_not_divided_by_nvalchemi_4():
    assert same_as_brute_force(RNG.random((20, 3)), np.zeros((3, 3)), False, 0.5) > 0
    assert same_as_brute_force(RNG.random((20, 3)), np.diag([1.0, 0, 0]), [True, False, False], 0.5) > 0


@pytest.mark.parametrize("cells", [1, 10_000])
def test_unwrapped_atoms_nvalchemi_18(cells):
    positions = RNG.random((30, 3)) + RNG.integers(-cells, cells + 1, (30, 3))
    assert same_as_brute_force(positions, np.eye(3), True, 0.7) > 0


@pytest.mark.parametrize("axis", range(3))
def test_open_axes_are_not_wrapped_nvalchemi_104_torch_sim_575_576_591(axis):
    """Atoms on both ends of an open axis, and beyond the box, are not neighbours."""
    pbc = np.arange(3) != axis
    positions = RNG.random((20, 3))
    positions[:, axis] = np.where(np.arange(20) % 2, 0.01, 0.99)
    positions[3, axis] = 5.5
    i, _, _, D, _ = brute_force(positions, np.eye(3), pbc, 0.4)
    assert same_as_brute_force(positions, np.eye(3), pbc, 0.4) == len(i)
    assert np.abs(D[:, axis]).max() < 0.4


def test_huge_vacuum_needs_no_more_bins_nvalchemi_120():
    near = icosahedron(3).positions
    positions = np.concatenate([near, near + 1e9, near - [3e12, 0, 0]])
    assert len(mdgnn.primitive_neighbor_list("i", False, np.eye(3), positions, 1.2)) == 3 * len(
        mdgnn.primitive_neighbor_list("i", False, np.eye(3), near, 1.2)
    )


def test_batches_miss_no_pairs_nvalchemi_128():
    systems = []
    for n in (5, 0, 1, 40, 13):
        cell = np.eye(3) * RNG.uniform(1, 3) + RNG.normal(0, 0.1, (3, 3))
        systems.append((RNG.random((n, 3)) @ cell, cell, RNG.random(3) < 0.5, 1.1))
    check_batch(systems)


def test_order_does_not_change_between_runs_nvalchemi_135_aimnet_93():
    atoms = bulk("Ar", "fcc", a=1.55, cubic=True) * 5
    mdgnn.set_num_threads(3)
    try:
        first = mdgnn.neighbor_list("ijSD", atoms, 2.5)
        for _ in range(5):
            for a, b in zip(first, mdgnn.neighbor_list("ijSD", atoms, 2.5), strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        mdgnn.set_num_threads(None)


def test_rows_hold_their_own_atoms_pairs_nvalchemi_170():
    atoms = triclinic(True)
    edges = NeighborList(1.5).update(atoms.positions, atoms.cell.array, atoms.pbc)
    assert len(edges.receivers) > len(atoms)
    for i in range(len(atoms)):
        assert set(edges.receivers[edges.row_ptr[i] : edges.row_ptr[i + 1]]) <= {i}
    np.testing.assert_array_equal(edges.row_ptr, mdgnn.first_neighbors(len(atoms), edges.receivers))


def test_nothing_is_truncated_nvalchemi_159_vesin_137_torch_cluster_250_pyg_9789():
    positions = RNG.random((600, 3)) * 0.1  # all within reach of each other
    assert len(mdgnn.primitive_neighbor_list("i", False, np.zeros((3, 3)), positions, 1.0)) == 600 * 599


def test_left_handed_cells_fairchem_2134():
    cell = np.array([[0, 1.3, 0], [1.1, 0, 0.2], [0, 0.1, 1.2]])
    assert np.linalg.det(cell) < 0
    assert same_as_brute_force(RNG.random((15, 3)) @ cell, cell, True, 1.4) > 0


def test_rows_are_sorted_vesin_34():
    i, j, S = mdgnn.neighbor_list("ijS", triclinic(True), 2.5)
    order = np.lexsort((*S.T[::-1], j, i))
    np.testing.assert_array_equal(order, np.arange(len(i)))


def test_partial_pbc_nvalchemi_153_154():
    for pbc in np.ndindex(2, 2, 2):
        assert same_as_brute_force(RNG.random((25, 3)) * 3 - 1, np.eye(3), np.array(pbc), 0.8) > 0


def test_negative_coordinates_and_planar_systems_nvalchemi_163():
    plane = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0), [0.0]), -1).reshape(-1, 3) - 6
    assert same_as_brute_force(plane, np.zeros((3, 3)), False, 1.1) == 2 * 2 * 12 * 11


def test_no_fake_box_around_open_systems_mace_1726_1727():
    """Only what is periodic may have images, whatever the cell says."""
    positions = RNG.random((10, 3))
    shifts = mdgnn.primitive_neighbor_list("S", [False, False, True], np.eye(3) * 0.9, positions, 1.5)
    assert not shifts[:, :2].any() and shifts[:, 2].any()


@pytest.mark.parametrize("distance", [0, 1e6, 1e9])
def test_the_distance_from_the_origin_changes_nothing_mace_713(distance):
    positions = icosahedron(4).positions + distance
    assert len(mdgnn.primitive_neighbor_list("i", False, np.zeros((3, 3)), positions, 1.3)) == 2 * 696


def test_no_missing_triclinic_pairs_openmm_5382_sisl_1016():
    cell = np.array([[3.0, 0, 0], [2.9, 0.6, 0], [-2.8, 0.3, 0.7]])
    assert same_as_brute_force(RNG.random((12, 3)) @ cell, cell, True, 1.0) > 0


def test_non_contiguous_input_nequip_0_19():
    wide = RNG.random((30, 6))
    transposed = np.asfortranarray(wide[:, :3])
    expected = mdgnn.primitive_neighbor_list("ijSD", True, np.eye(3), wide[:, :3].copy(), 0.6)
    for positions in (wide[:, :3], transposed, wide[::-1][::-1, :3]):
        edges = mdgnn.primitive_neighbor_list("ijSD", True, np.asfortranarray(np.eye(3)), positions, 0.6)
        for a, b in zip(edges, expected, strict=True):
            np.testing.assert_array_equal(a, b)


def test_more_edges_than_memory_say_so_before_they_are_stored():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    n = int(np.sqrt(1.5 * memory / 64))  # all pairs take 64 bytes each
    with pytest.raises(MemoryError, match=rf"a list of {n * (n - 1)} edges takes \d+ GB, more than this machine's"):
        mdgnn.primitive_neighbor_list("ijSD", False, np.zeros((3, 3)), np.zeros((n, 3)), np.inf)


def test_int32_indices_are_int32():
    systems = [(RNG.random((20, 3)), np.eye(3), np.array([True] * 3), 0.5)]
    wide, narrow = ours(systems), ours(systems, index_bytes=4)
    for a, b in zip(wide[:3], narrow[:3], strict=True):
        np.testing.assert_array_equal(a, b)
    assert [a.dtype for a in narrow[:3]] == [np.int64, np.int32, np.int32], "row pointers count edges: never narrow"


def test_more_edges_than_the_index_type_holds_nnpops():
    """Counted in 64 bits, refused before anything is stored."""
    positions = RNG.random((46_342, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=r"less than 2\^31 edges for int32 indices, got 2147534622"):
        ours([(positions, np.eye(3, dtype=np.float32), np.zeros(3, dtype=bool), np.inf)], quantities="j", index_bytes=4)


def test_self_images_are_listed_fennol_11():
    one = np.zeros((1, 3))
    assert len(mdgnn.primitive_neighbor_list("i", True, np.eye(3), one, 1.01)) == 6


def test_isolated_and_empty():
    assert same_as_brute_force(np.zeros((0, 3)), np.eye(3), True, 1.0) == 0
    assert same_as_brute_force(np.zeros((1, 3)), np.eye(3), False, 1.0) == 0
    assert len(mdgnn.first_neighbors(3, [])) == 4


def test_scaled_positions_and_torch_agree():
    atoms = Atoms("Ar8", RNG.random((8, 3)), cell=[2, 2.1, 2.2], pbc=True)
    scaled = mdgnn.primitive_neighbor_list(
        "ijS", True, atoms.cell.array, atoms.get_scaled_positions(wrap=False), 1.0, use_scaled_positions=True
    )
    row_ptr, senders, shifts, *_ = mdgnn.ops.neighbors(
        torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), torch.tensor([True] * 3), 1.0
    )
    np.testing.assert_array_equal(scaled[1], senders)
    np.testing.assert_array_equal(scaled[2], shifts)
    np.testing.assert_array_equal(row_ptr, mdgnn.first_neighbors(8, scaled[0]))


def test_a_quantity_asked_for_twice_comes_twice():
    first, distances, again = mdgnn.neighbor_list("idi", triclinic(True), 1.5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(distances, mdgnn.neighbor_list("d", triclinic(True), 1.5))


def test_rounding_in_skewed_float32_cells_loses_no_edge():
    cell = np.array(
        [
            [-0.21243290603160858, -1.00961172580719, -0.38396885991096497],
            [-0.20689190924167633, -0.9799008965492249, -0.37193694710731506],
            [0, 0, 0],
        ]
    )
    positions = np.array(
        [
            [0.5060649514198303, 0.7850853204727173, 0.2950064539909363],
            [0.768771767616272, 0.5256295204162598, 0.14904803037643433],
        ],
        dtype=np.float32,
    )
    cutoff = 1.9892127513885498
    i, j, S = mdgnn.primitive_neighbor_list("ijS", [True, True, False], cell, positions, cutoff)
    assert (0, 1, -1467, 1510, 0) in set(zip(i, j, *S.T, strict=True))


def test_a_far_atom_does_not_blur_the_others():
    positions = np.array([[0.0, 0, 0], [5, 0, 0], [1e30, 0, 0]])
    assert len(mdgnn.primitive_neighbor_list("i", False, np.zeros((3, 3)), positions, 1.0)) == 0
    assert len(mdgnn.primitive_neighbor_list("i", False, np.zeros((3, 3)), positions, 6.0)) == 2
    tiny = np.array([[0.0, 0, 0], [1e-22, 0, 0], [3e-22, 0, 0]], dtype=np.float32)
    assert len(mdgnn.primitive_neighbor_list("i", False, np.zeros((3, 3)), tiny, 1.5e-22)) == 2


def test_edges_at_the_last_digit_of_the_cutoff():
    positions = np.array([[1 - 1e-13, 0, 0], [2e-13, 0, 0]])
    cell, pbc = np.eye(3), [True, False, False]
    assert same_as_brute_force(positions, cell, pbc, 3 + 4e-13) == 26


def test_a_search_that_would_not_end_says_so():
    cell = np.array([[1.0, 0, 0], [1.0, 1e-5, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match="a cell less skewed"):
        mdgnn.primitive_neighbor_list("i", True, cell, np.zeros((1, 3)), 1.0)
    with pytest.raises(ValueError, match="finite radii of at least 0, got nan for atom 1"):
        mdgnn.primitive_neighbor_list("i", False, np.eye(3), np.zeros((2, 3)), [1.0, np.nan])


def test_positions_that_change_during_a_search_corrupt_nothing():
    """Another thread writes them: the search may fail with a sentence, but every array it returns is whole."""
    grid = np.stack(np.meshgrid(*[np.arange(10.0)] * 3), -1).reshape(-1, 3)
    positions, stop = grid.copy(), threading.Event()

    def shake():
        while not stop.is_set():
            positions[:] = grid * (1 + 1e-14)
            positions[:] = grid * (1 - 1e-14)

    thread = threading.Thread(target=shake, daemon=True)
    thread.start()
    whole = 0
    try:
        for _ in range(60):
            try:
                i = mdgnn.primitive_neighbor_list("i", True, np.eye(3) * 10, positions, 1.0)
            except RuntimeError as error:
                assert "changed while their neighbours were searched" in str(error)
            else:
                assert (np.diff(i) >= 0).all() and len(i) <= 6000
                whole += 1
    finally:
        stop.set()
        thread.join()
    assert whole > 0


@pytest.mark.parametrize("n", [30, 3000])
def test_every_number_is_written_openequivariance_205(n):
    """Results take the memory of earlier ones: what is not written would show what was there."""
    positions = RNG.random((n, 3)) * np.cbrt(n)
    lists = []
    for _ in range(3):
        edges = mdgnn.primitive_neighbor_list("ijSDd", True, np.eye(3) * np.cbrt(n), positions, 1.5)
        lists.append([a.copy() for a in edges])
        for array in edges:
            array.fill(-77)
        del edges, array
    for other in lists[1:]:
        for a, b in zip(lists[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
    assert not any((a == -77).any() for a in lists[0])


def test_results_that_are_kept_are_not_overwritten():
    kept = []
    for seed in range(6):
        positions = np.random.default_rng(seed).random((800, 3)) * 9
        edges = mdgnn.primitive_neighbor_list("ijD", False, np.eye(3), positions, 1.5)
        kept.append((positions, edges, [a.copy() for a in edges]))
    for positions, edges, copies in kept:
        for a, b in zip(edges, copies, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(edges[2], positions[edges[1]] - positions[edges[0]])
