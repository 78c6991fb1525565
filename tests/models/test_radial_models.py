"""SchNet and PaiNN: their equations edge by edge, files, options, edge cases. Training: test_radial_training.py."""

import re
from dataclasses import replace

import laws
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from kernels import dtypes
from systems import SYSTEMS, crystal, icosahedron, radial, water

import mdgnn
from mdgnn import Graph, MDGNNCalculator, PaiNN, SchNet, evaluate

both = pytest.mark.parametrize("architecture", ["SchNet", "PaiNN"])
modes = pytest.mark.parametrize("filters", ["table", "direct"])


def directed_graph(n=5, n_edges=11):
    """Edges in any order that are not symmetric; atom 1 receives none."""
    rng = np.random.default_rng(0)
    ends = rng.integers(0, n, (2, n_edges))
    ends[0, ends[0] == ends[1]] += 1
    ends[1, ends[1] == 1] = 0
    ends = ends[:, (ends[0] < n) & (ends[0] != ends[1])]
    positions = torch.tensor(rng.normal(0, 0.8, (n, 3)))
    return positions, torch.tensor(ends)


def distances_and_filters(model, positions, ends):
    vectors = positions[ends[0]] - positions[ends[1]]
    r = vectors.norm(dim=1)
    x = (r / model.cutoff).clamp(max=1)
    envelope = (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)[:, None]
    basis = model.filters.basis(r)
    return vectors / r[:, None], [network(basis) * envelope for network in model.filters.networks]


def schnet_formula(model, positions, ends):
    """Atomic energies, edge by edge from the equations."""
    _, filters = distances_and_filters(model, positions, ends)
    h = model.embedding.weight[torch.ones(len(positions), dtype=torch.int64)]
    for interaction, f in zip(model.interactions, filters, strict=True):
        x = h @ interaction.project.weight.t()
        total = [torch.zeros_like(h[0]) for _ in h]
        for k, (j, i) in enumerate(ends.t().tolist()):
            total[i] = total[i] + x[j] * f[k]
        h = h + interaction.update(torch.stack(total))
    return model.output_mlp(h).squeeze(1)


def painn_formula(model, positions, ends):
    """Atomic energies, edge by edge from the equations."""
    unit, filters = distances_and_filters(model, positions, ends)
    s = model.embedding.weight[torch.ones(len(positions), dtype=torch.int64)]
    n, width = s.shape
    v = torch.zeros(n, 3, width, dtype=s.dtype)
    for layer, f in zip(model.layers, filters, strict=True):
        x, ds, dv = layer.message_mlp(s), [torch.zeros(width)] * n, [torch.zeros(3, width)] * n
        for k, (j, i) in enumerate(ends.t().tolist()):
            a, b, c = (x[j] * f[k]).chunk(3)
            ds[i] = ds[i] + a
            dv[i] = dv[i] + torch.outer(unit[k], b) + v[j] * c
        s, v = s + torch.stack(ds), v + torch.stack(dv)
        p, q = torch.einsum("ncf,gf->ncg", v, layer.mix.weight).chunk(2, dim=2)
        norm = torch.sqrt(torch.einsum("ncf,ncf->nf", p, p) + 1e-8)
        a, b, c = layer.update_mlp(torch.cat([s, norm], 1)).chunk(3, dim=1)
        s, v = s + a + c * torch.einsum("ncf,ncf->nf", p, q), v + torch.einsum("nf,ncf->ncf", b, q)
    return model.output_mlp(s).squeeze(1)


FORMULAS = {"SchNet": schnet_formula, "PaiNN": painn_formula}


@both
@pytest.mark.parametrize("basis", ["gaussian", "bessel", "exponential"])
def test_equals_its_equations(architecture, basis):
    """Of any graph; energies, derivatives for the positions, and gradients of a loss on both."""
    model = radial(architecture, filters="direct", basis=basis)
    positions, ends = directed_graph()
    found = []
    for formula in (True, False):
        r = positions.clone().requires_grad_()
        if formula:
            energies = FORMULAS[architecture](model, r, ends)
        else:
            graph = Graph.from_edge_index(torch.full((5,), 18), r, ends)
            energies = model.atomic_energies(graph, graph.vectors)
        (force,) = torch.autograd.grad(energies.sum(), r, create_graph=True)
        loss = energies.square().sum() + force.square().sum()
        found.append((energies, force, *torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)))
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10 * float(expected.detach().abs().max()))


@pytest.mark.parametrize(("f", "n", "b", "elements"), [(64, 3, 20, "any"), (7, 2, 5, [1, 6, 8]), (1, 1, 2, [1])])
def test_number_of_parameters(f, n, b, elements):
    rows = 2 if elements == "any" else 1 + len(elements)
    hidden = max(1, f // 2)
    fixed = rows * f + (f * hidden + hidden) + (hidden + 1)
    schnet = (b * f + f) + (f * f + f) + f * f + 2 * (f * f + f)
    painn = (b * 3 * f + 3 * f) + (f * f + f) + (f * 3 * f + 3 * f) + 2 * f * f + (2 * f * f + f) + (3 * f * f + 3 * f)
    for make, per_layer in ((SchNet, schnet), (PaiNN, painn)):
        model = make(f, n, b, elements=elements)
        assert sum(p.numel() for p in model.parameters()) == fixed + n * per_layer


@both
def test_receptive_field_is_one_cutoff_per_layer(architecture):
    model = radial(architecture)  # two layers, cutoff 2.5
    chain = Atoms("Ar6", [[2.0 * k, 0, 0] for k in range(6)])
    before = laws.predict(model, chain).energies
    chain.positions[0, 1] += 0.3
    changed = (laws.predict(model, chain).energies != before).tolist()
    assert changed == [True, True, True, False, False, False]


def test_painn_sees_angles_and_schnets_first_layer_does_not():
    """One layer: an atom's energy in SchNet depends on its distances alone."""
    bent, straight = (Atoms("Ar3", [[0, 0, 0], [1.0, 0, 0], end]) for end in ([0, 1.0, 0], [-1.0, 0, 0]))
    for make, same in ((SchNet, True), (PaiNN, False)):
        torch.manual_seed(0)
        model = make(8, 1, 6, cutoff=1.3).double()  # the outer atoms do not see each other
        a, b = (float(laws.predict(model, atoms, forces=False).energies[0]) for atoms in (bent, straight))
        assert abs(a - b) < 1e-12 if same else abs(a - b) > 1e-4


@dtypes
def test_where_painns_vectors_vanish_by_symmetry_rounding_is_amplified(dtype):
    """|p| = sqrt(<p, p> + 1e-8) has curvature 1e4 at p = 0: a perfect surface keeps its symmetry to that factor."""
    turned = laws.moved(SYSTEMS["slab"], laws.random_rotation(np.random.default_rng(1)))
    a, b = (laws.predict(radial("PaiNN", dtype), atoms).energies for atoms in (SYSTEMS["slab"], turned))
    assert float((a - b).abs().max()) < 1e4 * torch.finfo(dtype).eps * float(a.abs().sum())


@both
def test_per_element_shift_and_scale(architecture):
    torch.manual_seed(0)
    make = getattr(mdgnn, architecture)
    plain = make(8, elements=[1, 8]).double()
    shifted = make(8, elements=[1, 8], shift=[-13.5, -2000.25], scale=[2.0, 0.5]).double()
    shifted.load_state_dict(plain.state_dict())
    a, b = laws.predict(plain, water()).energies, laws.predict(shifted, water()).energies
    expected = a * torch.tensor([0.5, 2.0, 2.0]) + torch.tensor([-2000.25, -13.5, -13.5])
    torch.testing.assert_close(b, expected, rtol=1e-12, atol=0)


@both
def test_mean_readout_is_intensive(architecture):
    model = radial(architecture, readout="mean")
    a, b = laws.predict(model, crystal()), laws.predict(model, crystal() * (2, 1, 1))
    assert float(a.energy) == pytest.approx(float(b.energy), rel=1e-12)
    laws.assert_forces_are_minus_gradient(model, icosahedron(2, 0.05))


@both
@modes
@dtypes
def test_graphs_without_edges_or_atoms(architecture, filters, dtype):
    model = radial(architecture, dtype, filters=filters)
    none = torch.zeros(2, 0, dtype=torch.int64)
    for n in (0, 1, 3):
        graph = Graph.from_edge_index(torch.full((n,), 18), torch.zeros(n, 3), none)
        found = evaluate(model, graph, virial=True, create_graph=True)
        assert found.forces.shape == (n, 3) and not found.forces.any() and not found.virial.any()
        assert found.energy.shape == (1,) and (n == 0 or len(set(found.energies.tolist())) == 1)
        found.energy.sum().backward()


@both
def test_two_atoms_at_one_place_give_finite_numbers(architecture):
    found = evaluate(radial(architecture), Graph.from_edge_index(*coincident()))
    assert all(torch.isfinite(t).all() for t in (found.energies, found.forces))


def coincident():
    return torch.full((3,), 18), torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]]), torch.tensor([[0, 1, 2], [1, 0, 0]])


@both
@dtypes
def test_model_file_and_calculator(architecture, dtype, tmp_path):
    """A model from a file gives the same bits, also through the calculator; tables and direct filters share files."""
    elements = [11, 17]
    torch.manual_seed(0)
    model = getattr(mdgnn, architecture)(16, 2, elements=elements, shift=[-1.0, -2.0]).to(dtype)
    mdgnn.save(model, tmp_path / "m.safetensors")
    again = mdgnn.load(tmp_path / "m.safetensors")
    assert again.config == model.config and again.dtype == dtype
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True)
    atoms.rattle(0.1, seed=0)
    a, b = laws.predict(model, atoms), laws.predict(again, atoms)
    assert torch.equal(a.energies, b.energies) and torch.equal(a.forces, b.forces)
    engine = mdgnn.Engine(model).evaluate(Graph.from_atoms(atoms, model.cutoff))
    for backend, expected in (("torch", a), ("engine", engine)):
        calc = MDGNNCalculator(tmp_path / "m.safetensors", dtype=str(dtype).split(".")[1], backend=backend)
        np.testing.assert_array_equal(calc.get_forces(atoms), expected.forces.numpy())
    direct = getattr(mdgnn, architecture)(replace(model.config, filters="direct")).to(dtype)
    direct.load_state_dict(model.state_dict())


@both
def test_unknown_elements_are_named(architecture):
    model = getattr(mdgnn, architecture)(8, elements=[1, 8])
    with pytest.raises(ValueError, match=r"out of \[1, 8\], got 6 for atom 0"):
        laws.predict(model, molecule("CH4"))
    with pytest.raises(ValueError, match=r"elements H, O; atom 0 is C"):
        MDGNNCalculator(model).get_potential_energy(molecule("CH4"))


@both
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n_features": 0}, "a positive n_features, got 0"),
        ({"n_interactions": 0}, "a positive n_interactions, got 0"),
        ({"n_basis": 0, "basis": "gaussian"}, "two Gaussians or more, whose spacing is their width, got 0"),
        ({"n_basis": 0, "basis": "bessel"}, "one Bessel function or more, got 0"),
        ({"cutoff": 0.0}, "a positive cutoff, got 0.0"),
        ({"basis": "chebyshev"}, "basis to be one of 'bessel', 'exponential', 'gaussian', got 'chebyshev'"),
        ({"envelope": None}, "envelope to be one of 'cosine', 'polynomial', got None"),
        ({"elements": [1, 1]}, "different atomic numbers from 1 to 119, got [1, 1]"),
        ({"elements": [0]}, "different atomic numbers from 1 to 119, got [0]"),
        ({"elements": None}, "elements as 'any' or a list of atomic numbers, got None"),
        ({"filters": "spline"}, "filters to be one of 'direct', 'table', got 'spline'"),
        ({"n_knots": 1}, "two knots or more, got n_knots = 1"),
        ({"readout": "max"}, "readout to be one of 'sum', 'mean', got 'max'"),
        ({"units": "ev"}, "units to be one of 'metal', 'lj', got 'ev'"),
        ({"elements": [1, 8], "shift": [1.0, 2.0, 3.0]}, "one shift and scale for each of the 2 elements, got 3"),
    ],
    ids=lambda a: "-".join(a) if isinstance(a, dict) else "",
)
def test_refuses_nonsense(architecture, arguments, sentence):
    with pytest.raises(ValueError, match=f"^expected {re.escape(sentence)}$"):
        getattr(mdgnn, architecture)(**arguments)


@both
def test_unknown_options_are_named(architecture):
    with pytest.raises(TypeError, match=f"{architecture} has no option 'n_knot'; options are .*n_knots"):
        getattr(mdgnn, architecture)(n_knot=5)
