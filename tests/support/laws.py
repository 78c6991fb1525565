"""Laws that every model obeys, as functions that raise AssertionError. A model is anything `mdgnn.evaluate` takes.

Tolerances are relative to the sum of |e_i| (energies) and the largest force: `exact` for float64 arithmetic.
"""

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from mdgnn import Graph, MDGNNCalculator, evaluate
from mdgnn.potential import stress

EXACT = {torch.float64: 1e-11, torch.float32: 1e-4}


def predict(model, atoms, **wanted):
    return evaluate(model, Graph.from_atoms(atoms, model.cutoff), **wanted)


def random_rotation(rng):
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


def moved(atoms, matrix=None, shift=0.0):
    """The atoms and their cell under x -> matrix x + shift."""
    matrix = np.eye(3) if matrix is None else matrix
    out = atoms.copy()
    out.set_cell(atoms.cell.array @ matrix.T, scale_atoms=False)
    out.positions = atoms.positions @ matrix.T + shift
    return out


def _same(model, energies, forces, expected_energies, expected_forces):
    tolerance = EXACT[model.dtype]
    scale = max(1e-12, float(expected_energies.abs().sum()))
    assert float((energies - expected_energies).abs().max()) <= tolerance * scale
    largest = max(1e-9, float(expected_forces.abs().max()))
    assert float((forces - expected_forces).abs().max()) <= tolerance * max(largest, scale * 1e-3)


def assert_rotation(model, atoms, improper=False):
    """Energies stay, forces turn with the structure; `improper` adds an inversion."""
    matrix = random_rotation(np.random.default_rng(1)) * (-1 if improper else 1)
    a, b = predict(model, atoms), predict(model, moved(atoms, matrix))
    _same(model, b.energies, b.forces, a.energies, a.forces @ torch.tensor(matrix.T))


def assert_translation(model, atoms):
    a, b = predict(model, atoms), predict(model, moved(atoms, shift=[0.3, -1.7, 2.1]))
    _same(model, b.energies, b.forces, a.energies, a.forces)


def assert_permutation(model, atoms):
    order = np.random.default_rng(2).permutation(len(atoms))
    a, b = predict(model, atoms), predict(model, atoms[order])
    _same(model, b.energies, b.forces, a.energies[order], a.forces[order])


def assert_no_net_force(model, atoms):
    forces = predict(model, atoms).forces
    assert float(forces.sum(0).abs().max()) <= 1e-10 * max(1.0, float(forces.abs().sum()))


def assert_forces_are_minus_gradient(model, atoms, step=1e-5):
    """F = -dE/dx by central differences; float64 models that are smooth at the cutoff."""
    forces = predict(model, atoms).forces
    scale = float(forces.abs().max()) + 1e-3
    for atom, axis in [(0, 0), (0, 2), (len(atoms) // 2, 1), (len(atoms) - 1, 2)]:
        energy = []
        for sign in (1, -1):
            displaced = atoms.copy()
            displaced.positions[atom, axis] += sign * step
            energy.append(float(predict(model, displaced, forces=False).energy))
        assert abs(float(forces[atom, axis]) + (energy[0] - energy[1]) / (2 * step)) < 1e-6 * scale


def assert_stress_is_strain_derivative(model, atoms, step=1e-5):
    """stress = dE/d(strain) / volume by central differences, for all six components."""
    found = predict(model, atoms, virial=True)
    cell = torch.tensor(atoms.cell.array)[None]
    voigt = full_3x3_to_voigt_6_stress(stress(found.virial, cell)[0].numpy())
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energy = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[a, b] += 0.5 * sign * step
            strain[b, a] += 0.5 * sign * step
            energy.append(float(predict(model, moved(atoms, np.eye(3) + strain), forces=False).energy))
        expected = (energy[0] - energy[1]) / (2 * step) / atoms.get_volume()
        assert abs(voigt[k] - expected) < 1e-6 * (np.abs(voigt).max() + 1e-3)


def assert_extensivity(model, atoms):
    """A repeated periodic cell, and two copies out of reach, have multiples of the energy."""
    if atoms.pbc.any():
        a, b = predict(model, atoms), predict(model, atoms * (2, 1, 1))
    else:
        far = atoms.copy()
        far.positions += 50.0
        a, b = predict(model, atoms), predict(model, atoms + far)
    _same(model, b.energies, b.forces, a.energies.repeat(2), a.forces.repeat(2, 1))


def assert_batch_equals_singles(model, many):
    graph = Graph.batch([Graph.from_atoms(a, model.cutoff) for a in many])
    together = evaluate(model, graph, virial=True)
    for s, atoms in enumerate(many):
        alone = predict(model, atoms, virial=True)
        mask = graph.structure == s
        _same(model, together.energies[mask], together.forces[mask], alone.energies, alone.forces)
        torch.testing.assert_close(together.virial[s], alone.virial[0], rtol=1e-4, atol=1e-4)


def assert_smooth_at_the_cutoff(model, symbol="Ar"):
    """A dimer's energy has no step where the pair crosses the cutoff."""
    inside, outside = (
        float(predict(model, Atoms(f"{symbol}2", [[0, 0, 0], [model.cutoff + dr, 0, 0]]), forces=False).energy)
        for dr in (-1e-6, 1e-6)
    )
    assert abs(inside - outside) < 1e-8


def assert_bitwise_repeatable(model, atoms):
    first = predict(model, atoms, virial=True)
    for n_threads in (1, 2, torch.get_num_threads()):
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        again = predict(model, atoms, virial=True)
        torch.set_num_threads(before)
        for a, b in zip(first[:5], again[:5], strict=True):
            assert torch.equal(a, b), f"bits differ with {n_threads} threads"


def assert_nve_drift_is_second_order(model, atoms, steps=400, dt=0.004):
    """Energy fluctuations of velocity Verlet fall fourfold when the time step is halved."""
    from ase.md.verlet import VelocityVerlet

    spread = []
    for factor in (1, 2):
        copy = atoms.copy()
        copy.set_masses(np.ones(len(copy)))
        copy.calc = MDGNNCalculator(model, dtype="float64")
        copy.set_velocities(np.random.default_rng(3).normal(0, 0.4, (len(copy), 3)))
        energies = []
        with VelocityVerlet(copy, dt / factor) as md:
            for _ in md.irun(steps * factor):
                energies.append(copy.get_total_energy())
        spread.append(np.std(energies))
    assert 3.2 < spread[0] / spread[1] < 4.8


def assert_equal(ours, theirs, dtype):
    """To rounding: energies relative to the sum of their sizes, or to 1 an atom, forces and virials to the largest."""
    of_energy, of_forces = {torch.float64: (1e-12, 1e-12), torch.float32: (1e-6, 2e-5)}[dtype]
    scale = max(float(theirs.energies.abs().sum()), len(theirs.energies))
    assert float((ours.energy - theirs.energy).abs().max()) <= of_energy * scale
    assert float((ours.energies - theirs.energies).abs().max()) <= of_energy * scale
    for a, b in ((ours.forces, theirs.forces), (ours.virial, theirs.virial), (ours.virials, theirs.virials)):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert float((a - b).abs().max()) <= of_forces * max(float(b.abs().max()), 1e-3)
