"""Several models at once: mean, spread, a warning."""

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.md.verlet import VelocityVerlet
from systems import crystal, gnn

from mdgnn import Ensemble, MDGNNCalculator


def test_ensemble_is_the_mean_with_a_spread():
    models = [gnn(seed=s) for s in range(3)]
    atoms = crystal()
    ensemble = atoms.calc = Ensemble(models, dtype="float64")
    forces = np.stack([MDGNNCalculator(m, dtype="float64").get_forces(atoms) for m in models])
    energies = [MDGNNCalculator(m, dtype="float64").get_potential_energy(atoms) for m in models]
    np.testing.assert_allclose(atoms.get_forces(), forces.mean(0), rtol=1e-12, atol=1e-12)
    assert atoms.get_potential_energy() == pytest.approx(np.mean(energies), rel=1e-14)
    assert ensemble.export_properties()["energy"] == atoms.get_potential_energy()  # ASE refuses names it does not know
    assert ensemble.results["energy_std"] == pytest.approx(np.std(energies), rel=1e-12)
    expected = np.sqrt(((forces - forces.mean(0)) ** 2).sum(2).mean(0))
    np.testing.assert_allclose(ensemble.results["forces_std"], expected, rtol=1e-12)
    stresses = np.stack([MDGNNCalculator(m, dtype="float64").get_stress(atoms) for m in models])
    assert np.abs(stresses - stresses.mean(0)).max() > 1e-3
    np.testing.assert_allclose(atoms.get_stress(), stresses.mean(0), rtol=1e-12, atol=1e-14)
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


def close():
    return Atoms("Ar2", [[0, 0, 0], [0.5, 0, 0]])


@pytest.mark.parametrize(
    "ask",
    [
        lambda atoms: atoms.get_forces(),
        lambda atoms: atoms.calc.get_potential_energy(atoms),
        lambda atoms: atoms.calc.calculate(atoms, ["energy"]),
        lambda atoms: VelocityVerlet(atoms, 0.001).run(1),
    ],
    ids=["atoms", "calculator", "calculate", "dynamics"],
)
@pytest.mark.parametrize(
    ("calculator", "words"),
    [
        (lambda: Ensemble([gnn(seed=0), gnn(seed=1)], warn_above=1e-9), "models of the ensemble disagree"),
        (lambda: MDGNNCalculator("lj"), "atoms 0 and 1 are .* apart, closer than any"),
        (lambda: Ensemble(["lj", "lj"]), "atoms 0 and 1 are .* apart, closer than any"),
    ],
    ids=["ensemble", "too close", "too close in an ensemble"],
)
def test_a_warning_points_at_the_line_of_the_user(calculator, words, ask):
    atoms = close()
    atoms.calc = calculator()
    with pytest.warns(UserWarning, match=words) as told:
        ask(atoms)
    assert {warning.filename for warning in told} == {__file__}
