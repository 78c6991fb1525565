"""Our list behind ASE's `NeighborList`, against ASE's own."""

import itertools
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators import emt, lj
from ase.geometry.analysis import Analysis
from ase.neighborlist import NeighborList, NewPrimitiveNeighborList, natural_cutoffs
from ase.neighborlist import PrimitiveNeighborList as OldPrimitiveNeighborList
from systems import crystal, neighbor_cases, slab, triclinic, water

from mdgnn.adapters.ase import PrimitiveNeighborList

CASES = [pytest.param(atoms, cutoff, id=name) for name, atoms, cutoff in neighbor_cases()]
OPTIONS = [
    dict(zip(("sorted", "self_interaction", "bothways"), values, strict=True))
    for values in itertools.product([False, True], repeat=3)
]


def built(primitive, atoms, radii, **options):
    neighbor_list = NeighborList(radii, primitive=primitive, **options)
    assert neighbor_list.update(atoms)
    return neighbor_list


def edges(neighbor_list, n_atoms):
    rows = [zip(*neighbor_list.get_neighbors(i), strict=True) for i in range(n_atoms)]
    return [(i, int(j), *map(int, S)) for i, row in enumerate(rows) for j, S in row]


def undirected(edges):
    return sorted(min((i, j, *S), (j, i, *(-s for s in S))) for i, j, *S in edges)


@pytest.mark.parametrize(("atoms", "cutoff"), CASES)
def test_neighbors_are_those_of_ase(atoms, cutoff):
    n = len(atoms)
    radii = np.random.default_rng(n).uniform(0.3, 0.7, n) * cutoff
    for options in OPTIONS:
        ours = edges(built(PrimitiveNeighborList, atoms, radii, **options), n)
        new = edges(built(NewPrimitiveNeighborList, atoms, radii, **options), n)
        old = edges(built(OldPrimitiveNeighborList, atoms, radii, **options), n)
        assert len(ours) >= n * options["self_interaction"]
        assert sorted(ours) == sorted(new)
        assert undirected(ours) == undirected(old)
        if options["bothways"]:
            assert sorted(ours) == sorted(old)
            if options["sorted"]:
                assert ours == old


def test_one_radius_for_all_and_scaled_positions():
    atoms = triclinic((True, False, True))
    scaled = atoms.cell.scaled_positions(atoms.positions)
    for options, radii in itertools.product(OPTIONS, ([0.8] * 12, np.linspace(0.2, 0.9, 12))):
        lists = []
        for primitive in (PrimitiveNeighborList, NewPrimitiveNeighborList):
            neighbor_list = primitive(radii, use_scaled_positions=True, **options)
            assert neighbor_list.update(atoms.pbc, atoms.cell, scaled)
            lists.append(sorted(edges(neighbor_list, 12)))
        assert lists[0] == lists[1] == sorted(edges(built(PrimitiveNeighborList, atoms, radii, **options), 12))
        assert lists[0]


def test_without_bothways_a_pair_is_listed_once():
    atoms = triclinic(True)
    half = edges(built(PrimitiveNeighborList, atoms, [1.5] * 12, self_interaction=False), 12)
    full = edges(built(PrimitiveNeighborList, atoms, [1.5] * 12, self_interaction=False, bothways=True), 12)
    assert len(half) > 500
    assert sorted(half + [(j, i, *(-s for s in S)) for i, j, *S in half]) == sorted(full)


@pytest.mark.parametrize("options", [{}, {"self_interaction": False}, {"self_interaction": False, "bothways": True}])
def test_arrays_rows_and_counts_agree(options):
    atoms = crystal()
    ours = built(PrimitiveNeighborList, atoms, [0.8] * 32, **options)
    primitive = ours.nl
    assert primitive.first_neigh[-1] == len(primitive.pair_first) > 100
    for i in range(32):
        j, S = ours.get_neighbors(i)
        row = primitive.pair_first == i
        np.testing.assert_array_equal(j, primitive.pair_second[row])
        np.testing.assert_array_equal(S, primitive.offset_vec[row])
        np.testing.assert_array_equal(j, primitive.neighbors[i])
        np.testing.assert_array_equal(S, primitive.displacements[i])
        np.testing.assert_array_equal(j, ours.get_neighbors(i - 32)[0])
    theirs = built(OldPrimitiveNeighborList, atoms, [0.8] * 32, **options)
    for name in ("nneighbors", "npbcneighbors"):
        with pytest.warns(FutureWarning):
            assert getattr(ours, name) == getattr(theirs, name) > 0
    if options.get("bothways"):
        assert (ours.get_connectivity_matrix() != theirs.get_connectivity_matrix()).nnz == 0


@pytest.mark.parametrize("scaled", [False, True], ids=["cartesian", "scaled"])
def test_a_kept_list_misses_no_neighbor(scaled):
    rng = np.random.default_rng(0)
    atoms, radii, skin = crystal(), np.linspace(0.5, 0.9, 32), 0.1
    kept = PrimitiveNeighborList(radii, skin, bothways=True, self_interaction=False, use_scaled_positions=scaled)
    outcomes = set()
    for step in range(60):
        atoms.positions += rng.normal(0, 0.01, (32, 3))
        positions = atoms.cell.scaled_positions(atoms.positions) if scaled else atoms.positions
        before = kept.nupdates
        was_built = kept.update(atoms.pbc, atoms.cell, positions)
        assert kept.nupdates == before + was_built
        outcomes.add(was_built)
        now = built(NewPrimitiveNeighborList, atoms, radii, skin=0, bothways=True, self_interaction=False)
        assert set(edges(now, 32)) <= set(edges(kept, 32)), step
    assert outcomes == {True, False}


@pytest.mark.parametrize(("share", "rebuilt"), [(0.999, False), (1.0, True), (1.001, True)])
@pytest.mark.parametrize("origin", [0.0, 1e5])
def test_two_atoms_that_each_move_by_a_skin(share, rebuilt, origin):
    x = np.array([[0.0, 0, 0], [2 + 2 * 0.3 + 1e-9, 0, 0]]) + origin
    kept = PrimitiveNeighborList([1.0, 1.0], 0.3)
    kept.update([False] * 3, np.eye(3), x)
    assert len(kept.get_neighbors(0)[0]) == 1  # only itself
    x[:, 0] += np.array([0.3, -0.3]) * share
    assert kept.update([False] * 3, np.eye(3), x) == rebuilt
    assert (1 in kept.get_neighbors(0)[0]) == rebuilt  # with a skin of its own


def test_scaled_positions_have_a_skin_in_units_of_length():
    cell = np.eye(3) * 100.0
    kept = PrimitiveNeighborList([1.0, 1.0], 0.3, self_interaction=False, use_scaled_positions=True)
    kept.update([True] * 3, cell, np.array([[0, 0, 0], [0.1, 0, 0]]))
    assert kept.update([True] * 3, cell, np.array([[0, 0, 0], [0.015, 0, 0]]))
    assert len(kept.pair_first) == 1


def test_what_makes_a_list_new():
    atoms = triclinic(True)
    for skin in (0.0, 0.3):
        kept = PrimitiveNeighborList([0.5] * 12, skin)
        assert kept.update(atoms.pbc, atoms.cell, atoms.positions)
        assert not kept.update(atoms.pbc, atoms.cell, atoms.positions)
        assert kept.update(atoms.pbc, atoms.cell * (1 + 1e-12), atoms.positions)
        assert kept.update([True, True, False], atoms.cell * (1 + 1e-12), atoms.positions)
        assert kept.nupdates == 3
    assert not kept.update(kept.pbc, kept.cell, atoms.positions + 0.1)
    no_atoms = PrimitiveNeighborList([])
    assert no_atoms.update([True] * 3, np.eye(3), np.zeros((0, 3)))
    assert not no_atoms.update([True] * 3, np.eye(3), np.zeros((0, 3)))
    assert no_atoms.neighbors == []


def test_errors_are_sentences_and_leave_the_list_as_it_was():
    atoms = triclinic(True)
    kept = PrimitiveNeighborList([0.7] * 12)
    with pytest.raises(RuntimeError, match="call of update before get_neighbors"):
        kept.get_neighbors(0)
    with pytest.raises(ValueError, match="radius for each of the 3 atoms, got shape \\(12,\\)"):
        kept.update([True] * 3, np.eye(3), np.eye(3))
    kept.update(atoms.pbc, atoms.cell, atoms.positions)
    before = edges(kept, 12)
    broken = atoms.positions.copy()
    broken[7, 1] = np.nan
    with pytest.raises(ValueError, match="finite positions, got nan for atom 7"):
        kept.update(atoms.pbc, atoms.cell, broken)
    assert edges(kept, 12) == before
    assert before
    with pytest.raises(IndexError, match="range object index out of range"):
        kept.get_neighbors(12)
    pair = PrimitiveNeighborList([1.0, 1.0])
    pair.update([False] * 3, np.eye(3), np.eye(3)[:2] * 0.1)
    with pytest.raises(ValueError, match="radius for each of the 1 atoms"):
        pair.update([False] * 3, np.eye(3), np.eye(3)[:1] * 0.1)


@pytest.mark.parametrize(
    ("module", "calculator", "atoms"),
    [
        (lj, partial(lj.LennardJones, rc=2.5, smooth=True), crystal()),
        (lj, partial(lj.LennardJones, rc=2.5), slab()),
        (emt, emt.EMT, bulk("Cu", cubic=True) * 2),
        (emt, emt.EMT, Atoms("CuAu2", [[0, 0, 0], [2.5, 0, 0], [0, 2.4, 0.3]])),
    ],
    ids=["lj-crystal", "lj-slab", "emt-crystal", "emt-molecule"],
)
def test_calculators_give_what_they_gave(monkeypatch, module, calculator, atoms):
    theirs, ours = atoms.copy(), atoms.copy()
    theirs.calc, ours.calc = calculator(), calculator()
    for step in range(4):
        moved = np.random.default_rng(step).normal(0, 0.08, atoms.positions.shape)
        for system in (theirs, ours):
            system.positions += moved
            if system is ours:
                monkeypatch.setattr(module, "NeighborList", partial(NeighborList, primitive=PrimitiveNeighborList))
            system.get_forces()
            monkeypatch.undo()
        assert isinstance(ours.calc.nl.nl, PrimitiveNeighborList)
        assert isinstance(theirs.calc.nl.nl, OldPrimitiveNeighborList)
        assert abs(theirs.get_potential_energy()) > 0.1
        np.testing.assert_allclose(ours.get_potential_energy(), theirs.get_potential_energy(), rtol=1e-12)
        np.testing.assert_allclose(
            ours.get_forces(), theirs.get_forces(), rtol=0, atol=1e-12 * np.abs(theirs.get_forces()).max()
        )
    assert ours.calc.nl.nupdates == theirs.calc.nl.nupdates > 1


def test_analysis_of_bonds_gives_what_it_gave():
    atoms = water()
    radii = natural_cutoffs(atoms)
    options = {"cutoffs": radii, "self_interaction": False, "bothways": True}
    ours, theirs = Analysis(atoms, primitive=PrimitiveNeighborList, **options), Analysis(atoms, **options)
    assert isinstance(ours.nl[0].nl, PrimitiveNeighborList)
    assert ours.get_bonds("O", "H") == theirs.get_bonds("O", "H") == [[(0, 1), (0, 2)]]
    assert ours.get_angles("H", "O", "H") == theirs.get_angles("H", "O", "H") == [[(1, 0, 2)]]
