"""Properties beside the energy in the engine: equal to torch's, laws, files, and what runs without torch's heads."""

import copy
import json
import pickle

import numpy as np
import pytest
import torch
from ase import Atoms
from engines import with_given_tables
from heads import PROPERTIES, with_heads
from kernels import assert_same_bits_for_any_number_of_threads, dtypes
from laws import EPS, MARGIN
from safetensors_parts import entry_of, joined, parts
from systems import SYSTEMS, crystal, icosahedron, water

import mdgnn
from mdgnn import Engine, Graph, MDGNNCalculator, NeighborList, evaluate
from mdgnn.calculators import mdgnn_calculator
from mdgnn.engine import UnsupportedError
from mdgnn.locate import ModelFileError
from mdgnn.neighbors import neighbors_of_batch
from mdgnn.nn import Property

ARCHITECTURES = ["SimpleGNN", "SchNet", "PaiNN"]
architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
NAMES = ["volume", "gap", "charges"]


def said(engine, atoms):
    """Energies of atoms, and what the heads say of them, by name."""
    edges = NeighborList(engine.cutoff).update(atoms.positions, atoms.cell.array, atoms.pbc)
    energies, _, _, of_atoms = engine.run_with_properties(atoms.numbers, edges)
    return {"energies": energies, **of_atoms}


def assert_same_bits(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


# --- values ----------------------------------------------------------------------------------------------------------


@architectures
@dtypes
def test_equal_to_torch_for_several_structures_at_once(architecture, dtype):
    model = with_heads(architecture, dtype=dtype)
    graph = Graph.from_atoms([*SYSTEMS.values()], model.cutoff)
    ours = with_given_tables(model).evaluate(graph, virial=True, properties=True)
    theirs = evaluate(model, graph, virial=True, properties=True)
    assert ours.properties.keys() == theirs.properties.keys() == set(NAMES)
    for name, expected in theirs.properties.items():
        assert ours.properties[name].dtype == torch.float64 and ours.properties[name].shape == expected.shape
        rounding = MARGIN * EPS[dtype] * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(ours.properties[name], expected, rtol=0, atol=rounding, msg=name)
    assert float(theirs.properties["charges"].std()) > 1e-2


@architectures
@dtypes
def test_energies_and_forces_have_the_bits_that_they_have_without(architecture, dtype):
    model = with_heads(architecture, dtype=dtype)
    engine, graph = Engine(model), Graph.from_atoms([icosahedron(3, 0.05), crystal()], model.cutoff)
    plain, alone = (engine.evaluate(graph, virial=True, properties=asked) for asked in (False, True))
    for a, b in zip(plain[:5], alone[:5], strict=True):
        assert torch.equal(a, b)
    assert plain.properties is None
    without = engine.evaluate(graph, forces=False, properties=True)
    for name in NAMES:
        assert torch.equal(without.properties[name], alone.properties[name])


def test_the_precision_of_float32_networks_is_that_of_the_energy():
    """Shift and scale are applied in double, and terms of the last layer that cancel keep their digits."""
    none, large = (
        Engine(with_heads("PaiNN", dtype=torch.float32, properties=[Property("big", "extensive", [shift], 1.0)]))
        for shift in (0.0, 1e9)
    )
    atoms = icosahedron(2, 0.1)
    before, after = (said(engine, atoms)["big"] for engine in (none, large))
    assert np.abs(before).min() > 1e-4
    np.testing.assert_allclose(after - 1e9, before, rtol=0, atol=2e-7)
    model = with_heads("PaiNN", dtype=torch.float32, properties=PROPERTIES[2:])
    first, _, last = model.heads.networks[0]
    half = first.out_features // 2
    for layer in (first.weight, first.bias):
        layer[half:] = layer[:half]
    last.weight[0, half:] = last.weight[0, :half] - 1024
    last.weight[0, :half] = 1024
    ours = said(Engine(model), atoms)["charges"]
    graph = Graph.from_atoms(atoms, model.cutoff)
    theirs = evaluate(model, graph, properties=True).properties["charges"].numpy()
    true = evaluate(model.double(), graph, properties=True).properties["charges"].numpy()
    assert np.abs(ours - true).max() < 0.1 * np.abs(theirs - true).max()


def test_shifts_and_scales_are_those_of_each_element():
    made = [
        Engine(with_heads("SchNet", elements=[1, 8], properties=[Property("charges", "atomic", shift, scale)]))
        for shift, scale in (([0.0], 1.0), ([-3.0, 7.0], 0.5))
    ]
    plain, scaled = (said(engine, water())["charges"] for engine in made)
    assert np.abs(plain).min() > 1e-3
    np.testing.assert_allclose(scaled, np.array([7.0, -3.0, -3.0]) + 0.5 * plain, rtol=1e-14)


@pytest.mark.parametrize("forces", [False, True])
def test_no_atoms_and_one(forces):
    engine, none = Engine(with_heads("PaiNN")), torch.zeros(0, dtype=torch.int64)
    graph = Graph.from_edge_index(none, torch.zeros(0, 3), torch.zeros(2, 0, dtype=torch.int64))
    result = engine.evaluate(graph, forces=forces, properties=True)
    assert {name: x.tolist() for name, x in result.properties.items()} == {"volume": [0.0], "gap": [0.0], "charges": []}
    alone = engine.evaluate(Graph.from_atoms(Atoms("Ar"), engine.cutoff), forces=forces, properties=True).properties
    expected = evaluate(with_heads("PaiNN"), Graph.from_atoms(Atoms("Ar"), engine.cutoff), properties=True).properties
    for name, x in alone.items():
        torch.testing.assert_close(x, expected[name], rtol=1e-13, atol=1e-13)


@architectures
def test_what_they_share_is_computed_once(architecture):
    """A program is that of the energy, with a network of two layers for each property."""
    model = with_heads(architecture)
    program = Engine(model).program
    heads = ["linear", "silu", "linear"] * 3
    model.heads = None
    plain = Engine(model).program
    assert [i.op for i in program.instructions] == [i.op for i in plain.instructions] + heads


# --- laws ------------------------------------------------------------------------------------------------------------


@architectures
@dtypes
def test_bits_in_a_batch_are_those_of_a_structure_alone(architecture, dtype):
    engine = Engine(with_heads(architecture, dtype=dtype))
    several = [icosahedron(3, 0.1), Atoms("Ar"), crystal(), Atoms("Ar2", [[0, 0, 0], [1.1, 0, 0]])]
    numbers = np.concatenate([atoms.numbers for atoms in several])
    energies, _, _, together = engine.run_with_properties(numbers, neighbors_of_batch(several, engine.cutoff))
    ends = np.cumsum([len(atoms) for atoms in several])[:-1]
    for k, atoms in enumerate(several):
        of_it = {name: np.split(values, ends)[k] for name, values in {"energies": energies, **together}.items()}
        assert_same_bits(of_it, said(engine, atoms))
    name = {torch.float32: "float32", torch.float64: "float64"}[dtype]
    calc = MDGNNCalculator(with_heads(architecture, dtype=dtype), dtype=name)
    for atoms, results in zip(several, calc.evaluate(several, stress=False), strict=True):
        alone = calc.compute(atoms, others=True)
        assert_same_bits(results, alone)
        assert alone["volume"] == said(engine, atoms)["volume"].sum()
        assert alone["gap"] == said(engine, atoms)["gap"].mean()


@architectures
def test_permutation_and_repeated_cells(architecture):
    engine = Engine(with_heads(architecture))
    atoms = icosahedron(3, 0.1)
    order = np.random.default_rng(2).permutation(len(atoms))
    before, after = said(engine, atoms), said(engine, atoms[order])
    for name in before:
        np.testing.assert_allclose(after[name], before[name][order], rtol=1e-10, atol=1e-10, err_msg=name)
    one, two = (MDGNNCalculator(with_heads(architecture), dtype="float64") for _ in range(2))
    a, b = one.compute(crystal(), others=True), two.compute(crystal() * (2, 1, 1), others=True)
    assert b["volume"] == pytest.approx(2 * a["volume"], rel=1e-9)
    assert b["gap"] == pytest.approx(a["gap"], rel=1e-9)
    np.testing.assert_allclose(b["charges"], np.tile(a["charges"], 2), rtol=1e-9, atol=1e-9)


@architectures
@dtypes
def test_bits_do_not_depend_on_threads_or_on_what_ran_before(architecture, dtype):
    engine = Engine(with_heads(architecture, dtype=dtype))
    large, small = (Graph.from_atoms(a, engine.cutoff) for a in (icosahedron(6, 0.05), icosahedron(3, 0.05)))

    def results():
        arrays = []
        for graph, forces in ((large, True), (small, False), (large, False)):
            p = engine.evaluate(graph, forces=forces, properties=True)
            arrays += [p.energies, *p.properties.values()]
        assert all(torch.equal(a, b) for a, b in zip(arrays[:4], arrays[8:], strict=True))
        return arrays

    assert_same_bits_for_any_number_of_threads(results)


# --- models that have learnt no energies -----------------------------------------------------------------------------


def test_a_model_that_has_learnt_no_energies(tmp_path):
    model, atoms = with_heads("PaiNN", energy=False), icosahedron(2, 0.1)
    mdgnn.save(model, tmp_path / "m.safetensors")
    graph = Graph.from_atoms(atoms, model.cutoff)
    expected = evaluate(model, graph, forces=False, properties=True).properties
    for engine in (Engine(model), Engine.load(tmp_path / "m.safetensors")):
        assert not engine.has_energy and [*engine.properties] == NAMES
        result = engine.evaluate(graph, forces=False, properties=True)
        assert bool(result.energy.isnan().all()) and result.energies.isnan().all()
        for name, x in result.properties.items():
            torch.testing.assert_close(x, expected[name], rtol=1e-9, atol=1e-9)
        edges = NeighborList(engine.cutoff).update(atoms.positions)
        for ask in (lambda: engine.evaluate(graph), lambda: engine.run(atoms.numbers, edges)):  # noqa: B023
            with pytest.raises(ValueError, match="^the model has learnt no energies$"):
                ask()
        with pytest.raises(ValueError, match="^the model has learnt no energies$"):
            mdgnn._C.Systems(engine._engine, 2.5, 0.1, 0.0)
    calc = MDGNNCalculator(tmp_path / "m.safetensors", dtype="float64")
    assert calc.backend == "engine" and set(calc.compute(atoms)) == set(NAMES)
    with pytest.raises(ValueError, match="runs on the engine, for many systems at once: the model has learnt no energ"):
        mdgnn.dynamics.relax_many([atoms], calc)


# --- files -----------------------------------------------------------------------------------------------------------


@architectures
@dtypes
def test_files_and_copies_give_the_same_bits(architecture, dtype, tmp_path):
    model, atoms = with_heads(architecture, dtype=dtype), icosahedron(3, 0.05)
    mdgnn.save(model, tmp_path / "m.safetensors")
    engine = Engine(model)
    for other in (Engine.load(tmp_path / "m.safetensors"), pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
        assert other.properties == {"volume": "extensive", "gap": "intensive", "charges": "atomic"}
        assert_same_bits(said(other, atoms), said(engine, atoms))


def test_programs_have_a_version_of_their_own_where_there_are_properties(tmp_path):
    """Which readers of before refuse in one sentence; files without properties are what they were."""
    path = tmp_path / "m.safetensors"
    versions = {}
    for heads in (True, False):
        model = with_heads("SchNet")
        model.heads = model.heads if heads else None
        mdgnn.save(model, path)
        header = entry_of(parts(path)[0])
        versions[heads] = header["format_version"], header["program"]["version"], "properties" in header["program"]
    assert versions == {True: (3, 3, True), False: (3, 2, False)}


def changed(path, change, to):
    """A file whose entry is another."""
    header, data = parts(path)
    entry = entry_of(header)
    change(entry)
    header["__metadata__"]["mdgnn"] = json.dumps(entry)
    to.write_bytes(joined(header, data))
    return to


def as_before(entry):
    """Of the release in which programs had no properties."""
    entry["program"]["version"] = 2
    del entry["program"]["properties"]


def test_a_file_whose_program_has_none_takes_them_from_torch(tmp_path, monkeypatch):
    mdgnn.save(with_heads("SchNet"), tmp_path / "new.safetensors")
    old = changed(tmp_path / "new.safetensors", as_before, tmp_path / "old.safetensors")
    atoms, calc = icosahedron(2, 0.1), MDGNNCalculator(old, dtype="float64")
    new = MDGNNCalculator(tmp_path / "new.safetensors", dtype="float64")
    assert calc.backend == "engine" and calc.engine.properties == {}
    expected = new.compute(atoms, others=True)
    for results in (calc.compute(atoms, others=True), calc.evaluate(atoms)[0]):
        assert results.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(results[name], value, rtol=1e-9, atol=1e-9)
    monkeypatch.setattr(mdgnn_calculator, "_by_torch", None)
    assert new.get_property("gap", atoms) == expected["gap"], "without torch"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["properties"][0].update(name="gap"), "properties of different names, got property 'gap' .* twice"),
        (lambda p: p["properties"][0].update(name="a b"), "letters, digits and underscores as the name of property 'a"),
        (lambda p: p["properties"][0].update(name=""), "letters, digits and underscores as the name of property ''"),
        (lambda p: p["properties"][0].update(name="1a"), "letters, digits and underscores as the name of property '1a"),
        (lambda p: p["properties"][0].update(name=3), "the name of property 0 as a string, got 3"),
        (lambda p: p["properties"][1].update(kind="tensor"), "'gap' .*'extensive', 'intensive' or 'atomic', got 'ten"),
        (lambda p: p["properties"][1].update(scale=[]), "'gap' of the model's program with a scale and a shift per el"),
        (lambda p: p["properties"][1].update(shift=[1.0]), "'gap' of the model's program with a scale and a shift per"),
        (lambda p: p["properties"][1].update(scale=["1"]), "an entry of the scale of property 1 as a finite number"),
        (lambda p: p["properties"][1].update(array=0), "'gap' of the model's program as one number for each atom"),
        (lambda p: p["properties"][1].update(array=10**6), "'gap' of the model's program as one number for each atom"),
        (lambda p: p["properties"][1].update(array=-1), "the array of property 1 as the number of an array, got -1"),
        (lambda p: p["properties"][1].update(array=None), "the array of property 1 as a whole number"),
        (lambda p: p["properties"][1].update(unit="eV"), "property 1 without an entry 'unit'"),
        (lambda p: p["properties"][1].pop("kind"), "property 1 with an entry 'kind'"),
        (lambda p: p.update(properties=[]), "properties in a program of version 3"),
        (lambda p: p.update(properties={}), "the properties as an array"),
        (lambda p: p.update(properties=p["properties"] * 2000), "the properties with at most 4096 entries, got 6000"),
        (lambda p: p.update(energies=-1), "the energies as the number of an array, got -1"),
        (lambda p: p.update(more=1), "the program without an entry 'more'"),
        (lambda p: p.pop("properties"), "the program with an entry 'properties'"),
        (lambda p: p.update(version=2), "the program without an entry 'properties'"),
        (lambda p: p.update(version=4), "a program of version 4, this mdgnn reads versions 2 and 3 in format 3$"),
    ],
)
def test_broken_properties_get_a_sentence(change, message, tmp_path):
    mdgnn.save(with_heads("SimpleGNN"), tmp_path / "m.safetensors")
    bad = changed(tmp_path / "m.safetensors", lambda entry: change(entry["program"]), tmp_path / "bad.safetensors")
    with pytest.raises(ModelFileError, match=message) as caught:
        Engine.load(bad)
    assert str(caught.value).startswith(str(bad))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h: h["program"]["properties"].pop(), "a program of the properties that the heads say"),
        (lambda h: h["program"]["properties"][0].update(kind="atomic"), "a program of the properties that the heads"),
        (lambda h: h["heads"].update(energy=False), "a program of energies, or none, as the heads say"),
        (lambda h: h["program"].update(energies=None), "a program of energies, or none, as the heads say"),
    ],
)
def test_programs_that_are_not_of_the_heads_get_a_sentence(change, message, tmp_path):
    mdgnn.save(with_heads("SimpleGNN"), tmp_path / "m.safetensors")
    bad = changed(tmp_path / "m.safetensors", change, tmp_path / "bad.safetensors")
    with pytest.raises(ModelFileError, match=f"{bad} has a broken mdgnn header .*{message}"):
        MDGNNCalculator(bad, dtype="float64")


# --- refusals --------------------------------------------------------------------------------------------------------


class Rounded(torch.nn.Module):
    def forward(self, x):
        return x.round()


def test_heads_that_cannot_be_captured_are_refused_with_their_line():
    model = with_heads("SchNet")
    model.heads.networks[1][1] = Rounded()
    with pytest.raises(UnsupportedError, match=r"this SchNet: .*round.*test_engine_properties.*return x\.round\(\)"):
        Engine(model)
    with pytest.raises(UnsupportedError, match="no instruction for round"):
        MDGNNCalculator(model, backend="engine")
    with pytest.warns(UserWarning, match="computed by torch"):
        assert MDGNNCalculator(model).backend == "torch"


def test_rooms_for_properties_are_checked():
    engine, atoms = Engine(with_heads("SchNet"))._engine, icosahedron(2)
    edges = NeighborList(2.5).update(atoms.positions)
    given = atoms.numbers, edges.row_ptr, edges.senders, (0, 0, 0, 0), edges.vectors, 0, False, False, 1
    for room in (np.zeros((3, 12)), np.zeros((2, 13)), np.zeros(39)):
        with pytest.raises(ValueError, match=r"an array of shape \(3, 13\) for properties"):
            engine.run(*given, properties=room)
    for room in (np.zeros((3, 13), dtype=np.float32), np.zeros((13, 3)).T, [1.0]):
        with pytest.raises(ValueError, match="properties as an array of float64 in C order"):
            engine.run(*given, properties=room)
    room = np.zeros((3, 13))
    room.setflags(write=False)
    with pytest.raises(ValueError, match="not writeable"):
        engine.run(*given, properties=room)
