"""SimpleGNN: the lecture's code as oracle, and what goes beyond the lecture."""

import re
from dataclasses import replace

import laws
import numpy as np
import pytest
import torch
from ase import Atoms
from kernels import dtypes
from lecture_code import LectureGNN
from systems import crystal, gnn, icosahedron, water

import mdgnn
from mdgnn import Graph, SimpleGNN, evaluate


def pair_of_models(seed=0, dtype=torch.float64, **arguments):
    """The lecture's network in float64, and ours in `dtype` with its weights."""
    torch.manual_seed(seed)
    lecture = LectureGNN(**arguments).double()
    ours = SimpleGNN(**arguments).double()
    ours.load_state_dict(lecture.state_dict())
    return lecture, ours.to(dtype)


def lecture_energy_and_forces(lecture, z, positions, edge_index):
    r = torch.as_tensor(positions, dtype=torch.float64).clone().requires_grad_()
    energy = lecture(z, r, edge_index)
    (g,) = torch.autograd.grad(energy, r)
    return float(energy.detach()), -g


def test_has_the_lectures_parameters():
    ours, lecture = SimpleGNN(), LectureGNN()
    assert sum(p.numel() for p in ours.parameters()) == 21585
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in lecture.state_dict().items()}
    assert torch.equal(ours.rbf_centers, torch.linspace(0.5, 5.0, 16)) and ours.rbf_width == 0.5


@dtypes
@pytest.mark.parametrize("atoms", [icosahedron(2, 0.05), icosahedron(3, 0.05), icosahedron(4), water()], ids=len)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "any-graph"])
@pytest.mark.parametrize("filters", ["table", "direct"])
def test_equals_the_lecture(dtype, atoms, symmetric, filters):
    """In float64 energies to 1e-12 of sum |e_i| and forces to 1e-12 of the largest; float32 1e-6 and 2e-5.

    With a table less in float64, and no less in float32.
    """
    lecture, ours = pair_of_models(dtype=dtype)
    ours.config = replace(ours.config, filters=filters)
    z = torch.tensor(np.arange(len(atoms)) % 4)
    i, j = mdgnn.neighbor_list("ij", atoms, 3.5)
    edge_index = torch.tensor(np.stack([j, i]))[:, torch.randperm(len(i))]
    if not symmetric:
        edge_index = edge_index[:, : 2 * len(i) // 3]
    energy, forces = lecture_energy_and_forces(lecture, z, atoms.positions, edge_index)
    exact = {torch.float64: (1e-12, 1e-12), torch.float32: (1e-6, 2e-5)}[dtype]
    tolerance = (2e-11, 5e-7) if dtype == torch.float64 and filters == "table" else exact
    graph = Graph.from_edge_index(z, torch.tensor(atoms.positions), edge_index)
    prediction = evaluate(ours, graph)
    scale = float(prediction.energies.abs().sum())
    assert abs(float(prediction.energy) - energy) <= tolerance[0] * scale
    assert float((prediction.forces - forces).abs().max()) <= tolerance[1] * float(forces.abs().max())
    r = torch.tensor(atoms.positions, requires_grad=True)  # and through the lecture's call
    called = ours(z, r, edge_index)
    assert called.ndim == 0 and called.dtype == dtype
    assert abs(float(called.detach()) - energy) <= exact[0] * scale
    (g,) = torch.autograd.grad(called, r)
    assert float((-g - forces).abs().max()) <= tolerance[1] * float(forces.abs().max())


def test_batches_as_the_lecture_does():
    lecture, ours = pair_of_models()
    parts = [icosahedron(2, 0.05, seed) for seed in range(3)] + [Atoms("Ar")]
    lists = [mdgnn.neighbor_list("ij", a, 3.5) for a in parts]
    offsets = np.cumsum([0, *map(len, parts[:-1])])
    edge_index = torch.tensor(
        np.concatenate([np.stack([j, i]) + o for (i, j), o in zip(lists, offsets, strict=True)], axis=1)
    )
    batch = torch.tensor(np.repeat(range(4), [len(a) for a in parts]))
    z = torch.ones(len(batch), dtype=torch.int64)
    positions = torch.tensor(np.concatenate([a.positions for a in parts]))
    expected, actual = lecture(z, positions, edge_index, batch), ours(z, positions, edge_index, batch)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_gradients_of_weights_equal_the_lectures():
    """Training on energies follows the lecture; training on forces needs the second derivative."""
    lecture, ours = pair_of_models()
    atoms = icosahedron(2, 0.05)
    z = torch.ones(13, dtype=torch.int64)
    edge_index = torch.tensor(np.stack(mdgnn.neighbor_list("ji", atoms, 3.5)))
    grads = []
    for model in (lecture, ours):
        r = torch.tensor(atoms.positions, requires_grad=True)
        energy = model(z, r, edge_index)
        (force,) = torch.autograd.grad(energy, r, create_graph=True)
        loss = energy + force.square().sum()
        trained = [p for p in model.parameters() if p.requires_grad]
        grads.append(torch.autograd.grad(loss, trained))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(a.abs().max() + 1e-12))


def test_mean_with_envelope_is_a_weighted_mean():
    """mean = sum c m / (1 + sum c), against the formula written out edge by edge."""
    model = gnn(aggregation="mean")
    atoms = icosahedron(2, 0.05)
    i, j, d = (torch.tensor(a) for a in mdgnn.neighbor_list("ijd", atoms, 2.5))
    h = model.atom_embedding(torch.ones(13, dtype=torch.int64))
    basis = torch.exp(-((d[:, None] - model.rbf_centers) ** 2) / (2 * model.rbf_width**2))
    x = d / 2.5
    c = (1 - 28 * x**6 + 48 * x**7 - 21 * x**8)[:, None]
    for layer in model.layers:
        m = layer.message_mlp(torch.cat([h[j], h[i], basis], dim=1))
        total = torch.zeros(13, 8, dtype=torch.float64).index_add(0, i, c * m)
        norm = 1 + torch.zeros(13, 1, dtype=torch.float64).index_add(0, i, c)
        h = h + layer.update_mlp(torch.cat([h, total / norm], dim=1))
    torch.testing.assert_close(laws.predict(model, atoms).energies, model.output_mlp(h).squeeze(1), rtol=1e-11, atol=0)


def test_max_takes_the_maximum_of_whole_messages():
    model = gnn(aggregation="max", envelope=None)
    atoms = icosahedron(2, 0.05)
    i, j, d = (torch.tensor(a) for a in mdgnn.neighbor_list("ijd", atoms, 2.5))
    h = model.atom_embedding(torch.ones(13, dtype=torch.int64))
    basis = torch.exp(-((d[:, None] - model.rbf_centers) ** 2) / (2 * model.rbf_width**2))
    for layer in model.layers:
        m = layer.message_mlp(torch.cat([h[j], h[i], basis], dim=1))
        total = torch.stack([m[i == k].amax(0) for k in range(13)])
        h = h + layer.update_mlp(torch.cat([h, total], dim=1))
    torch.testing.assert_close(laws.predict(model, atoms).energies, model.output_mlp(h).squeeze(1), rtol=1e-11, atol=0)


def test_per_element_shift_and_scale():
    torch.manual_seed(0)
    plain = SimpleGNN(elements=[1, 8], envelope="cosine").double()
    shifted = SimpleGNN(elements=[1, 8], envelope="cosine", shift=[-13.5, -2000.25], scale=[2.0, 0.5]).double()
    shifted.load_state_dict(plain.state_dict())
    a, b = laws.predict(plain, water()).energies, laws.predict(shifted, water()).energies
    expected = a * torch.tensor([0.5, 2.0, 2.0]) + torch.tensor([-2000.25, -13.5, -13.5])
    torch.testing.assert_close(b, expected, rtol=1e-12, atol=0)


def test_energies_are_summed_in_float64():
    """A large shift must not swallow energy differences in float32."""
    plain, shifted = gnn(torch.float32), gnn(torch.float32, shift=-2000.123456789)
    for atoms in (icosahedron(3), icosahedron(3, 0.01)):
        a, b = laws.predict(plain, atoms), laws.predict(shifted, atoms)
        assert a.energy.dtype == b.energy.dtype == torch.float64
        assert float(b.energy - a.energy) == pytest.approx(-2000.123456789 * 55, abs=1e-8)


def test_mean_readout_is_intensive():
    model = gnn(readout="mean")
    a, b = laws.predict(model, crystal()), laws.predict(model, crystal() * (2, 1, 1))
    assert float(a.energy) == pytest.approx(float(b.energy), rel=1e-12)
    for atoms in (crystal(), icosahedron(2, 0.05)):  # 32 atoms, and 13, which are padded
        laws.assert_forces_are_minus_gradient(model, atoms)
    laws.assert_batch_equals_singles(model, [icosahedron(2, 0.05), crystal(), Atoms("Ar"), icosahedron(3, 0.05)])


def test_receptive_field_is_one_cutoff_per_layer():
    model = gnn()  # two layers, cutoff 2.5
    chain = Atoms("Ar6", [[2.0 * k, 0, 0] for k in range(6)])
    before = laws.predict(model, chain).energies
    chain.positions[0, 1] += 0.3
    changed = (laws.predict(model, chain).energies != before).tolist()
    assert changed == [True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("z", "known"), [([1, 4], "0 .. 3"), ([-1, 1], "0 .. 3"), ([1, 10**6], "0 .. 3"), ([1, 2], "[1, 8]")]
)
def test_unknown_elements_are_named(z, known):
    model = SimpleGNN(elements=[1, 8]) if known.startswith("[") else SimpleGNN()
    bad = 0 if z[0] < 0 else 1
    with pytest.raises(ValueError, match=f"atom {bad}") as error:
        model(torch.tensor(z), torch.eye(3)[:2], torch.tensor([[0, 1], [1, 0]]))
    assert known in str(error.value) and str(z[bad]) in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"envelope": "gaussian"}, "envelope to be one of None, 'cosine', 'polynomial', got 'gaussian'"),
        ({"aggregation": "median"}, "aggregation to be one of 'sum', 'mean', 'max', got 'median'"),
        ({"readout": "max"}, "readout to be one of 'sum', 'mean', got 'max'"),
        ({"cutoff": -1.0}, "a positive cutoff, got -1.0"),
        ({"units": "ev"}, "units to be one of 'metal', 'lj', got 'ev'"),
        ({"basis": "bessel"}, "a basis as (first centre, last centre, width) or 'exponential', got 'bessel'"),
        ({"basis": [1.0, 2.0]}, "a basis as (first centre, last centre, width) or 'exponential', got [1.0, 2.0]"),
        ({"basis": [0, 5, 0]}, "a positive width of the basis, got 0.0"),
        ({"basis_start": 0.5}, "a basis_start for the basis 'exponential' or of even Gaussians alone, got 0.5"),
        ({"basis": "exponential", "basis_start": 3.5}, "a basis_start from 0 to the cutoff of 3.5, got 3.5"),
        ({"basis": "exponential", "basis_start": -1}, "a basis_start from 0 to the cutoff of 3.5, got -1"),
    ],
)
def test_simple_gnn_refuses_nonsense(arguments, sentence):
    with pytest.raises(ValueError, match=f"^expected {re.escape(sentence)}$"):
        SimpleGNN(**arguments)


def test_unknown_options_are_named():
    with pytest.raises(TypeError, match="no option 'enveloppe'"):
        SimpleGNN(enveloppe="cosine")


def test_edge_index_out_of_range_and_wrong_shapes_get_a_sentence():
    model, z, r = SimpleGNN(), torch.ones(2, dtype=torch.int64), torch.eye(3)[:2]
    with pytest.raises(IndexError, match="expected 0 <= index < 2"):
        model(z, r, torch.tensor([[0], [2]]))
    for bad in (2, -1):
        with pytest.raises(IndexError, match=f"expected senders from 0 to 1, got {bad} to {bad}"):
            model(z, r, torch.tensor([[bad], [0]]))
    with pytest.raises(ValueError, match="edge_index of shape"):
        model(z, r, torch.tensor([0, 1]))
    assert model(z, r, torch.zeros(2, 0, dtype=torch.int64)).ndim == 0
    assert model(z[:0], r[:0], torch.zeros(2, 0, dtype=torch.int64)).item() == 0.0


def test_compiles_without_graph_breaks():
    model = gnn(torch.float32).requires_grad_(False)
    graph = Graph.from_atoms(icosahedron(2), 2.5)
    model.atomic_energies(graph, graph.vectors.float())  # what a graph caches is made outside of the compiled part

    def energies(vectors):
        return model.atomic_energies(graph, vectors)

    compiled = torch.compile(energies, fullgraph=True, backend="aot_eager")
    v = graph.vectors.float().requires_grad_()
    torch.testing.assert_close(compiled(v), energies(v), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(v).sum(), v)[0], torch.autograd.grad(energies(v).sum(), v)[0]
    )


def test_training_on_energies_needs_no_table(monkeypatch):
    model, graph = SimpleGNN(), Graph.from_atoms(icosahedron(2, 0.05), 3.5)
    graph = replace(graph, atomic_numbers=graph.atomic_numbers % 4)
    tabulated = evaluate(model, graph, forces=False)
    monkeypatch.setattr(SimpleGNN, "_tabulate", None)
    trained = evaluate(model, graph, forces=False, create_graph=True)
    torch.testing.assert_close(trained.energies.detach(), tabulated.energies, rtol=1e-5, atol=1e-6)
