"""The least squares that the shipped `lj` comes from: columns and network are the same function."""

import lj_fit
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from systems import icosahedron

import mdgnn
from mdgnn import Graph, LennardJones, MDGNNCalculator, evaluate


def box(seed):
    atoms = bulk("Ar", "fcc", a=1.65, cubic=True) * 3
    atoms.positions += np.random.default_rng(seed).normal(0, 0.05, atoms.positions.shape)
    return atoms


def test_columns_are_those_of_the_network():
    """Energy, forces and stress of a network that was given coefficients at random are the columns times these."""
    model = lj_fit.empty_model()
    pairs = lj_fit.Pairs(model)
    rng = np.random.default_rng(0)
    phi, repulsions = rng.normal(0, 1, lj_fit.N_BASIS), rng.uniform(0.1, 1, len(lj_fit.RATES))
    solution = np.concatenate([phi, repulsions, rng.normal(0, 1, len(lj_fit.OF_NEIGHBOURS)), [0.7]])
    lj_fit.fill(model, pairs, solution)
    for atoms in (icosahedron(2, 0.05), box(0), Atoms("Ar2", [[0, 0, 0], [0.8, 0, 0]])):
        of = lj_fit.columns(atoms, pairs)
        ours = evaluate(model.double(), Graph.from_atoms(atoms, model.cutoff), virial=True)
        virial = -ours.virial[0].numpy()[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
        expected = ours.energy.numpy(), ours.forces.numpy().ravel(), virial
        for rows, values in zip((of.energy, of.forces, of.virial), expected, strict=True):
            # Tables are that far off a function as rough as this one.
            np.testing.assert_allclose(rows @ solution, values.squeeze(), atol=2e-4 * np.abs(values).max())


def test_a_potential_of_pairs_is_recovered():
    """From a few boxes: one that is zero from the cutoff on, in a box that it has not seen."""
    model = lj_fit.empty_model()
    pairs = lj_fit.Pairs(model)
    frames = [box(seed) for seed in range(1, 5)]
    exact = MDGNNCalculator(LennardJones(cutoff=2.5, mode="smooth"), dtype="float64")
    for atoms in frames:
        atoms.calc = exact
        labels = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **labels)
    lj_fit.fill(model, pairs, lj_fit.fit(frames[:3], pairs))
    ours = evaluate(model, Graph.from_atoms(frames[3], model.cutoff))
    assert abs(float(ours.energy) - frames[3].get_potential_energy()) < 1e-3 * len(frames[3])
    wrong = np.abs(ours.forces.numpy() - frames[3].get_forces()).sum() / np.abs(frames[3].get_forces()).sum()
    assert wrong < 0.01


def test_the_shipped_model_is_such_a_network():
    """Of the shape that the script makes, small, with the wall that dimers and crowded clusters taught it."""
    model = mdgnn.load("lj")
    assert model.config == lj_fit.empty_model(model.min_distance).config and 0.5 < model.min_distance < 0.55
    pair = Graph.from_atoms(Atoms("Ar2", [[0, 0, 0], [0.6, 0, 0]]), model.cutoff)
    exact = float(evaluate(LennardJones().double(), pair).energy)
    assert float(evaluate(model, pair).energy) == pytest.approx(exact, rel=0.01)
