"""Laws that every model obeys, as functions that raise AssertionError. A model is anything `mdgnn.evaluate` takes.

Where two predictions are equal but for rounding, `rounding` says what that may do to the model and the structure.
Derivatives are compared with central differences, whose own errors are below 1e-6 of the largest force.
"""

import copy

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from mdgnn import Graph, MDGNNCalculator, evaluate
from mdgnn.potential import stress

EPS = {dtype: torch.finfo(dtype).eps for dtype in (torch.float32, torch.float64)}
WIDEST = {torch.float32: 1e-3, torch.float64: 1e-9}  # of the largest force: wider bounds would let faults pass
MARGIN = 16  # of roundings that add up; the largest that any model and structure here needs is 7


def predict(model, atoms, **options):
    return evaluate(model, Graph.from_atoms(atoms, model.cutoff), **options)


def rounding(model, atoms, far=0.0):
    """What rounding may do to energies, forces and the virial of a structure, on which two computations may differ.

    The numbers within a network are about one, or as large as its results: each rounds to `eps`. And atoms are moved:
    coordinates by the `eps` of float64, vectors of edges by that of the model. How the results answer to that is
    measured: atoms are displaced a little at random, in float64. `far`: coordinates that are reached on the way.
    """
    step, rng = 1e-7, np.random.default_rng(7)
    exact = model if model.dtype == torch.float64 else copy.deepcopy(model).to(torch.float64)
    base = predict(exact, atoms, virial=True)
    response = dict.fromkeys(("energies", "forces", "virial"), 0.0)
    for _ in range(2):
        displaced = atoms.copy()
        displaced.positions += rng.uniform(-step, step, atoms.positions.shape)
        other = predict(exact, displaced, virial=True)
        for name in response:
            change = float((getattr(other, name) - getattr(base, name)).abs().max()) / step
            response[name] = max(response[name], change)
    eps, reach = EPS[model.dtype], float(exact.cutoff)
    moved_by = EPS[torch.float64] * (np.abs(atoms.positions).max(initial=far) + far) + eps * min(reach, 5.0)
    sizes = {
        "energies": float(base.energies.abs().max()),
        "forces": float(base.forces.abs().max()),
        "virial": float(base.virials.abs().sum()),
    }
    bounds = {name: MARGIN * (eps * max(1.0, sizes[name]) + moved_by * response[name]) for name in sizes}
    least = 2 * MARGIN * eps  # what numbers about one come to
    assert bounds["forces"] <= least + WIDEST[model.dtype] * sizes["forces"], (
        f"this structure tests nothing: forces of {sizes['forces']:.3g} may be {bounds['forces']:.3g} apart"
    )
    return bounds


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


def _same(ours, expected, bounds):
    """Of energies, forces and, where they are given, virials."""
    for a, b, (name, bound) in zip(ours, expected, bounds.items(), strict=False):
        assert a.shape == b.shape and torch.isfinite(a).all()
        error = float((a - b).abs().max())
        assert error <= bound, f"{name}: {error:.3g} apart, where rounding makes {bound:.3g}"


def assert_rotation(model, atoms, improper=False):
    """Energies stay, forces and virial turn with the structure; `improper` adds an inversion."""
    matrix = random_rotation(np.random.default_rng(1)) * (-1 if improper else 1)
    a, b = (predict(model, structure, virial=True) for structure in (atoms, moved(atoms, matrix)))
    turn = torch.tensor(matrix)
    expected = a.energies, a.forces @ turn.T, turn @ a.virial @ turn.T
    _same((b.energies, b.forces, b.virial), expected, rounding(model, atoms))


def assert_translation(model, atoms):
    shift = [0.3, -1.7, 2.1]
    a, b = (predict(model, structure, virial=True) for structure in (atoms, moved(atoms, shift=shift)))
    _same((b.energies, b.forces, b.virial), (a.energies, a.forces, a.virial), rounding(model, atoms, max(shift)))


def assert_permutation(model, atoms):
    order = np.random.default_rng(2).permutation(len(atoms))
    a, b = (predict(model, structure, virial=True) for structure in (atoms, atoms[order]))
    expected = a.energies[order], a.forces[order], a.virial
    _same((b.energies, b.forces, b.virial), expected, rounding(model, atoms))


def assert_no_net_force(model, atoms):
    """They are sums, in float64, of terms that cancel."""
    forces = predict(model, atoms).forces
    assert float(forces.sum(0).abs().max()) <= MARGIN * EPS[torch.float64] * max(1.0, float(forces.abs().sum()))


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
    virial = predict(model, atoms, virial=True).virial
    cell = torch.tensor(atoms.cell.array)[None]
    voigt = full_3x3_to_voigt_6_stress(stress(virial, cell)[0].numpy())
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
    far = 50.0
    double = atoms * (2, 1, 1) if atoms.pbc.any() else atoms + moved(atoms, shift=far)
    a, b = predict(model, atoms), predict(model, double)
    expected = a.energies.repeat(2), a.forces.repeat(2, 1)
    _same((b.energies, b.forces), expected, rounding(model, atoms, far))


def assert_batch_equals_singles(model, structures):
    graph = Graph.batch([Graph.from_atoms(a, model.cutoff) for a in structures])
    together = evaluate(model, graph, virial=True)
    assert len(structures) > 1
    for s, atoms in enumerate(structures):
        alone = predict(model, atoms, virial=True)
        mask = graph.structure == s
        parts = together.energies[mask], together.forces[mask], together.virial[s]
        _same(parts, (alone.energies, alone.forces, alone.virial[0]), rounding(model, atoms))


def assert_smooth_at_the_cutoff(model, symbol="Ar"):
    """A dimer's energy has no step where the pair crosses the cutoff, and neither has its force."""

    def pair(r):
        prediction = predict(model, Atoms(f"{symbol}2", [[0, 0, 0], [r, 0, 0]]))
        return float(prediction.energy), float(prediction.forces[0, 0])

    (near, force_near), (inside, force_inside), (outside, force_outside) = (
        pair(r) for r in (0.9 * model.cutoff, model.cutoff - 1e-6, model.cutoff + 1e-6)
    )
    size, of_forces = abs(near - outside), abs(force_near)
    assert size > 1e-6 and of_forces > 1e-6, "this pair tests nothing: it does not feel each other within the cutoff"
    assert abs(inside - outside) < 1e-5 * size + 1e-14, f"a step of {inside - outside:.3g} at the cutoff"
    assert force_outside == 0
    assert abs(force_inside) < 1e-4 * of_forces, f"the force jumps by {force_inside:.3g} at the cutoff"


def assert_bitwise_repeatable(model, atoms):
    first, before = predict(model, atoms, virial=True), torch.get_num_threads()
    for n_threads in (1, 2, 3, before):
        torch.set_num_threads(n_threads)
        try:
            again = predict(model, atoms, virial=True)
        finally:
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
    """To rounding: the energies of atoms relative to the largest or to 1, their sum to the sum of those, forces and
    virials to the largest."""
    of_energy, of_sum, of_forces = {torch.float64: (1e-14, 1e-14, 1e-12), torch.float32: (4e-6, 1e-6, 2e-5)}[dtype]
    sizes = theirs.energies.abs().clamp(min=1)
    assert float((ours.energies - theirs.energies).abs().max()) <= of_energy * float(sizes.max())
    assert float((ours.energy - theirs.energy).abs().max()) <= of_sum * float(sizes.sum())
    for a, b in ((ours.forces, theirs.forces), (ours.virial, theirs.virial), (ours.virials, theirs.virials)):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert float((a - b).abs().max()) <= of_forces * max(float(b.abs().max()), 1e-3)
