"""The ASE calculator: results, units, caching, errors that name the atom, and no side effects."""

import copy
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError
from ase.filters import UnitCellFilter
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS, FIRE
from systems import crystal, gnn, icosahedron, slab, triclinic, water

from mdgnn import Ensemble, Graph, LennardJones, MDGNNCalculator, SimpleGNN, evaluate
from mdgnn.engine import UnsupportedError


@pytest.fixture
def one_thread():
    """Thousands of steps of small systems: two threads gain little and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def lj(**options):
    return MDGNNCalculator(LennardJones(cutoff=2.5), **{"dtype": "float64", **options})


@pytest.mark.parametrize("atoms", [icosahedron(3, 0.05), crystal(), slab(), triclinic(True, n=6)], ids=len)
def test_results_are_those_of_evaluate(atoms):
    calc = lj()
    expected = evaluate(LennardJones(cutoff=2.5), Graph.from_atoms(atoms, 2.5), virial=True)
    atoms = atoms.copy()
    atoms.calc = calc
    assert atoms.get_potential_energy() == float(expected.energy) == atoms.get_potential_energy(force_consistent=True)
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces.numpy())
    np.testing.assert_array_equal(atoms.get_potential_energies(), expected.energies.numpy())
    if atoms.cell.rank == 3:
        s = -expected.virial[0].numpy() / atoms.get_volume()
        np.testing.assert_allclose(atoms.get_stress(), [s[0, 0], s[1, 1], s[2, 2], s[1, 2], s[0, 2], s[0, 1]])


def test_float32_is_close_to_float64():
    atoms = icosahedron(3, 0.02)
    single, double = MDGNNCalculator("lj"), MDGNNCalculator("lj", dtype="float64")
    assert single.get_potential_energy(atoms) == pytest.approx(double.get_potential_energy(atoms), rel=1e-6)
    forces = double.get_forces(atoms)
    np.testing.assert_allclose(single.get_forces(atoms), forces, atol=1e-4 * np.abs(forces).max())


@pytest.mark.parametrize("atoms", [icosahedron(2), crystal(0.0), slab()], ids=len)
def test_stress_needs_a_volume_and_forces_do_not(atoms):
    atoms.calc = lj()
    assert np.isfinite(atoms.get_forces()).all()
    if atoms.cell.rank == 3:
        assert atoms.get_stress().shape == (6,)
    else:
        with pytest.raises(PropertyNotImplementedError, match="positive volume"):
            atoms.get_stress()


def test_does_not_depend_on_history_or_on_the_skin():
    """Bits are those of a fresh calculator, whatever was computed before."""
    rng = np.random.default_rng(0)
    atoms = crystal()
    used = MDGNNCalculator(LennardJones(cutoff=2.5), skin=0.4)
    for step in range(12):
        atoms.positions += rng.normal(0, 0.03, atoms.positions.shape)
        if step == 6:
            atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
        fresh = MDGNNCalculator(LennardJones(cutoff=2.5), skin=0.0)
        np.testing.assert_array_equal(used.get_forces(atoms), fresh.get_forces(atoms))
        assert used.get_potential_energy(atoms) == fresh.get_potential_energy(atoms)
    assert used.neighbors.n_rebuilds < 12


def test_changes_nothing_outside():
    atoms = crystal()
    atoms.positions -= 7.0
    before = copy.deepcopy(atoms)
    model = SimpleGNN(elements="any", envelope="cosine")
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed()
    np_state = np.random.get_state()[1].copy()
    calc = MDGNNCalculator(model, dtype="float64")
    calc.get_property("stress", atoms)
    assert atoms == before and atoms.calc is None and atoms.info == before.info
    assert model.training and model.dtype == torch.float32
    assert all(p.requires_grad for n, p in model.named_parameters() if n != "rbf_centers")
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())
    assert state == (torch.get_default_dtype(), torch.get_num_threads(), torch.initial_seed())
    assert (np_state == np.random.get_state()[1]).all()


def test_ase_caches_results():
    atoms = icosahedron(2)
    atoms.calc = lj()
    first = atoms.get_forces()
    again = atoms.get_forces()
    assert atoms.calc.neighbors.n_rebuilds == 1
    first[:] = 0  # the caller owns what it gets
    np.testing.assert_array_equal(atoms.get_forces(), again)


@pytest.mark.parametrize("optimizer", [BFGS, FIRE])
def test_relaxation(optimizer):
    cluster = icosahedron(2, 0.05)
    cluster.calc = MDGNNCalculator(LennardJones(), dtype="float64")
    assert optimizer(cluster, logfile=None).run(fmax=1e-3, steps=500)
    assert cluster.get_potential_energy() == pytest.approx(-44.326801, abs=1e-4)


def test_relaxation_of_the_cell():
    solid = crystal(0.01)
    solid.calc = lj()
    assert FIRE(UnitCellFilter(solid), logfile=None).run(fmax=1e-4, steps=2000)
    assert np.abs(solid.get_stress()).max() < 1e-3


def test_reduced_units_make_ases_time_tau():
    """A dimer of mass 1 vibrates with omega = sqrt(V''(r0) / mu), V'' = 57.146 epsilon / sigma^2, mu = 1 / 2."""
    r0 = 2 ** (1 / 6)
    atoms = Atoms("Ar2", [[0, 0, 0], [r0 + 1e-3, 0, 0]], masses=[1.0, 1.0])
    atoms.calc = MDGNNCalculator(LennardJones(), dtype="float64")
    dt, lengths = 0.001, []
    with VelocityVerlet(atoms, dt) as md:
        for _ in md.irun(1000):
            lengths.append(atoms.get_distance(0, 1) - r0)
    minima = [k for k in range(1, 1000) if lengths[k - 1] > lengths[k] <= lengths[k + 1]]
    period = (minima[-1] - minima[0]) / (len(minima) - 1) * dt
    assert period == pytest.approx(2 * np.pi / np.sqrt(57.146 / 0.5), rel=2e-3)


def test_pickles_and_copies():
    atoms = icosahedron(2, 0.05)
    calc = MDGNNCalculator("lj")
    expected = calc.get_forces(atoms)
    for other in (copy.deepcopy(calc), pickle.loads(pickle.dumps(calc))):
        np.testing.assert_array_equal(other.get_forces(atoms), expected)


def test_atoms_closer_than_in_training_are_told():
    pair = Atoms("Ar2", [[0, 0, 0], [0.5, 0, 0]])
    sentence = "atoms 0 and 1 are 0.5 apart, closer than any in the model's training data .0.65"
    calc = MDGNNCalculator("lj")
    with pytest.warns(UserWarning, match=sentence):
        calc.get_forces(pair)
    pair.positions[1, 1] = 0.1
    calc.get_forces(pair)  # once: warnings are errors here
    pair.positions[1, 0] = 1.1
    calc.get_forces(pair)
    pair.positions[1] = (0.5, 0, 0)
    with pytest.warns(UserWarning, match=sentence):
        calc.get_forces(pair)
    with pytest.raises(CalculatorError, match=sentence):
        MDGNNCalculator("lj", too_close="raise").get_forces(pair)
    MDGNNCalculator("lj", too_close="ignore").get_forces(pair)
    with pytest.raises(ValueError, match="too_close 'warn', 'raise' or 'ignore', got 'perhaps'"):
        MDGNNCalculator("lj", too_close="perhaps")


def test_stress_is_computed_only_when_asked_for():
    atoms = crystal()
    atoms.calc = MDGNNCalculator("lj")
    atoms.get_forces()
    assert "stress" not in atoms.calc.results
    stress = atoms.get_stress()
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    assert "stress" in atoms.calc.results  # from then on, in the same call as the forces
    atoms.positions[0, 0] -= 0.01
    np.testing.assert_allclose(atoms.get_stress(), stress, rtol=1e-5)


@pytest.mark.parametrize("change", ["positions", "numbers", "cell", "pbc"])
def test_any_change_is_noticed_and_nothing_else_computes_again(change):
    atoms = crystal()
    calc = atoms.calc = lj()
    atoms.get_forces()
    assert calc.check_state(atoms) == [] and not calc.calculation_required(atoms, ["forces"])
    atoms.set_masses(np.full(32, 3.0))
    atoms.set_initial_charges(np.ones(32))
    atoms.set_momenta(np.ones((32, 3)))
    assert calc.get_property("energy", atoms, allow_calculation=False) is not None
    if change == "numbers":
        atoms.numbers[:] = 36
    elif change == "cell":
        atoms.cell[0, 0] += 1e-14
    elif change == "pbc":
        atoms.pbc[1] = False
    else:
        atoms.positions[3, 1] = np.nextafter(atoms.positions[3, 1], 9.0)
    assert calc.check_state(atoms) == [change] and calc.calculation_required(atoms, ["forces"])
    assert calc.get_property("energy", atoms, allow_calculation=False) is None


def test_atoms_of_the_calculator_are_those_of_its_results():
    atoms = crystal()
    calc = lj()
    with pytest.raises(ValueError, match="expected atoms, got none"):
        calc.get_property("energy")
    calc.get_potential_energy(atoms)
    energy = calc.get_property("energy")
    atoms.positions += 1.0
    np.testing.assert_array_equal(calc.atoms.positions, crystal().positions)
    assert calc.get_property("energy") == energy and calc.atoms.pbc.all()
    calc.reset()
    assert calc.atoms is None and not calc.results


def test_backends_agree_and_are_named():
    atoms = icosahedron(3, 0.05)
    auto, engine, torch_ = (MDGNNCalculator("lj", backend=b, dtype="float64") for b in ("auto", "engine", "torch"))
    assert auto.engine is not None and torch_.engine is None
    np.testing.assert_array_equal(auto.get_forces(atoms), engine.get_forces(atoms))
    np.testing.assert_allclose(auto.get_forces(atoms), torch_.get_forces(atoms), atol=1e-11)
    assert MDGNNCalculator(LennardJones()).engine is None
    with pytest.raises(ValueError, match="backend 'auto', 'engine' or 'torch', got 'fast'"):
        MDGNNCalculator("lj", backend="fast")
    with pytest.raises(UnsupportedError, match="cannot run this LennardJones"):
        MDGNNCalculator(LennardJones(), backend="engine")


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_many_structures_at_once(backend, monkeypatch):
    monkeypatch.setattr("mdgnn.calculator.BATCH", 100)
    calc = MDGNNCalculator("lj", dtype="float64", backend=backend)
    structures = [icosahedron(3, 0.05), Atoms("Ar"), crystal(), icosahedron(2), slab(), triclinic(True, n=6)]
    together = calc.evaluate(structures)
    assert len(together) == 6 and calc.evaluate([]) == []
    for atoms, found in zip(structures, together, strict=True):
        alone = calc.compute(atoms)
        assert found["energy"] == pytest.approx(alone["energy"], rel=1e-12)
        np.testing.assert_allclose(found["forces"], alone["forces"], atol=1e-11)
        np.testing.assert_allclose(found["energies"], alone["energies"], atol=1e-11)
    (with_stress,) = calc.evaluate([crystal()], stress=True)
    np.testing.assert_allclose(with_stress["stress"], calc.compute(crystal(), stress=True)["stress"], atol=1e-12)


def test_one_structure_is_a_list_of_one():
    assert MDGNNCalculator("lj").evaluate(crystal())[0]["energy"] == MDGNNCalculator("lj").compute(crystal())["energy"]


def test_forces_without_a_volume_after_stress_was_asked_for():
    calc = MDGNNCalculator("lj")
    calc.get_stress(crystal())
    flat = icosahedron(2)
    flat.cell = [[5, 0, 0], [0, 5, 0], [5, 5, 0]]
    assert np.isfinite(calc.get_forces(flat)).all() and "stress" not in calc.results
    with pytest.raises(ValueError, match="expected atoms, got none"):
        MDGNNCalculator("lj").calculate()


@pytest.mark.parametrize(
    ("wrong", "stress", "error", "message"),
    [
        (Atoms("Ar", cell=[[3, 0, 0], [3, 0, 0], [0, 0, 3]], pbc=True), False, ValueError, "structure 1: .*singular"),
        (Atoms(), False, ValueError, "structure 1: expected at least one atom"),
        (Atoms("Ar2", [[0, 0, 0], [0, 0, 0]]), False, ValueError, "structure 1: expected atoms at different places"),
        (Atoms("Ar", [[np.nan, 0, 0]]), False, ValueError, "structure 1: expected finite positions.*atom 0"),
        (Atoms("Ar"), True, PropertyNotImplementedError, "structure 1: stress needs"),
    ],
)
def test_a_bad_structure_among_many_is_named(wrong, stress, error, message):
    with pytest.raises(error, match=message):
        MDGNNCalculator("lj").evaluate([crystal(), wrong], stress=stress)


def test_ensemble_is_the_mean_with_a_spread():
    models = [gnn(seed=s) for s in range(3)]
    atoms = crystal()
    ensemble = atoms.calc = Ensemble(models, dtype="float64")
    forces = np.stack([MDGNNCalculator(m, dtype="float64").get_forces(atoms) for m in models])
    energies = [MDGNNCalculator(m, dtype="float64").get_potential_energy(atoms) for m in models]
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0), rtol=1e-12, atol=1e-12)
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies))
    assert ensemble.export_properties()["energy"] == atoms.get_potential_energy()  # ASE refuses names it does not know
    assert ensemble.results["energy_std"] == pytest.approx(np.std(energies))
    expected = np.sqrt(((forces - forces.mean(0)) ** 2).sum(2).mean(0))
    np.testing.assert_allclose(ensemble.results["forces_std"], expected)
    assert atoms.get_stress().shape == (6,)
    assert pickle.loads(pickle.dumps(ensemble)).get_potential_energy(atoms) == atoms.get_potential_energy()


def test_ensemble_warns_once_where_models_disagree():
    atoms = crystal()
    atoms.calc = Ensemble([gnn(seed=0), gnn(seed=1)], warn_above=1e-6)
    with pytest.warns(UserWarning, match=r"disagree: their forces on atom \d+ spread by .* more than 1e-06"):
        atoms.get_forces()
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()  # warnings are errors here
    for models in ("lj", ["lj"], []):
        with pytest.raises(ValueError, match="two models or more"):
            Ensemble(models)
    with pytest.raises(ValueError, match="same units, got lj, metal"):
        Ensemble(["lj", "water"])


def bad(change):
    atoms = crystal()
    change(atoms)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "at least one atom"),
        (bad(lambda a: a.positions.__setitem__((7, 1), np.nan)), "finite positions.*atom 7"),
        (bad(lambda a: a.positions.__setitem__((3, 0), np.inf)), "finite positions.*atom 3"),
        (bad(lambda a: a.set_cell(np.full((3, 3), np.nan))), "finite cell"),
        (bad(lambda a: a.set_cell([5, 0, 5])), "cell vector on periodic axis 1"),
        (bad(lambda a: a.set_cell([[5, 0, 0], [5, 0, 0], [0, 0, 5]])), "singular cell"),
        (bad(lambda a: a.positions.__setitem__(9, a.positions[4])), "atoms 4 and 9 coincide"),
        (bad(lambda a: a.positions.__setitem__(9, a.positions[4] + a.cell[1])), "atoms 4 and 9 coincide"),
        (bad(lambda a: a.numbers.__setitem__(5, 54)), "single species.*Ar for atom 0 and Xe for atom 5"),
    ],
)
@pytest.mark.parametrize("name", ["lj", None])
def test_bad_atoms_are_named(atoms, message, name):
    calc = MDGNNCalculator(name or LennardJones(cutoff=2.5))
    with pytest.raises(ValueError, match=message):
        calc.get_potential_energy(atoms)


def test_coincidence_through_an_image_is_noticed():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cell, place = rng.uniform(2, 9), rng.uniform(0, 9, 3)
        atoms = Atoms("Ar2", [place, place + cell * np.eye(3)[0]], cell=[cell] * 3, pbc=True)
        with pytest.raises(ValueError, match="atoms 0 and 1 coincide"):
            lj().get_potential_energy(atoms)


def test_unknown_element_is_named():
    atoms = water()
    atoms.numbers[2] = 26
    with pytest.raises(ValueError, match="knows the elements H, O; atom 2 is Fe"):
        MDGNNCalculator("water").get_potential_energy(atoms)


def test_any_single_species_is_the_lennard_jones_particle():
    energies = []
    for symbol in ("Ar", "H", "Og"):
        atoms = icosahedron(2)
        atoms.symbols[:] = symbol
        energies.append(MDGNNCalculator("lj").get_potential_energy(atoms))
    assert len(set(energies)) == 1


def test_results_that_are_not_finite_stop_the_run():
    model = SimpleGNN(elements="any", envelope="cosine")
    with torch.no_grad():
        model.output_mlp[2].bias.fill_(float("nan"))
    atoms = icosahedron(2)
    atoms.calc = MDGNNCalculator(model)
    with pytest.raises(CalculatorError, match="energy that are not finite|not finite"):
        atoms.get_potential_energy()
    assert not atoms.calc.results
    close = Atoms("Ar2", [[0, 0, 0], [1e-40, 0, 0]])
    with pytest.raises((CalculatorError, ValueError), match="not finite|coincide"):
        MDGNNCalculator(LennardJones()).get_forces(close)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "lj", "dtype": "float16"}, ValueError, "dtype 'float32' or 'float64'"),
        ({"model": "lj", "skin": -1.0}, ValueError, "skin of at least 0"),
        ({"model": "nothing"}, FileNotFoundError, "no shipped model"),
        ({"model": SimpleGNN(readout="mean")}, ValueError, "readout 'sum'"),
    ],
)
def test_bad_arguments_get_a_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        MDGNNCalculator(**arguments)


def test_isolated_atoms_and_one_atom():
    for atoms in (Atoms("Ar"), Atoms("Ar2", [[0, 0, 0], [50, 0, 0]])):
        for name in ("lj", LennardJones()):
            atoms.calc = MDGNNCalculator(name)
            assert np.isfinite(atoms.get_potential_energy()) and np.abs(atoms.get_forces()).max() < 1e-8


def test_relaxes_perturbed_clusters_to_the_true_minima(one_thread):
    """BFGS with the shipped model from starts perturbed by 0.1 sigma: true energy within 0.05 epsilon."""
    from ase.cluster import Octahedron

    starts = {13: icosahedron(2), 38: Octahedron("Ar", 4, 1, latticeconstant=1.09 * 2**0.5), 55: icosahedron(3)}
    minima = {13: -44.326801, 38: -173.928427, 55: -279.248470}
    for n, seed in [(n, seed) for n in starts for seed in (0, 1, 2)]:
        atoms = starts[n].copy()
        assert len(atoms) == n
        atoms.positions += np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
        atoms.calc = MDGNNCalculator("lj")
        assert BFGS(atoms, logfile=None).run(fmax=0.01, steps=1000)
        true = MDGNNCalculator(LennardJones(), dtype="float64").get_potential_energy(atoms)
        assert true == pytest.approx(minima[n], abs=0.05)


def test_nve_of_the_shipped_model_conserves_energy(one_thread):
    """LJ55 at T about 0.2, 10,000 steps of 0.002 tau: drift below 1e-4 epsilon per atom; halved dt, a fourth."""
    start = icosahedron(3)
    start.set_masses(np.ones(55))
    start.calc = MDGNNCalculator("lj")
    BFGS(start, logfile=None).run(fmax=0.01)
    velocities = np.random.default_rng(0).normal(0, np.sqrt(0.4), (55, 3))  # equipartition halves it to T = 0.2
    velocities -= velocities.mean(0)
    spread = {}
    for dt, steps in ((0.002, 10_000), (0.001, 2_000)):
        atoms = start.copy()
        atoms.calc = MDGNNCalculator("lj", dtype="float64" if dt == 0.001 else "float32")
        atoms.set_velocities(velocities)
        energies, temperatures = [], []
        with VelocityVerlet(atoms, dt) as md:
            for _ in md.irun(steps):
                energies.append(atoms.get_total_energy())
                temperatures.append(2 * atoms.get_kinetic_energy() / (3 * 55))
        energies = np.array(energies)
        if dt == 0.002:
            slope = np.polyfit(np.arange(len(energies)), energies, 1)[0]
            assert abs(slope * len(energies)) / 55 < 1e-4
            assert 0.1 < np.mean(temperatures[2000:]) < 0.3
        spread[dt] = np.std(energies[: int(2 / dt)])
    assert 3.2 < spread[0.002] / spread[0.001] < 4.8
