"""Programs in model files: the same bits as of the model."""

import copy
import json
import math
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from kernels import dtypes
from safetensors import safe_open
from safetensors_parts import entry_of, joined, parts
from systems import crystal, gnn, icosahedron, radial

import mdgnn
from mdgnn import Engine, Graph, LennardJones, NeighborList, SchNet, SimpleGNN
from mdgnn.locate import ModelFileError, pretrained_names
from mdgnn.model_header import read_header

MODELS = {
    "SimpleGNN": lambda dtype: gnn(dtype),
    "SimpleGNN, mean": lambda dtype: gnn(dtype, aggregation="mean", readout="mean", envelope=None),
    "SimpleGNN, elements": lambda dtype: gnn(dtype, elements=[10, 18], shift=[-1 / 3, 1e-17], scale=[0.1, 5e-9]),
    "SchNet": lambda dtype: radial("SchNet", dtype),
    "SchNet, repulsion": lambda dtype: radial("SchNet", dtype, repulsion=0.8),
    "PaiNN": lambda dtype: radial("PaiNN", dtype, readout="mean"),
    **{name: lambda dtype, name=name: mdgnn.load(name).to(dtype) for name in pretrained_names()},
}
models = pytest.mark.parametrize("name", list(MODELS))


def atoms_for(name):
    atoms = crystal()
    atoms.numbers[:] = 1 if name in ("acac", "water") else 18
    return atoms


def assert_same_bits(a, b, atoms):
    graph = Graph.from_atoms(atoms, a.cutoff)
    x, y = a.evaluate(graph, virial=True), b.evaluate(graph, virial=True)
    assert x.properties is None and y.properties is None
    for one, other in zip(x[:5], y[:5], strict=True):
        assert torch.equal(one, other)


def program_of(engine):
    """The program and its weights, which are numbered as they come: a file has its own names."""
    text, weights = engine._engine.program()
    program, names = json.loads(text), {}

    def renamed(instructions):
        for i in instructions:
            i["weights"] = [names.setdefault(name, f"weight {len(names)}") for name in i["weights"]]

    for table in program["tables"]:
        table["name"] = names.setdefault(table["name"], f"weight {len(names)}")
        renamed(table["instructions"])
    renamed(program["instructions"])
    return program, {names[name]: weight for name, weight in weights.items()} | {
        names[name]: table for name, table in engine._engine.tables().items()
    }


def assert_same_program(a, b):
    (a, of_a), (b, of_b) = program_of(a), program_of(b)
    assert a == b and of_a.keys() == of_b.keys()
    for name, x in of_a.items():
        assert x.dtype == of_b[name].dtype and np.array_equal(x, of_b[name])


@models
@dtypes
def test_same_bits_as_the_model(name, dtype, tmp_path):
    mdgnn.save(MODELS[name](dtype), tmp_path / "m.safetensors")
    expected, engine = Engine(mdgnn.load(tmp_path / "m.safetensors")), Engine.load(tmp_path / "m.safetensors")
    assert_same_program(engine, expected)
    assert (engine.cutoff, engine.dtype, engine.readout) == (expected.cutoff, dtype, expected.readout)
    assert_same_bits(engine, expected, atoms_for(name))
    atoms = icosahedron(2, 0.05)
    atoms.numbers[:] = atoms_for(name).numbers[0]
    edges = NeighborList(engine.cutoff).update(atoms.positions, atoms.cell, False)
    for x, y in zip(engine.run(atoms.numbers, edges), expected.run(atoms.numbers, edges), strict=True):
        assert x is y is None or np.array_equal(x, y)


@pytest.mark.parametrize("name", pretrained_names())
def test_shipped_models(name):
    """They hold filter networks, of which C++ makes the tables here."""
    engine, expected = Engine.load(name), Engine(mdgnn.load(name))
    assert not any(w.ndim == 3 for w in engine.program.weights.values())
    assert_same_program(engine, expected)
    assert_same_bits(engine, expected, atoms_for(name))
    assert not any(key.startswith("program.") for key in mdgnn.load(name).state_dict())


def test_pickles_without_the_file(tmp_path):
    mdgnn.save(gnn(), tmp_path / "m.safetensors")
    engine = Engine.load(str(tmp_path / "m.safetensors"))
    (tmp_path / "m.safetensors").unlink()
    for other in (pickle.loads(pickle.dumps(engine)), copy.deepcopy(engine)):
        assert_same_bits(other, engine, crystal())
        assert_same_program(other, engine)


def test_what_the_engine_cannot_run_has_no_program(tmp_path):
    for model in (LennardJones(), LennardJones(cutoff=2.5), gnn(aggregation="max"), gnn(filters="direct")):
        mdgnn.save(model, tmp_path / "m.safetensors")
        assert read_header(tmp_path / "m.safetensors")["program"] is None
        assert mdgnn.load(tmp_path / "m.safetensors").config == model.config
        with pytest.raises(ModelFileError, match="m.safetensors holds no program: the engine cannot run its model"):
            Engine.load(tmp_path / "m.safetensors")
    mdgnn.save(SchNet(8, 1, 6, cutoff=math.inf), tmp_path / "m.safetensors")
    assert read_header(tmp_path / "m.safetensors")["program"] is None, "tables up to there are not numbers"


def test_an_infinite_cutoff_is_json(tmp_path):
    path = tmp_path / "m.safetensors"
    model = SimpleGNN(1, 8, 8, 1, cutoff=math.inf)
    mdgnn.save(model, path)
    assert "Infinity" not in path.read_bytes().decode("latin-1")
    assert mdgnn.load(path).config == model.config and mdgnn.load(path).cutoff == math.inf
    mdgnn.save(gnn(), path)
    header, data = parts(path)
    entry = entry_of(header)
    entry["program"]["cutoff"] = None
    header["__metadata__"]["mdgnn"] = json.dumps(entry)
    path.write_bytes(joined(header, data))
    assert Engine.load(path).cutoff == math.inf


def test_weights_that_the_model_has_are_not_stored_twice(tmp_path):
    mdgnn.save(gnn(), tmp_path / "m.safetensors")
    header, _ = parts(tmp_path / "m.safetensors")
    program = entry_of(header)["program"]
    instructions = [*program["instructions"], *(i for t in program["tables"] for i in t["instructions"])]
    named = {w for i in instructions for w in i["weights"]}
    assert {"atom_embedding.weight", "output_mlp.2.weight"} <= named
    assert {n for n in named if n.startswith("program.")} == {n for n in header if n.startswith("program.")}
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        content = {n: (t.dtype, t.shape, t.numpy().tobytes()) for n in file.keys() for t in [file.get_tensor(n)]}  # noqa: SIM118
    own = {n for n in content if n.startswith("program.")}
    assert all(content[n] != content[m] for n in own for m in content if m != n)
    largest = max(math.prod(header[n]["shape"]) for n in own)
    assert largest <= 2 * 8 * 9, "no tables, which can be made from the weights"
    model = gnn()
    with torch.no_grad():
        model.layers[1].load_state_dict(model.layers[0].state_dict())  # weights that are equal
    mdgnn.save(model, tmp_path / "m.safetensors")
    assert_same_bits(Engine.load(tmp_path / "m.safetensors"), Engine(model), crystal())


def test_a_model_being_trained_is_saved_and_stays_as_it_was(tmp_path):
    model = gnn()
    assert model.training and model.atom_embedding.weight.requires_grad
    mdgnn.save(model, tmp_path / "m.safetensors")
    assert model.training and model.atom_embedding.weight.requires_grad
    assert_same_bits(Engine.load(tmp_path / "m.safetensors"), Engine(model), crystal())


def test_numbers_that_json_has_not_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a configuration and a training record of finite numbers"):
        mdgnn.save(gnn(), tmp_path / "m.safetensors", {"loss": math.nan})
    assert not list(tmp_path.iterdir())


def test_what_was_read_earlier_needs_no_other_file(tmp_path, monkeypatch):
    """It went by a temporary file, which a full disk refused; errors name the file that it was read of."""
    path = tmp_path / "m.safetensors"
    mdgnn.save(gnn(), path)
    content, expected = path.read_bytes(), Engine.load(path)
    path.unlink()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no such folder"))
    assert_same_bits(Engine.from_content(content, path), expected, crystal())
    assert not [*tmp_path.iterdir()]
    for bad in (b"", content[:-1], content + b"\0"):
        with pytest.raises(ModelFileError, match="is not a complete safetensors file") as caught:
            Engine.from_content(bad, path)
        assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model file 'lk'.*lj, water"):
        Engine.load("lk")
    with pytest.raises(FileNotFoundError, match="no model file"):
        Engine.load(tmp_path)
    path = tmp_path / "Gruß\n.safetensors"
    path.write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"Gruß\?.safetensors is not a complete safetensors file"):
        Engine.load(path)


def test_files_of_format_1_still_load(tmp_path):
    """Without a program, as the first version wrote them."""
    model = gnn()
    mdgnn.save(model, tmp_path / "m.safetensors", {"note": "π"})
    header, data = parts(tmp_path / "m.safetensors")
    entry = entry_of(header)
    del entry["program"]
    entry["format_version"] = 1
    state = {k: v for k, v in header.items() if not k.startswith(("program.", "__"))}
    content, at = b"", 0
    for tensor in state.values():
        begin, end = tensor["data_offsets"]
        content += data[begin:end]
        tensor["data_offsets"] = [at, at := at + end - begin]
    state["__metadata__"] = {"mdgnn": json.dumps(entry)}
    (tmp_path / "old.safetensors").write_bytes(joined(state, content))
    again = mdgnn.load(tmp_path / "old.safetensors")
    assert again.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with pytest.raises(ModelFileError, match="has model format 1, the engine reads formats 2 and 3"):
        Engine.load(tmp_path / "old.safetensors")


FORMAT_2 = Path(__file__).with_name("format_2")
RESULTS = json.loads((FORMAT_2 / "results.json").read_text())


@pytest.mark.parametrize("name", list(RESULTS["results"]))
def test_files_of_format_2_give_what_they_gave(name):
    """Written, and run, by the version before format 3."""
    engine, expected = Engine.load(FORMAT_2 / f"{name}.safetensors"), RESULTS["results"][name]
    edges = NeighborList(engine.cutoff).update(np.array(RESULTS["positions"]))
    energies, forces, _ = engine.run(np.array(expected["numbers"]), edges)
    rounding = 16 * torch.finfo(engine.dtype).eps
    for x, y in ((energies, expected["energies"]), (forces, expected["forces"])):
        np.testing.assert_allclose(x, y, rtol=0, atol=rounding * np.abs(y).max())


def test_a_header_is_read_from_the_module_of_before_too():
    assert mdgnn.model_file.read_header is read_header
