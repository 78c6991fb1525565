"""NeighborList with a skin: what it returns is a fresh search's, bit for bit; when it searches."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from systems import crystal, triclinic

from mdgnn import NeighborList, ops


def test_skin_list_equals_a_fresh_search_bit_for_bit():
    rng = np.random.default_rng(0)
    atoms = triclinic(True)
    with_skin = NeighborList(1.5, skin=0.3)
    for _ in range(60):
        atoms.positions += rng.normal(0, 0.01, atoms.positions.shape)
        fresh = NeighborList(1.5).update(atoms.positions, atoms.cell.array, atoms.pbc)
        for a, b in zip(with_skin.update(atoms.positions, atoms.cell.array, atoms.pbc), fresh, strict=True):
            np.testing.assert_array_equal(a, b)
    assert 2 <= with_skin.n_rebuilds <= 20


def test_skin_list_follows_changes_of_cell_pbc_and_atoms():
    atoms = crystal()
    with_skin = NeighborList(2.0, skin=0.5)
    for change in ("none", "cell", "pbc", "atoms", "one atom"):
        if change == "cell":
            atoms.set_cell(atoms.cell.array * 0.9, scale_atoms=False)
        if change == "pbc":
            atoms.pbc = (True, False, True)
        if change == "atoms":
            del atoms[3]
        if change == "one atom":
            atoms.positions[5] += 0.26
        fresh = NeighborList(2.0).update(atoms.positions, atoms.cell.array, atoms.pbc)
        for a, b in zip(with_skin.update(atoms.positions, atoms.cell.array, atoms.pbc), fresh, strict=True):
            np.testing.assert_array_equal(a, b)
    assert with_skin.n_rebuilds == 5


def test_the_skin_sees_displacement_and_strain_together_graph_pes():
    """Each alone would leave the list valid; together they bring a pair within the cutoff."""
    cell, skin = np.eye(3) * 10.0, 0.4
    positions = np.array([[0.0, 0, 0], [2.0 + 0.45, 0, 0], [5, 5, 5], [7, 7, 7]])
    with_skin = NeighborList(2.0, skin)
    assert len(with_skin.update(positions, cell, True).senders) == 0
    moved = positions.copy()
    moved[0, 0] += 0.12
    moved[1, 0] -= 0.12
    strained = cell * 0.9
    edges = with_skin.update(moved @ (strained / 10), strained, True)
    fresh = NeighborList(2.0).update(moved @ (strained / 10), strained, True)
    for a, b in zip(edges, fresh, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(edges.senders) == 2 and with_skin.n_rebuilds == 2


@pytest.mark.parametrize(("share", "searches"), [(0.999, 1), (1.001, 2)])
@pytest.mark.parametrize("how", ["displacement", "strain", "strain along another axis"])
def test_a_list_is_searched_again_when_a_pair_can_have_come_within_the_cutoff(how, share, searches):
    """Two atoms just beyond cutoff and skin come nearer by the skin, each by half of it or with the cell."""
    skin, cell = 0.4, np.diag([10.0, 11.0, 12.0])
    positions = np.array([[1.0, 5, 5], [1 + 2.0 + skin + 1e-9, 5, 5]])
    with_skin = NeighborList(2.0, skin)
    assert len(with_skin.update(positions, cell, True).senders) == 0
    if how == "displacement":
        positions[:, 0] += np.array([0.5, -0.5]) * skin * share
    else:
        axis = 0 if how == "strain" else 1
        factor = 1 - skin * share / (2.0 + skin)
        cell[axis] *= factor
        positions[:, axis] *= factor
    edges = with_skin.update(positions, cell, True)
    assert len(edges.senders) == (2 if searches == 2 and how != "strain along another axis" else 0)
    assert with_skin.n_rebuilds == searches


def test_a_rigid_translation_and_a_small_strain_rebuild_nothing():
    atoms = bulk("Ar", "fcc", a=1.55, cubic=True) * 3
    with_skin = NeighborList(2.0, 0.3)
    for step in range(20):
        atoms.positions += 0.5
        cell = atoms.cell.array * (1 + 0.002 * step)
        positions = atoms.positions * (1 + 0.002 * step)
        edges = with_skin.update(positions, cell, True)
        for a, b in zip(edges, NeighborList(2.0).update(positions, cell, True), strict=True):
            np.testing.assert_array_equal(a, b)
    assert with_skin.n_rebuilds == 1


@pytest.mark.parametrize("shift", [0, 5000])
def test_the_skin_is_valid_for_images_with_large_shifts(shift):
    """An unwrapped atom's images move by shift x strain; what counts is the pair."""
    rng = np.random.default_rng(3)
    cell = np.array([[3.0, 0, 0], [0.4, 3.2, 0], [0, 0.3, 2.9]])
    fractional = rng.random((20, 3)) + rng.integers(-shift, shift + 1, (20, 3))
    with_skin = NeighborList(1.6, 0.4)
    for _ in range(40):
        cell = cell @ (np.eye(3) + rng.normal(0, 0.004, (3, 3)))
        positions = (fractional + rng.normal(0, 0.003, (20, 3))) @ cell
        for a, b in zip(
            with_skin.update(positions, cell, True), NeighborList(1.6).update(positions, cell, True), strict=True
        ):
            np.testing.assert_array_equal(a, b)
    assert 1 <= with_skin.n_rebuilds < 40


@pytest.mark.parametrize("skin", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_tensors_give_the_same_list_as_tensors(dtype, skin):
    rng = np.random.default_rng(1)
    atoms = triclinic((True, False, True))
    of_arrays, of_tensors = NeighborList(1.5, skin), NeighborList(1.5, skin)
    for _ in range(20):
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        r, cell = (torch.tensor(x, dtype=dtype) for x in (atoms.positions, atoms.cell.array))
        edges = of_tensors.update(r.requires_grad_(), cell, torch.tensor(atoms.pbc))
        for a, b in zip(edges, of_arrays.update(r.detach().numpy(), cell.numpy(), atoms.pbc), strict=True):
            assert isinstance(a, torch.Tensor) and not a.requires_grad
            np.testing.assert_array_equal(a, b)
    assert of_tensors.n_rebuilds == of_arrays.n_rebuilds


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("pbc", [(True, True, True), (False, True, False)])
def test_edges_within_is_a_search(pbc, dtype):
    """The function that serves tensors on a GPU, here on the CPU."""
    atoms = triclinic(pbc, n=20)
    r, cell, periodic = (
        torch.tensor(atoms.positions, dtype=dtype),
        torch.tensor(atoms.cell.array, dtype=dtype),
        torch.tensor(pbc),
    )
    wide = ops.neighbors(r, cell, periodic, 1.9)
    moved = r + 0.05 * torch.tensor(np.random.default_rng(0).random(r.shape), dtype=dtype)
    length = float(ops.neighbors(moved, cell, periodic, 1.4, want=("distances",)).distances.max())
    for cutoff in (1.5, length, np.nextafter(length, 9, dtype=moved.numpy().dtype)):  # one distance at the cutoff
        edges = ops.edges_within(moved, cell, periodic, float(cutoff), *wide[:3])
        *topology, distances = NeighborList(float(cutoff)).update(moved, cell, periodic)
        for a, b in zip(edges, topology, strict=False):
            assert torch.equal(a, b)
        torch.testing.assert_close(edges[5], distances, rtol=2 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_edges_within_refuses_a_cutoff_that_is_not_positive(cutoff):
    r, box, pbc = torch.zeros(1, 3), torch.eye(3), torch.zeros(3, dtype=torch.bool)
    with pytest.raises(ValueError, match="positive cutoff"):
        ops.edges_within(r, box, pbc, cutoff, *ops.neighbors(r, box, pbc, 1.0)[:3])
    assert len(ops.edges_within(r.double(), box.double(), pbc, 1e-160, *ops.neighbors(r, box, pbc, 1.0)[:3])[1]) == 0


@pytest.mark.parametrize("skin", [0.0, 0.4])
def test_a_brief_list_is_the_same_without_receivers_and_shifts(skin):
    atoms = triclinic(True)
    whole, brief = (
        NeighborList(1.5, skin).update(atoms.positions, atoms.cell.array, atoms.pbc, brief=b) for b in (False, True)
    )
    assert brief.receivers is None and brief.shifts is None
    for name in ("row_ptr", "senders", "vectors", "distances"):
        np.testing.assert_array_equal(getattr(brief, name), getattr(whole, name))


def test_parameters_and_a_cell_that_needs_a_gradient():
    r = torch.nn.Parameter(torch.rand(5, 3))
    edges = NeighborList(0.9, 0.1).update(r, torch.eye(3, requires_grad=True), True)
    again = NeighborList(0.9, 0.1).update(r.detach().numpy(), torch.eye(3, requires_grad=True), True)
    assert torch.equal(edges.senders, again.senders) and len(edges.senders)


def test_the_skin_allows_for_the_rounding_of_images_far_away():
    """In float32 vectors to images 10,000 cells away are multiples of 1/128; a pair seems 2.40625 apart, then 2."""
    rng, cell = np.random.default_rng(0), np.eye(3, dtype=np.float32) * 10
    n_moved_within = 0
    for _ in range(100):
        with_skin = NeighborList(2.0001, 0.406)
        positions = np.array([[rng.uniform(0, 7), 5, 5], [0, 5, 5]], dtype=np.float32)
        positions[1, 0] = 1e5 + np.ceil((positions[0, 0] + 2.4024) * 128) / 128
        assert len(with_skin.update(positions, cell, True).senders) == 0
        positions[:, 0] += np.float32([rng.uniform(0.195, 0.203), -26 / 128])
        fresh = NeighborList(2.0001).update(positions, cell, True)
        n_moved_within += len(fresh.senders) > 0
        for a, b in zip(with_skin.update(positions, cell, True), fresh, strict=True):
            np.testing.assert_array_equal(a, b)
    assert n_moved_within > 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lists_with_a_skin_decide_alike_at_the_last_digit_of_the_cutoff(dtype):
    """Of lengths whose squares differ by a digit or two from the largest that is still below."""
    rng, cutoff, n_edges = np.random.default_rng(0), 1.7, 0
    for _ in range(300):
        x = rng.uniform(0.1, 1.6)
        positions = np.array([[0, 0, 0], [x, np.sqrt(cutoff**2 - x**2), 0]], dtype=dtype)
        with_skin = NeighborList(float(dtype(cutoff)), 0.3).update(positions)
        for a, b in zip(with_skin, NeighborList(float(dtype(cutoff))).update(positions), strict=True):
            np.testing.assert_array_equal(a, b)
        n_edges += len(with_skin.senders) > 0
    assert 20 < n_edges < 300, n_edges
