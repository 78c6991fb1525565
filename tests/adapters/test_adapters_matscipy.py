"""Our list with matscipy's signature, against matscipy, inside its calculators and inside MACE."""

import warnings
from collections import defaultdict
from importlib import import_module
from unittest.mock import Mock

import numpy as np
import pytest
from ase.geometry import complete_cell
from systems import crystal, icosahedron, neighbor_cases, slab, triclinic, water

from mdgnn.adapters.matscipy import neighbour_list

CASES = [pytest.param(atoms, cutoff, id=name) for name, atoms, cutoff in neighbor_cases()]


def peer(name, monkeypatch=None):
    """A module that may be absent, and may warn when it is imported."""
    pytest.importorskip(name.split(".")[0])
    if monkeypatch:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(name)


def theirs(*args, **options):
    return peer("matscipy.neighbours").neighbour_list(*args, **options)


def assert_same(ours, expected):
    """Of lists that are made of "ijSdD", in whatever order of edges."""
    order = np.lexsort((*expected[2].T[::-1], expected[1], expected[0]))
    for a, b in zip(ours[:3], expected[:3], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b[order])
    for a, b in zip(ours[3:], expected[3:], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b[order], atol=1e-12 * max(1.0, np.abs(b).max(initial=0)), rtol=1e-13)


@pytest.mark.parametrize(("atoms", "cutoff"), CASES)
def test_edges_are_those_of_matscipy(atoms, cutoff):
    arrays = {"positions": atoms.positions, "cell": complete_cell(atoms.cell), "pbc": atoms.pbc}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of boxes with many bins
        expected = theirs("ijSdD", cutoff=cutoff, **arrays)
    assert_same(neighbour_list("ijSdD", cutoff=cutoff, **arrays), expected)
    assert_same(neighbour_list("ijSdD", atoms, cutoff), expected)


@pytest.mark.parametrize(
    "cutoff",
    [
        1.2,
        2,
        np.float32(1.5),
        np.array(1.2),
        {("H", "O"): 1.2, ("H", "H"): 1.0},
        {(8, "H"): 1.2, ("C", "C"): 9.0},
        {("H", "O"): 0.5, ("O", "H"): 1.2},
        defaultdict(lambda: 1.7),
        [0.6, 0.5, 0.5],
        np.array([1.0, 0.2, 0.2]),
        np.diag(np.full(9, 1.8)) + 0.1,
    ],
)
def test_every_form_of_a_cutoff(cutoff):
    atoms = water()
    atoms.cell, atoms.pbc = np.diag([2.5, 9, 9]), (True, False, False)
    ours = neighbour_list("ijSdD", atoms, cutoff)
    assert len(ours[0])
    assert_same(ours, theirs("ijSdD", atoms, cutoff))
    arrays = {
        "positions": atoms.positions,
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "numbers": atoms.numbers.tolist(),
    }
    assert_same(neighbour_list("ijSdD", cutoff=cutoff, **arrays), theirs("ijSdD", cutoff=cutoff, **arrays))


@pytest.mark.parametrize(
    "cutoff", [{}, {("H", "H"): 0.1}, {("C", "C"): 3.0}, [0.0, 0.0, 0.0], np.zeros((9, 9))], ids=repr
)
def test_cutoffs_that_leave_nothing(cutoff):
    atoms = water()
    atoms.center(1)
    ours = neighbour_list("ijSdD", atoms, cutoff)
    assert [a.shape for a in ours] == [(0,), (0,), (0, 3), (0,), (0, 3)]
    assert_same(ours, theirs("ijSdD", atoms, cutoff))


def test_defaults_and_the_origin_of_the_cell():
    positions = triclinic().positions + 3
    assert_same(
        neighbour_list("ijSdD", cutoff=1.5, positions=positions), theirs("ijSdD", cutoff=1.5, positions=positions)
    )
    numbered = {"positions": positions, "cutoff": {(1, 1): 1.5}}  # atoms without a number are hydrogen
    assert_same(neighbour_list("ijSdD", **numbered), theirs("ijSdD", **numbered))
    boxed = {"positions": positions, "cutoff": 1.5, "pbc": [True] * 3}  # in their bounding box
    assert_same(neighbour_list("ijSdD", **boxed), theirs("ijSdD", **boxed))
    single = {"positions": positions.astype(np.float32), "cutoff": 1.5}
    assert_same(neighbour_list("ijSdD", **single), theirs("ijSdD", **single))
    for pbc in (True, False):
        moved = {"positions": positions, "cell": triclinic().cell.array, "pbc": [pbc] * 3, "cutoff": 1.5}
        ours = neighbour_list("ijSdD", cell_origin=[1.0, -20.0, 0.3], **moved)
        assert len(ours[0]) > 20
        assert_same(ours, theirs("ijSdD", cell_origin=[1.0, -20.0, 0.3], **moved))


def test_quantities_one_by_one_repeated_and_in_any_order():
    atoms = crystal()
    quantities = dict(zip("ijSdD", neighbour_list("ijSdD", atoms, 2.0), strict=True))
    assert len(quantities["i"]) > 100
    for q in "ijSdD":
        np.testing.assert_array_equal(neighbour_list(q, atoms, 2.0), quantities[q])
    for q, again in zip("DiSiD", neighbour_list("DiSiD", atoms, 2.0), strict=True):
        np.testing.assert_array_equal(again, quantities[q])


def test_an_open_system_needs_no_cell():
    atoms = icosahedron(2)
    assert not atoms.cell.any()
    assert len(neighbour_list("i", atoms, 1.2)) == 13 * 12 - 72  # 30 pairs of the shell and 12 with the centre, twice


def test_the_distance_of_an_edge_is_strictly_below_the_cutoff():
    positions = [[0.0, 0, 0], [1.5, 0, 0]]
    for cutoff in (1.5, [0.75, 0.75], {(1, 1): 1.5}, np.full((2, 2), 1.5)):
        arguments = {"positions": positions, "cell": np.eye(3) * 9, "cutoff": cutoff}
        assert len(neighbour_list("i", **arguments)) == len(theirs("i", **arguments)) == 0
    arguments["cutoff"] = float(np.nextafter(1.5, 2))
    assert len(neighbour_list("i", **arguments)) == len(theirs("i", **arguments)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"positions": np.eye(3)}, "expected a cutoff"),
        ({"cutoff": 1.0}, "atoms or positions, got neither"),
        ({"atoms": water(), "cutoff": 1.0, "pbc": True, "cell_origin": [0] * 3}, "got atoms and pbc, cell_origin"),
        ({"positions": np.eye(3), "cutoff": -1.0}, "positive cutoff, got -1"),
        ({"positions": np.eye(3) * np.nan, "cutoff": 1.0}, "finite positions, got nan for atom 0"),
        ({"positions": np.eye(3), "cutoff": 1.0, "numbers": [1]}, "one number for each of the 3 atoms"),
        ({"positions": np.eye(3), "cutoff": [1.0]}, "one radius for each of the 3 atoms"),
        ({"positions": np.eye(3), "cutoff": np.triu(np.ones((2, 2)))}, "square and symmetric"),
        ({"positions": np.eye(3), "cutoff": np.ones((2, 3))}, "square and symmetric"),
        ({"positions": np.eye(3), "cutoff": np.ones((1, 1))}, "cutoffs for the atomic numbers \\[1\\]"),
        ({"positions": np.eye(3), "cutoff": defaultdict(lambda: 1.0, {(1, 1): 2.0})}, "default only, 1.0, got also"),
        ({"positions": np.eye(3), "cutoff": 1.0, "cell": np.zeros((3, 3)), "pbc": True}, "singular cell"),
        ({"quantities": "ix", "positions": np.eye(3), "cutoff": 1.0}, "quantities out of"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_bad_input_gets_a_sentence(arguments, message):
    with pytest.raises(ValueError, match=message):
        neighbour_list(**{"quantities": "ij", **arguments})


def test_what_follows_in_matscipy_takes_our_arrays():
    module = peer("matscipy.neighbours")
    atoms = crystal()
    i, j, D = neighbour_list("ijD", atoms, 1.3)
    np.testing.assert_array_equal(module.first_neighbours(32, i), np.searchsorted(i, range(33)))
    reverse = module.find_indices_of_reversed_pairs(i, j, np.linalg.norm(D, axis=1))
    np.testing.assert_array_equal(D[reverse], -D)
    assert len(module.triplet_list(module.first_neighbours(32, i))[0]) > len(i)


@pytest.mark.parametrize("atoms", [crystal(), slab()], ids=["crystal", "slab"])
def test_a_calculator_of_matscipy_gives_what_it_gave(monkeypatch, atoms):
    module = peer("matscipy.calculators.pair_potential.calculator")
    results = []
    for substituted in (False, True):
        if substituted:
            monkeypatch.setattr(module, "neighbour_list", neighbour_list)
        system = atoms.copy()
        system.calc = module.PairPotential({(18, 18): module.LennardJonesCut(1.0, 1.0, 2.5)})
        results.append([system.get_potential_energy(), system.get_forces()])
        if atoms.cell.rank == 3:
            results[-1].append(system.get_stress())
    assert abs(results[0][0]) > 1
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * np.abs(b).max())


@pytest.mark.parametrize(
    "atoms", [crystal(), slab(), water(), triclinic((False, True, True), left_handed=True)], ids=str
)
def test_mace_gets_the_same_neighborhood(monkeypatch, atoms):
    module = peer("mace.data.neighborhood", monkeypatch)
    arguments = (atoms.positions, 1.6, tuple(map(bool, atoms.pbc)))
    edge_index, shifts, unit_shifts, cell = module.get_neighborhood(*arguments, atoms.cell.array.copy())
    monkeypatch.setattr(module, "neighbour_list", neighbour_list)
    ours = module.get_neighborhood(*arguments, atoms.cell.array.copy())
    assert edge_index.shape[1]
    order = np.lexsort((*unit_shifts.T[::-1], *edge_index[::-1]))
    np.testing.assert_array_equal(ours[0], edge_index[:, order])
    np.testing.assert_array_equal(ours[2], unit_shifts[order])
    np.testing.assert_allclose(ours[1], shifts[order], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(ours[3], cell)


def small_mace(monkeypatch):
    """A MACE calculator with random weights."""
    calculators = peer("mace.calculators", monkeypatch)
    modules, o3, torch = peer("mace.modules"), peer("e3nn.o3"), peer("torch")
    torch.manual_seed(0)
    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    options = {"num_bessel": 4, "num_polynomial_cutoff": 5, "max_ell": 1, "num_interactions": 2, "num_elements": 2}
    options |= {"atomic_energies": np.zeros(2), "atomic_numbers": [1, 8], "avg_num_neighbors": 4.0, "correlation": 2}
    options |= {"hidden_irreps": o3.Irreps("8x0e"), "MLP_irreps": o3.Irreps("4x0e"), "gate": torch.nn.functional.silu}
    model = modules.MACE(r_max=3.0, interaction_cls=block, interaction_cls_first=block, **options).double()
    return calculators.MACECalculator(models=[model], device="cpu", default_dtype="float64")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pbc", [False, (True, True, False), True], ids=str)
def test_mace_gives_what_it_gave(monkeypatch, pbc):
    calculator = small_mace(monkeypatch)
    atoms = water()
    atoms.set_cell([4, 4, 4])
    atoms *= 2
    atoms.pbc = pbc
    atoms.rattle(0.3, seed=1)
    ours = Mock(side_effect=neighbour_list)
    results = []
    for substituted in (False, True):
        if substituted:
            monkeypatch.setattr("mace.data.neighborhood.neighbour_list", ours)
        calculator.reset()
        results.append((calculator.get_potential_energy(atoms), calculator.get_forces(atoms)))
    assert ours.called
    assert np.abs(results[0][1]).max() > 1e-3
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-10 * np.abs(b).max())
