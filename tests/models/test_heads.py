"""Properties beside the energy: laws over all networks, model files, the engine, the calculators."""

import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read, write
from ase.outputs import all_outputs
from command_line import run, sentence
from heads import PROPERTIES, with_heads
from laws import moved, random_rotation
from safetensors_parts import entry_of, joined, parts
from systems import crystal, gnn, icosahedron, radial, water

import mdgnn
from mdgnn import Ensemble, Graph, LennardJones, MDGNNCalculator, evaluate
from mdgnn.engine import UnsupportedError
from mdgnn.locate import ModelFileError
from mdgnn.model_header import read_header
from mdgnn.nn import Property


def said(model, atoms, **options):
    graph = Graph.from_atoms(atoms, model.cutoff)
    prediction = evaluate(model, graph, forces=False, properties=True, **options)
    return {"energies": prediction.energies, **prediction.properties}


@pytest.fixture(params=["PaiNN", "SchNet", "SimpleGNN"])
def model(request):
    return with_heads(request.param)


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-9, atol=1e-9, msg=name)


def test_copies_out_of_reach_and_repeated_cells(model):
    cluster, cell = icosahedron(2, 0.05), crystal()
    pairs = [(cluster, cluster + moved(cluster, shift=[50, 0, 0])), (cell, cell * (2, 1, 1))]
    for one, two in pairs:
        a, b = said(model, one), said(model, two)
        assert_same(b, {**a, "volume": 2 * a["volume"], **{n: a[n].repeat(2) for n in ("energies", "charges")}})


def test_motions_of_the_whole_and_of_names(model):
    atoms = icosahedron(2, 0.1)
    before = said(model, atoms)
    for matrix in (random_rotation(np.random.default_rng(1)), -np.eye(3)):
        assert_same(said(model, moved(atoms, matrix, shift=[1, 2, 3])), before)
    order = np.random.default_rng(2).permutation(len(atoms))
    assert_same(said(model, atoms[order]), {**before, **{n: before[n][order] for n in ("energies", "charges")}})


def test_kinds_are_sums_means_and_atoms_themselves():
    """Of one and the same readout."""
    model = with_heads("SchNet", properties=[Property(k, k, [0.5], 2.0) for k in ("extensive", "intensive", "atomic")])
    for network in model.heads.networks[1:]:
        network.load_state_dict(model.heads.networks[0].state_dict())
    predicted = said(model, icosahedron(2, 0.1))
    torch.testing.assert_close(predicted["atomic"].sum()[None], predicted["extensive"], rtol=1e-14, atol=0)
    torch.testing.assert_close(predicted["atomic"].mean()[None], predicted["intensive"], rtol=1e-14, atol=0)
    assert float(predicted["atomic"].std()) > 1e-3


def test_shifts_and_scales_are_those_of_each_element():
    """Of networks that say the same: a_i = shift(element of i) + scale * network."""
    made = [
        with_heads("SchNet", elements=[1, 8], properties=[Property("charges", "atomic", shift, scale)])
        for shift, scale in (([0.0], 1.0), ([-3.0, 7.0], 0.5))
    ]
    plain, scaled = (said(model, water())["charges"] for model in made)
    assert float(plain.abs().min()) > 1e-3
    expected = torch.tensor([7.0, -3.0, -3.0], dtype=torch.float64) + 0.5 * plain
    torch.testing.assert_close(scaled, expected, rtol=1e-14, atol=0)


def test_batches_paddings_and_forces_change_nothing(model):
    several = [icosahedron(2, 0.1), Atoms("Ar"), crystal(), Atoms("Ar2", [[0, 0, 0], [1.1, 0, 0]])]
    graph = Graph.batch([Graph.from_atoms(a, model.cutoff) for a in several])
    together = evaluate(model, graph, virial=True, properties=True)
    plain = evaluate(model, graph, virial=True)
    assert plain.properties is None
    for a, b in zip(together[:5], plain[:5], strict=True):
        assert torch.equal(a, b)
    for s, atoms in enumerate(several):
        alone = said(model, atoms)
        of_it = {n: x[graph.structure == s] if n == "charges" else x[s : s + 1] for n, x in together.properties.items()}
        assert_same(of_it, {n: alone[n] for n in of_it})


def test_a_large_shift_loses_nothing_in_float32():
    none, large = (
        with_heads("PaiNN", properties=[Property("big", "extensive", [shift], 1.0)]).float() for shift in (0.0, 1e9)
    )
    atoms = icosahedron(2, 0.1)
    before, after = (float(said(model, atoms)["big"]) for model in (none, large))
    assert abs(before) > 1e-3 and after - 13e9 == pytest.approx(before, abs=1e-5)


def test_gradients_reach_the_network(model):
    model.requires_grad_(True)
    graph = Graph.from_atoms(icosahedron(2, 0.1), model.cutoff)
    prediction = evaluate(model, graph, create_graph=True, properties=True)
    sum(values.square().sum() for values in prediction.properties.values()).backward()
    without = {name for name, p in model.named_parameters() if p.grad is None}
    assert without == {n for n, _ in model.named_parameters() if n.startswith("output_mlp")}
    assert not any(x.requires_grad for x in evaluate(model, graph, properties=True).properties.values())
    assert evaluate(LennardJones(), graph, properties=True).properties == {}


def test_model_files(model, tmp_path):
    path = tmp_path / "m.safetensors"
    mdgnn.save(model, path)
    again = mdgnn.load(path)
    assert again.heads.properties == PROPERTIES and again.heads.energy
    atoms = icosahedron(2, 0.1)
    for name, value in said(model, atoms).items():
        assert torch.equal(said(again, atoms)[name], value)
    graph = Graph.from_atoms(atoms, model.cutoff)
    for engine in (mdgnn.Engine.load(path), mdgnn.Engine(model)):
        torch.testing.assert_close(engine.evaluate(graph).forces, evaluate(model, graph).forces, rtol=1e-9, atol=1e-9)


def test_without_heads_a_file_is_what_it_was(tmp_path):
    plain, heads = gnn(), with_heads("SimpleGNN")
    mdgnn.save(plain, tmp_path / "plain.safetensors")
    mdgnn.save(heads, tmp_path / "heads.safetensors")
    assert "heads" not in read_header(tmp_path / "plain.safetensors")
    heads.heads = None
    mdgnn.save(heads, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    header, expected = (read_header(tmp_path / f"{name}.safetensors") for name in ("heads", "plain"))
    assert header.pop("heads")["properties"][1] == {"name": "gap", "kind": "intensive", "shift": [-0.25], "scale": 0.5}
    programs = header.pop("program"), expected.pop("program")
    assert header == expected
    assert "properties" in programs[0] and "properties" not in programs[1]


def test_a_model_that_knows_no_energies(tmp_path):
    model = with_heads("PaiNN", energy=False)
    mdgnn.save(model, tmp_path / "m.safetensors")
    assert read_header(tmp_path / "m.safetensors")["program"]["energies"] is None
    atoms = icosahedron(2, 0.1)
    atoms.calc = MDGNNCalculator(tmp_path / "m.safetensors", dtype="float64")
    assert atoms.calc.implemented_properties == ["volume", "gap", "charges"]
    assert atoms.calc.get_property("gap", atoms) == pytest.approx(float(said(model, atoms)["gap"]), rel=1e-9)
    assert set(atoms.calc.results) == set(atoms.calc.evaluate(atoms)[0]) == {"volume", "gap", "charges"}
    lacks = r"expected one of \['volume', 'gap', 'charges'\], got '{}': the model has learnt no energies$"
    for ask, name in {
        atoms.get_potential_energy: "energy",
        atoms.get_forces: "forces",
        atoms.calc.calculate: "energy",
        lambda: atoms.calc.evaluate(crystal(), stress=True): "stress",
        lambda: atoms.calc.compute(crystal(), stress=True): "stress",
    }.items():
        with pytest.raises(NotImplementedError, match=lacks.format(name)):
            ask()
    assert MDGNNCalculator(model).backend == "engine"
    for command in ("relax", "md"):
        told = run(command, "lj:13", "--model", tmp_path / "m.safetensors", "--output", tmp_path / "out")
        assert "got 'energy': the model has learnt no energies" in sentence(told) and not (tmp_path / "out").exists()
    rows = run("info", tmp_path / "m.safetensors").output
    assert "in the file, for the engine" in rows and "torch:" not in rows
    with pytest.raises(ValueError, match="expected models that predict energies"):
        Ensemble([model, model])
    model.attach_heads([], False)
    for make in (mdgnn.Engine, lambda model: MDGNNCalculator(model, backend="engine")):
        with pytest.raises(UnsupportedError, match="cannot run this PaiNN: the model has learnt nothing"):
            make(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h: h["properties"][0].update(kind="vectorial"), "expected a property extensive, intensive, atomic"),
        (lambda h: h["properties"][0].update(scale=0), "positive scale of 'volume'"),
        (lambda h: h["properties"][0].update(shift=[1, 2]), "one shift and scale for each of the 1 elements, got 2"),
        (lambda h: h["properties"][0].update(name="gap"), "expected properties of different names, got gap, gap"),
        (lambda h: h["properties"][0].update(unit="eV"), "unexpected keyword argument 'unit'"),
        (lambda h: h["properties"].pop(), "does not fit its header"),
        (lambda h: h.pop("energy"), r"does not fit its header \('energy'\)"),
        (lambda h: h["properties"][0].update(name="forces"), "'forces' means something else already"),
        (lambda h: h["properties"][0].update(name=3), "expected string"),
    ],
)
def test_broken_headers_are_refused(tmp_path, change, words):
    mdgnn.save(with_heads("SimpleGNN"), tmp_path / "m.safetensors")
    header, tensors = parts(tmp_path / "m.safetensors")
    ours = entry_of(header)
    change(ours["heads"])
    header["__metadata__"]["mdgnn"] = json.dumps(ours)
    (tmp_path / "m.safetensors").write_bytes(joined(header, tensors))
    with pytest.raises(ModelFileError, match=words):
        mdgnn.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("name", all_outputs)
def test_names_of_ase_are_for_what_ase_writes_under_them(name, tmp_path):
    """A scalar as the dipole, say, broke the writers of ASE."""
    shape, of_kind = all_outputs[name], {"extensive": (), "intensive": (), "atomic": ("natoms",)}
    for kind, of in of_kind.items():
        ours = name in MDGNNCalculator.implemented_properties
        if of != shape.shapespec or shape.dtype is not float or ours or name == "stresses":
            of_other_shape = name in ("charges", "magmoms", "magmom", "fermi_level")
            sentence = "is a number of" if of_other_shape else "means something else already"
            with pytest.raises(ValueError, match=f"^'{name}' {sentence}"):
                Property(name, kind, [0.0], 1.0)
            continue
        atoms = icosahedron(2, 0.1)
        calc = atoms.calc = MDGNNCalculator(with_heads("SchNet", properties=[Property(name, kind, [1.0], 1.0)]))
        calc.get_property(name, atoms)
        for file in ("x.traj", "x.xyz"):
            write(tmp_path / file, atoms)
            assert read(tmp_path / file).get_potential_energy() == pytest.approx(calc.results["energy"])
        np.testing.assert_array_equal(calc.export_properties()[name], calc.results[name])


@pytest.mark.parametrize("name", ["energy_std", "forces_std", "predicted_gap", "gap_mae", "gap_rmse", "epoch", "train",
                                  "valid", "weight", "config_type", "n_atoms"])  # fmt: skip
def test_names_that_mean_something_else(name):
    """They stood in the place of the spread of an ensemble, say, or of a column."""
    with pytest.raises(ValueError, match=f"^'{name}' means something else already"):
        Property(name, "intensive", [0.0], 1.0)


@pytest.mark.parametrize("name", ["gap\n", "2s", "", "lücke", "band gap"])
def test_names_that_are_none(name):
    with pytest.raises(ValueError, match="^expected letters, digits and underscores as the name of a property, got"):
        Property(name, "intensive", [0.0], 1.0)


def test_heads_stand_where_the_model_does():
    """They stayed on the CPU; Lennard-Jones was an AttributeError."""
    model = with_heads("SchNet").to("meta")
    model.attach_heads([Property("other", "atomic", [0.0], 1.0)], True)
    assert {p.device.type for p in model.parameters()} | {model.heads.elements[0].shift.device.type} == {"meta"}
    with pytest.raises(ValueError, match="^LennardJones has no features of atoms to predict properties from$"):
        LennardJones().attach_heads(PROPERTIES, True)


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_the_calculator_offers_them_as_ase_does_its_own(backend):
    model = with_heads("SchNet")
    atoms = icosahedron(2, 0.1)
    truth = said(model, atoms)
    calc = atoms.calc = MDGNNCalculator(model, dtype="float64", backend=backend)
    assert atoms.get_potential_energy() == pytest.approx(float(truth["energies"].sum()), rel=1e-9)
    assert "gap" not in calc.results, "before it is asked for, it costs nothing"
    assert calc.get_property("gap", atoms) == pytest.approx(float(truth["gap"]), rel=1e-9)
    np.testing.assert_allclose(atoms.get_charges(), truth["charges"], rtol=1e-9)
    atoms.positions[0] += 0.05
    atoms.get_forces()
    assert calc.results["volume"] == pytest.approx(float(said(model, atoms)["volume"]), rel=1e-9), "from then on"
    assert "gap" not in calc.export_properties() and "charges" in calc.export_properties()
    several = [atoms, Atoms("Ar"), crystal()]
    for one, results in zip(several, calc.evaluate(several), strict=True):
        expected = said(model, one)
        assert results["gap"] == pytest.approx(float(expected["gap"]), rel=1e-9)
        np.testing.assert_allclose(results["charges"], expected["charges"], rtol=1e-9, atol=1e-12)
        assert results["energy"] == pytest.approx(float(expected["energies"].sum()), rel=1e-9)


def test_torch_gives_all_in_one_pass(monkeypatch):
    """Where properties were wanted too, the network ran twice."""
    calc, passes = MDGNNCalculator(with_heads("SchNet"), dtype="float64", backend="torch"), []
    once = calc.model.atomic_features
    monkeypatch.setattr(calc.model, "atomic_features", lambda *inputs: passes.append(1) or once(*inputs))
    alone, (among, _) = calc.compute(crystal(), stress=True, others=True), calc.evaluate([crystal()] * 2, stress=True)
    assert len(passes) == 2
    assert alone.keys() == among.keys() == {*calc.implemented_properties}
    for name, value in alone.items():
        np.testing.assert_allclose(among[name], value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_an_ensemble_gives_their_means():
    models = [with_heads("SchNet", seed=seed) for seed in (0, 1)]
    atoms = icosahedron(2, 0.1)
    atoms.calc = Ensemble(models, dtype="float64")
    expected = np.mean([float(said(model, atoms)["gap"]) for model in models])
    assert atoms.calc.get_property("gap", atoms) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="predict energies and the same beside them"):
        Ensemble([models[0], radial("SchNet")])
