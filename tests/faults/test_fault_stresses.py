"""ASE's own tests: stresses of atoms were missing. Their sum is the stress; each is the virial of its atom."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.lj import LennardJones as ASELennardJones
from systems import crystal, gnn, radial, slab, triclinic

import mdgnn
from mdgnn import Graph, LennardJones, MDGNNCalculator, evaluate

MODELS = {
    "SimpleGNN": lambda: gnn(torch.float64),
    "SchNet": lambda: radial("SchNet", torch.float64),
    "PaiNN": lambda: radial("PaiNN", torch.float64),
    "LennardJones": lambda: LennardJones(cutoff=2.5),
}
STRUCTURES = {"crystal": crystal, "triclinic": triclinic, "slab": slab}
CASES = [(n, b) for n in MODELS for b in ("engine", "torch") if (n, b) != ("LennardJones", "engine")]
cases = pytest.mark.parametrize(("name", "backend"), CASES)


@cases
@pytest.mark.parametrize("structure", STRUCTURES)
def test_their_sum_is_the_stress(name, backend, structure):
    atoms = STRUCTURES[structure]()
    atoms.calc = MDGNNCalculator(MODELS[name](), dtype="float64", backend=backend)
    stresses = atoms.get_stresses()
    assert stresses.shape == (len(atoms), 6) and atoms.get_stresses(voigt=False).shape == (len(atoms), 3, 3)
    np.testing.assert_allclose(stresses.sum(axis=0), atoms.get_stress(), rtol=1e-12, atol=1e-15)
    (batched,) = atoms.calc.evaluate(atoms, stress=True)
    np.testing.assert_allclose(batched["stresses"], stresses, rtol=1e-9, atol=1e-12)


@cases
def test_finite_differences_of_a_division(name, backend):
    """A third of the atoms are strained: edges within it by all of it, edges that leave it by half."""
    model, atoms = MODELS[name](), crystal()
    atoms.calc = MDGNNCalculator(model, dtype="float64", backend=backend)
    graph = Graph.from_atoms(atoms, model.cutoff)
    part = torch.zeros(len(atoms), dtype=torch.float64)
    part[::3] = 1
    share = (part[graph.receivers] + part[graph.senders]) / 2
    rng = np.random.default_rng(0)
    strain = torch.from_numpy(rng.normal(0, 1, (3, 3)))
    strain = (strain + strain.T) / 2

    def energy(size):
        vectors = graph.vectors + size * share[:, None] * (graph.vectors @ strain)
        return evaluate(model, replace(graph, vectors=vectors), forces=False).energy.item()

    expected = (energy(1e-5) - energy(-1e-5)) / 2e-5
    stresses = atoms.get_stresses(voigt=False)[::3].sum(axis=0)
    assert atoms.get_volume() * float((stresses * strain.numpy()).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_as_those_of_ase():
    """Of its Lennard-Jones potential, which halves pairs as well."""
    atoms = crystal()
    atoms.calc = MDGNNCalculator(LennardJones(cutoff=2.5, mode="shifted"), dtype="float64")
    stresses = atoms.get_stresses()
    atoms.calc = ASELennardJones(sigma=1, epsilon=1, rc=2.5)
    np.testing.assert_allclose(stresses, atoms.get_stresses(), rtol=1e-9, atol=1e-10)


def test_only_where_the_cell_has_a_volume():
    atoms = crystal()
    atoms.pbc, atoms.cell = False, None
    atoms.calc = MDGNNCalculator("lj")
    with pytest.raises(PropertyNotImplementedError, match="positive volume"):
        atoms.get_stresses()
    atoms.get_potential_energy()
    assert "stresses" not in atoms.calc.results


def test_of_an_ensemble():
    atoms = crystal()
    atoms.calc = mdgnn.Ensemble(["lj", "lj"])
    np.testing.assert_allclose(atoms.get_stresses().sum(axis=0), atoms.get_stress(), rtol=1e-9)
