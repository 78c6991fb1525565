"""LennardJones against known minima and ASE's calculator."""

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
    np.testing.assert_allclose(ours.get_forces(atoms), expected.get_forces(atoms), atol=1e-11 * scale)
    if atoms.pbc.all():
        np.testing.assert_allclose(ours.get_stress(atoms), expected.get_stress(atoms), atol=1e-11 * scale)


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
