"""What the calculator keeps, computes again, computes at once for many structures, and warns of."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import CalculatorError, PropertyNotImplementedError
from exact import lj
from systems import crystal, icosahedron, slab, triclinic

from mdgnn import LennardJones, MDGNNCalculator
from mdgnn.engine import UnsupportedError


def test_atoms_closer_than_in_training_are_told():
    pair = Atoms("Ar2", [[0, 0, 0], [0.3, 0, 0]])
    calc = MDGNNCalculator("lj")
    sentence = r"atoms 0 and 1 are 0.3 apart, closer than any in the model's training data \(0.527\)"
    with pytest.warns(UserWarning, match=sentence):
        calc.get_forces(pair)
    pair.positions[1, 1] = 0.1
    calc.get_forces(pair)  # once: warnings are errors here
    pair.positions[1, 0] = 1.1
    calc.get_forces(pair)
    pair.positions[1] = (0.3, 0, 0)
    with pytest.warns(UserWarning, match=sentence):
        calc.get_forces(pair)
    with pytest.raises(CalculatorError, match=sentence):
        MDGNNCalculator("lj", too_close="raise").get_forces(pair)
    MDGNNCalculator("lj", too_close="ignore").get_forces(pair)
    with pytest.raises(ValueError, match="too_close 'warn', 'raise' or 'ignore', got 'perhaps'"):
        MDGNNCalculator("lj", too_close="perhaps")


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_evaluate_tells_of_atoms_closer_than_in_training_too(backend):
    near, far = Atoms("Ar2", [[0, 0, 0], [0.3, 0, 0]]), Atoms("Ar2", [[0, 0, 0], [1.1, 0, 0]])
    structures = [far, Atoms("Ar"), near, far, near]
    calc = MDGNNCalculator("lj", backend=backend)
    sentence = r"structure 2: atoms 0 and 1 are 0.3 apart, closer than any in the model's training data \(0.527\)"
    with pytest.warns(UserWarning, match=sentence) as told:
        results = calc.evaluate(structures)
    assert len(told) == 1 and len(results) == len(structures)
    calc.evaluate([far, Atoms("Ar")])  # warnings are errors here
    MDGNNCalculator("lj", backend=backend, too_close="ignore").evaluate(structures)
    with pytest.raises(CalculatorError, match=sentence):
        MDGNNCalculator("lj", backend=backend, too_close="raise").evaluate(structures)
    near.positions[1] = 0
    with pytest.raises(ValueError, match="structure 2: expected atoms at different places, but atoms 0 and 1 coincide"):
        MDGNNCalculator("lj", backend=backend, too_close="ignore").evaluate(structures)


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
    assert (auto.backend, engine.backend, torch_.backend) == ("engine", "engine", "torch")
    np.testing.assert_array_equal(auto.get_forces(atoms), engine.get_forces(atoms))
    np.testing.assert_allclose(auto.get_forces(atoms), torch_.get_forces(atoms), rtol=0, atol=1e-11)
    silent = MDGNNCalculator(LennardJones())  # warnings are errors here
    assert silent.engine is None and silent.backend == "torch"
    assert repr(silent) == "<MDGNNCalculator: LennardJones on cpu, float32, backend torch>"
    assert repr(auto) == "<MDGNNCalculator: SchNet on cpu, float64, backend engine>"
    with pytest.raises(ValueError, match="backend 'auto', 'engine' or 'torch', got 'fast'"):
        MDGNNCalculator("lj", backend="fast")
    with pytest.raises(UnsupportedError, match="cannot run this LennardJones"):
        MDGNNCalculator(LennardJones(), backend="engine")


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_many_structures_at_once(backend, monkeypatch):
    monkeypatch.setattr("mdgnn.calculators.mdgnn_calculator.BATCH", 100)
    calc = MDGNNCalculator("lj", dtype="float64", backend=backend)
    structures = [icosahedron(3, 0.05), Atoms("Ar"), crystal(), icosahedron(2), slab(), triclinic(True, n=6)]
    together = calc.evaluate(structures)
    assert len(together) == 6 and calc.evaluate([]) == []
    for atoms, results in zip(structures, together, strict=True):
        alone = calc.compute(atoms)
        assert results["energy"] == pytest.approx(alone["energy"], rel=1e-12)
        np.testing.assert_allclose(results["forces"], alone["forces"], rtol=0, atol=1e-11)
        np.testing.assert_allclose(results["energies"], alone["energies"], rtol=0, atol=1e-11)
    (with_stress,) = calc.evaluate([crystal()], stress=True)
    np.testing.assert_allclose(
        with_stress["stress"], calc.compute(crystal(), stress=True)["stress"], rtol=0, atol=1e-12
    )


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


@pytest.mark.parametrize("n_behind", [0, 3])
@pytest.mark.parametrize(
    ("distance", "error", "message"),
    [(0.0, ValueError, "expected atoms at different places"), (0.1, CalculatorError, "energy that are not finite")],
)
def test_structures_are_numbered_from_the_first_of_all_batches(distance, error, message, n_behind, monkeypatch):
    """Where the batch goes that a bad one is in, in the middle or at the end."""
    monkeypatch.setattr("mdgnn.calculators.mdgnn_calculator.BATCH", 3)
    calc = MDGNNCalculator(LennardJones(epsilon=1e300), dtype="float64")
    one, wrong = Atoms("Ar"), Atoms("Ar2", [[0, 0, 0], [distance, 0, 0]])
    with pytest.raises(error, match=f"^structure 2: .*{message}"):
        calc.evaluate([one, one, wrong, *[one] * n_behind])


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
