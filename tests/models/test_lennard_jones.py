"""LennardJones against known minima and ASE's calculator."""

import laws
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones as ASELennardJones
from systems import SYSTEMS, icosahedron

import mdgnn
from mdgnn import LennardJones


@pytest.mark.parametrize(("atoms", "energy"), [("2", -1.0), ("13", -44.326801)], ids=["dimer", "icosahedron"])
def test_lennard_jones_minima(atoms, energy):
    from ase.optimize import BFGS

    atoms = Atoms("Ar2", [[0, 0, 0], [2 ** (1 / 6), 0, 0]]) if atoms == "2" else icosahedron(2)
    atoms.calc = mdgnn.MDGNNCalculator(LennardJones(), dtype="float64")
    BFGS(atoms, logfile=None).run(fmax=1e-5)
    assert atoms.get_potential_energy() == pytest.approx(energy, abs=1e-6)


@pytest.mark.parametrize("system", ["cluster", "crystal", "slab", "triclinic"])
def test_lennard_jones_equals_ase(system):
    atoms = SYSTEMS[system].copy()
    expected = ASELennardJones(rc=2.5, ro=None)
    ours = mdgnn.MDGNNCalculator(LennardJones(cutoff=2.5, mode="shifted"), dtype="float64")
    scale = np.abs(expected.get_forces(atoms)).max() + 1
    assert ours.get_potential_energy(atoms) == pytest.approx(expected.get_potential_energy(atoms), rel=1e-12)
    np.testing.assert_allclose(ours.get_forces(atoms), expected.get_forces(atoms), rtol=0, atol=1e-13 * scale)
    if atoms.pbc.all():
        np.testing.assert_allclose(ours.get_stress(atoms), expected.get_stress(atoms), rtol=0, atol=1e-13 * scale)


@pytest.mark.parametrize("mode", ["cut", "shifted", "smooth", "full"])
def test_every_mode_is_its_formula(mode):
    """Depth and size are no units here; both atoms have half of the pair's energy."""
    epsilon, sigma, cutoff = 0.3, 1.7, 4.1
    model = LennardJones(epsilon, sigma, mode=mode, cutoff=None if mode == "full" else cutoff)
    for r in (1.5, 1.9, 2.8, 4.05):
        inverse = (sigma / r) ** 6
        x, at_cutoff = r / cutoff, (sigma / cutoff) ** 6
        expected = 4 * epsilon * (inverse**2 - inverse)
        if mode == "shifted":
            expected -= 4 * epsilon * (at_cutoff**2 - at_cutoff)
        if mode == "smooth":
            expected *= 1 - 28 * x**6 + 48 * x**7 - 21 * x**8
        energies = laws.predict(model, Atoms("Ar2", [[0, 0, 0], [r, 0, 0]])).energies
        np.testing.assert_allclose(energies, [expected / 2] * 2, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mode": "full", "cutoff": 3.0}, "mode 'full' does not go with cutoff 3.0: 'full' has none"),
        ({"mode": "cut"}, "mode 'cut' does not go with cutoff None"),
        ({"mode": "soft"}, "expected mode 'cut', 'shifted', 'smooth' or 'full', got 'soft'"),
        ({"sigma": -1.0}, "positive.*-1.0"),
        ({"cutoff": 0.0}, "positive.*0.0"),
    ],
)
def test_lennard_jones_refuses_nonsense(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        LennardJones(**arguments)
