"""The engine: equal to the torch path, the same bits always, and sentences where it cannot run."""

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from engines import with_given_tables
from kernels import assert_same_bits_for_any_number_of_threads, dtypes
from laws import assert_equal
from systems import SYSTEMS, crystal, gnn, icosahedron, radial, water

from mdgnn import Engine, Graph, NeighborList, PaiNN, SchNet, SimpleGNN, evaluate, load

MODELS = {
    "SimpleGNN": lambda dtype: gnn(dtype),
    "SimpleGNN without envelope": lambda dtype: gnn(dtype, envelope=None),
    "SimpleGNN, mean": lambda dtype: gnn(dtype, aggregation="mean"),
    "SimpleGNN, mean without envelope": lambda dtype: gnn(dtype, aggregation="mean", envelope=None),
    "SimpleGNN, exponential": lambda dtype: gnn(dtype, basis="exponential", basis_start=0.4),
    "SchNet": lambda dtype: radial("SchNet", dtype),
    "PaiNN": lambda dtype: radial("PaiNN", dtype),
    "SimpleGNN, repulsion": lambda dtype: gnn(dtype, repulsion=0.8),
    "SchNet, repulsion": lambda dtype: radial("SchNet", dtype, repulsion=0.8),
    "PaiNN, repulsion": lambda dtype: radial("PaiNN", dtype, repulsion=0.8),
    "lj": lambda dtype: load("lj").to(dtype),
}
models = pytest.mark.parametrize("name", list(MODELS))


def displaced(name):
    """A system of the law tests; at random, since PaiNN's |p| has a slope that is all rounding where p vanishes."""
    atoms = SYSTEMS[name].copy()
    atoms.positions += np.random.default_rng(1).normal(0, 0.03, atoms.positions.shape)
    return atoms


@models
@dtypes
@pytest.mark.parametrize("system", list(SYSTEMS))
def test_equals_the_torch_path(name, dtype, system):
    model = MODELS[name](dtype)
    graph = Graph.from_atoms(displaced(system), model.cutoff)
    ours = with_given_tables(model).evaluate(graph, virial=True)
    theirs = evaluate(model, graph, virial=True)
    if name == "lj" and dtype == torch.float32:
        # Terms of its last layer cancel, and torch sums them in float32: both are held to float64.
        in_float32, theirs = theirs, evaluate(model.double(), graph, virial=True)
        scale = float(theirs.energies.abs().clamp(min=1).sum())
        assert float((in_float32.energy - theirs.energy).abs().max()) <= 3e-6 * scale
        assert float((in_float32.forces - theirs.forces).abs().max()) <= 2e-5 * max(
            float(theirs.forces.abs().max()), 1e-3
        )
    assert_equal(ours, theirs, dtype)


@models
@dtypes
def test_tables_are_those_of_the_torch_path(name, dtype):
    """Made from the networks on its own, to the rounding of float64 or, where that is coarser, of the model."""
    model = MODELS[name](dtype)
    given = [w for w in with_given_tables(model).program.weights.values() if w.ndim == 3]
    made = list(Engine(model)._engine.tables().values())
    assert len(made) == len(given) > 0
    for ours, theirs in zip(map(torch.from_numpy, made), given, strict=True):
        tolerance = 1e-13 if dtype == torch.float64 else 1.2e-7
        for power in range(4):  # of t: their sum is the filter, whose size is that of the first
            a, b = ours[:, power].double(), theirs[:, power].double()
            assert float((a - b).abs().max()) <= tolerance * float(theirs[:, 0].abs().max())


@pytest.mark.parametrize("architecture", ["SimpleGNN", "SchNet", "PaiNN"])
def test_the_last_layer_is_summed_in_double(architecture):
    """Terms of it that cancel, a thousand times what is left of them, cost torch the digits; the engine keeps them."""
    dtype = torch.float32
    model = gnn(dtype) if architecture == "SimpleGNN" else radial(architecture, dtype)
    first, _, last = model.output_mlp
    half = first.out_features // 2
    with torch.no_grad():
        for layer in (first.weight, first.bias):
            layer[half:] = layer[:half]
        last.weight[0, half:] = last.weight[0, :half] - 1024
        last.weight[0, :half] = 1024
    graph = Graph.from_atoms(icosahedron(2, 0.05), model.cutoff)
    ours, theirs = Engine(model).evaluate(graph), evaluate(model, graph)
    true = evaluate(model.double(), graph)
    a, b = (float((each.energies - true.energies).abs().max()) for each in (ours, theirs))
    assert a < 0.1 * b


def test_shifts_and_scales_of_float32_networks_are_applied_in_double():
    """A large shift must not swallow energy differences."""
    graph, shift, scale = Graph.from_atoms(icosahedron(3, 0.05), 2.5), -2000.123456789, 1 / 3
    plain, shifted = (
        Engine(gnn(torch.float32, **options)).evaluate(graph).energies
        for options in ({"scale": 2.0}, {"shift": shift, "scale": scale})
    )
    assert plain.std() > 1e-3
    torch.testing.assert_close(shifted - shift, scale * (plain / 2), rtol=0, atol=1e-12)


@models
@dtypes
def test_equals_the_torch_path_for_a_batch(name, dtype):
    model = MODELS[name](dtype)
    graph = Graph.from_atoms([displaced(system) for system in SYSTEMS], model.cutoff)
    assert_equal(with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), dtype)


@pytest.mark.parametrize("architecture", [SimpleGNN, SchNet, PaiNN])
@pytest.mark.parametrize("width", [1, 3, 17, 33, 64, 96, 130])
def test_any_width(architecture, width):
    torch.manual_seed(0)
    options = {"elements": [1, 8], "cutoff": 2.5, "shift": [-3.0, 7.0], "scale": [0.5, 2.0], "units": "metal"}
    if architecture is SimpleGNN:
        model = SimpleGNN(2, width, 5, 2, envelope="cosine", **options)
    else:
        model = architecture(width, 2, 6, **options)
    graph = Graph.from_atoms([water(), water()], 2.5)
    assert_equal(
        with_given_tables(model.double()).evaluate(graph, virial=True),
        evaluate(model, graph, virial=True),
        torch.float64,
    )


@pytest.mark.parametrize("architecture", ["SchNet", "PaiNN"])
def test_mean_readout(architecture):
    model = radial(architecture, readout="mean")
    graph = Graph.from_atoms([icosahedron(2, 0.05), crystal()], model.cutoff)
    assert_equal(
        with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64
    )
    atoms = crystal()
    _, forces, _ = Engine(model).run(atoms.numbers, NeighborList(2.5).update(atoms.positions, atoms.cell, True))
    expected = evaluate(model, Graph.from_atoms(atoms, 2.5)).forces
    np.testing.assert_allclose(forces, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


@models
def test_forces_are_the_slope_of_the_energy(name):
    """By central differences: no other code of ours is in between."""
    engine, atoms = Engine(MODELS[name](torch.float64)), crystal()
    cutoff = engine.cutoff
    forces = engine.evaluate(Graph.from_atoms(atoms, cutoff)).forces.numpy()
    h = 1e-5
    for i, c in ((0, 0), (13, 1), (31, 2)):
        energies = []
        for step in (h, -h):
            moved = atoms.copy()
            moved.positions[i, c] += step
            energies.append(float(engine.evaluate(Graph.from_atoms(moved, cutoff), forces=False).energy))
        assert forces[i, c] == pytest.approx(-(energies[0] - energies[1]) / (2 * h), rel=1e-6, abs=1e-8)


@models
@dtypes
def test_bits_do_not_depend_on_threads_or_on_what_ran_before(name, dtype):
    engine = Engine(MODELS[name](dtype))
    cutoff = engine.cutoff
    large, small = (Graph.from_atoms(a, cutoff) for a in (icosahedron(6, 0.05), icosahedron(3, 0.05)))

    def results():
        arrays = []
        for graph in (large, small, large):
            p = engine.evaluate(graph, virial=True)
            arrays += [p.energies, p.forces, p.virial]
        assert all(torch.equal(a, b) for a, b in zip(arrays[:3], arrays[6:], strict=True))
        return arrays

    assert_same_bits_for_any_number_of_threads(results)
    without = engine.evaluate(small)
    assert torch.equal(without.forces, engine.evaluate(small, virial=True).forces) and without.virial is None
    assert torch.equal(without.energies, engine.evaluate(small, forces=False).energies)


@pytest.mark.parametrize("architecture", [SimpleGNN, SchNet, PaiNN])
def test_what_is_computed_again_for_many_atoms_has_the_same_bits(architecture):
    """Beyond 32 MB of arrays the engine keeps less and computes more on its way back, in blocks of atoms."""
    torch.manual_seed(0)
    options = {"elements": [1, 8], "cutoff": 2.5, "shift": [-3.0, 7.0], "scale": [0.5, 2.0], "units": "metal"}
    if architecture is SimpleGNN:
        model = SimpleGNN(128, 128, 5, 2, envelope="cosine", **options)
    else:
        model = architecture(128, 2, 6, **options)
    engine, atoms = Engine(model.double()), displaced("cluster")
    atoms.numbers[::2], atoms.numbers[1::2] = 8, 1
    few, n = engine.evaluate(Graph.from_atoms(atoms, 2.5)), 32 * 2**20 // (8 * 4 * 128 * len(atoms))
    assert n > 50
    many = engine.evaluate(Graph.from_atoms([atoms] * n, 2.5))
    for ours, expected in ((many.energies, few.energies), (many.forces, few.forces)):
        assert torch.equal(ours, expected.repeat(n, *[1] * (ours.ndim - 1)))


@pytest.mark.parametrize("name", ["SimpleGNN", "SimpleGNN, mean", "SchNet", "PaiNN"])
def test_two_halves_of_a_box_make_the_whole(name):
    """Each knows its own atoms' edges, and gets what ghosts send between layers; gradients go back."""
    model = MODELS[name](torch.float64)
    atoms = crystal()
    whole = Graph.from_atoms(atoms, model.cutoff)
    engine = Engine(model)
    expected = engine.evaluate(whole)
    left = atoms.positions[:, 0] < atoms.cell[0, 0] / 2
    assert 8 < left.sum() < 24
    shelf, barrier, parts = {}, threading.Barrier(2, timeout=60), [None, None]
    row_ptr, senders = whole.row_ptr.numpy(), whole.senders.numpy()

    def half(part):
        own = left if part == 0 else ~left
        kept = own[whole.receivers.numpy()]
        first = np.concatenate([[0], np.cumsum(np.where(own, np.diff(row_ptr), 0))])
        share = own.astype(np.float64)

        def exchange(number, backwards, rows):
            shelf[part] = rows  # of all atoms: those of the other half are ghosts
            barrier.wait()
            copy = shelf[1 - part].copy()
            barrier.wait()
            if backwards:
                rows[own] += copy[own]
                rows[~own] = 0
            else:
                rows[~own] = copy[~own]
            barrier.wait()

        edges = (first, senders[kept], (0, 0, 0, 0), whole.vectors.numpy()[kept])
        parts[part] = engine._engine.run(atoms.numbers, *edges, share.ctypes.data, True, False, 1, exchange=exchange)

    threads = [threading.Thread(target=half, args=(part,)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    energies = np.where(left, parts[0][0], parts[1][0])
    np.testing.assert_allclose(energies, expected.energies, rtol=0, atol=1e-12 * np.abs(energies).sum())
    forces = parts[0][1] + parts[1][1]  # those on ghosts belong to their owners
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=1e-12 * np.abs(forces).max())


def test_rows_of_a_given_graph():
    """Edges in any number, not symmetric, and atoms without any."""
    model = radial("PaiNN")
    g = torch.Generator().manual_seed(0)
    edges = torch.randint(0, 6, (2, 30), generator=g)
    edges = edges[:, edges[0] != edges[1]]
    graph = Graph.from_edge_index(torch.ones(8, dtype=torch.int64), torch.rand(8, 3, generator=g) * 2, edges)
    assert_equal(
        with_given_tables(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64
    )


def test_empty_graph():
    engine = Engine(radial("PaiNN"))
    none = torch.zeros(0, dtype=torch.int64)
    graph = Graph.from_edge_index(none, torch.zeros(0, 3), torch.zeros(2, 0, dtype=torch.int64))
    result = engine.evaluate(graph, virial=True)
    assert float(result.energy) == 0 and result.forces.shape == (0, 3) and not result.virial.any()


def test_several_threads_of_python_share_an_engine():
    engine = Engine(gnn())
    graphs = [Graph.from_atoms(icosahedron(3, 0.05, seed), 2.5) for seed in range(8)]
    alone = [engine.evaluate(g) for g in graphs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(engine.evaluate, graphs * 20))
    for k, result in enumerate(together):
        assert torch.equal(result.forces, alone[k % 8].forces) and torch.equal(result.energy, alone[k % 8].energy)


def test_pickles():
    model, graph = gnn(), Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    engine = Engine(model)
    with torch.no_grad():
        model.output_mlp[2].bias += 1.0  # the engine's weights are those of before, and so are its copy's
    for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
        assert torch.equal(other.evaluate(graph).forces, engine.evaluate(graph).forces)
        assert torch.equal(other.evaluate(graph).energy, engine.evaluate(graph).energy)


def test_weights_are_those_of_the_moment():
    model = gnn()
    engine, graph = Engine(model), Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    before = engine.evaluate(graph).energy
    with torch.no_grad():
        model.output_mlp[2].bias += 1.0
    assert torch.equal(engine.evaluate(graph).energy, before)
    assert float(Engine(model).evaluate(graph).energy) == pytest.approx(float(before) + 13.0, rel=1e-12)


def test_exchange_that_raises_leaves_the_engine_as_it_was():
    engine, graph = Engine(gnn()), Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    before = engine.evaluate(graph)
    edges = (graph.row_ptr.numpy(), graph.senders.numpy(), (0, 0, 0, 0), graph.vectors.numpy())

    def exchange(number, backwards, rows):
        raise OSError("a neighbour is gone")

    with pytest.raises(OSError, match="neighbour is gone"):
        engine._engine.run(graph.atomic_numbers.numpy(), *edges, 0, True, False, 2, exchange=exchange)
    assert torch.equal(engine.evaluate(graph).forces, before.forces)


def test_unknown_element_is_named():
    torch.manual_seed(0)
    engine = Engine(SchNet(8, 1, 6, elements=[1, 8], cutoff=2.5))
    atoms = water()
    atoms.numbers[1] = 26
    with pytest.raises(ValueError, match="atomic number 26 of atom 1"):
        engine.evaluate(Graph.from_atoms(atoms, 2.5))


@dtypes
def test_edges_are_sorted_by_sender_for_any_number_of_threads(dtype):
    """Where nobody gives that order: beyond 32,768 edges blocks of rows are sorted by a thread each."""
    torch.manual_seed(0)
    engine, atoms = Engine(radial("SchNet", dtype, n_knots=64)), crystal() * 3
    edges = NeighborList(2.5).update(atoms.positions, atoms.cell.array, True)
    assert len(edges.senders) > 40_000
    expected = engine.evaluate(Graph.from_atoms(atoms, 2.5))
    given = atoms.numbers, edges.row_ptr, edges.senders, (0, 0, 0, 0), edges.vectors, 0, True, False
    for n_threads in (1, 2, 3):
        energies, forces, _ = engine._engine.run(*given, n_threads)
        np.testing.assert_array_equal(energies, expected.energies)
        np.testing.assert_array_equal(forces, expected.forces)


def test_the_first_atom_of_an_unknown_element_is_named_by_any_number_of_threads():
    torch.manual_seed(0)
    engine, n = Engine(SchNet(4, 1, 4, elements=[1, 8], cutoff=2.5)), 200_000
    numbers, none = np.ones(n, dtype=np.int64), np.zeros(0, dtype=np.int64)
    numbers[[40_000, 70_000, 150_000, n - 1]] = 26
    for n_threads in (1, 2, 3):
        with pytest.raises(ValueError, match="atomic number 26 of atom 40000$"):
            engine._engine.run(
                numbers, np.zeros(n + 1, np.int64), none, (0,) * 4, np.zeros((0, 3)), 0, False, False, n_threads
            )


def test_edges_are_checked():
    engine = Engine(gnn())._engine
    numbers, row_ptr = np.ones(2, dtype=np.int64), np.array([0, 1, 2])
    for senders, vectors, message in (
        ([1, 2], np.zeros((2, 3)), "expected edges of 2 atoms"),
        ([1, -1], np.zeros((2, 3)), "expected rows.index of at least 0, got -1"),
        ([1, 0], np.zeros((1, 3)), "expected edges of 2 atoms"),
    ):
        with pytest.raises(ValueError, match=message):
            engine.run(numbers, row_ptr, np.array(senders), (0, 0, 0, 0), vectors, 0, True, False, 1)
