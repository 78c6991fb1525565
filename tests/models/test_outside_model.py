"""A model of somebody else: one file, that of docs/add_a_model.md, no registration, and everything works."""

import importlib
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import laws
import numpy as np
import pytest
import torch
from command_line import run, sentence
from safetensors_parts import entry_of, joined, parts
from systems import SYSTEMS, crystal, icosahedron
from training_runs import clusters, file_of

import mdgnn
from mdgnn import Engine, Graph, MDGNNCalculator, evaluate
from mdgnn.dynamics import RunError, restart, simulate
from mdgnn.locate import ModelFileError
from mdgnn.model_file import EngineOnly, digests_of
from mdgnn.model_header import read_header
from mdgnn.ops import scatter_add

GUIDE = (Path(__file__).parents[2] / "docs" / "add_a_model.md").read_text()
OUTSIDE = next(block for block in re.findall(r"```python\n(.*?)```", GUIDE, re.S) if "class Density(" in block)
NAME = "outside_models.density:Density"


@pytest.fixture
def density(tmp_path, monkeypatch):
    """The class, imported from a package that mdgnn does not know."""
    (tmp_path / "outside_models").mkdir()
    (tmp_path / "outside_models" / "density.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("outside_models")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    yield importlib.import_module("outside_models.density").Density
    for name in [name for name in sys.modules if name.startswith("outside_models")]:
        sys.modules.pop(name)


@pytest.fixture
def model(density):
    torch.manual_seed(0)
    return density(8, cutoff=2.5, units="lj").double()


def test_it_is_as_short_as_promised():
    assert len([line for line in OUTSIDE.splitlines() if line.strip()]) <= 25


@pytest.mark.parametrize("system", list(SYSTEMS))
def test_it_obeys_the_laws(model, system):
    atoms = SYSTEMS[system]
    laws.assert_rotation(model, atoms)
    laws.assert_rotation(model, atoms, improper=True)
    laws.assert_translation(model, atoms)
    laws.assert_permutation(model, atoms)
    laws.assert_no_net_force(model, atoms)
    laws.assert_forces_are_minus_gradient(model, atoms)
    laws.assert_bitwise_repeatable(model, atoms)
    if atoms.pbc.all():
        laws.assert_stress_is_strain_derivative(model, atoms)
    laws.assert_extensivity(model, atoms)
    laws.assert_batch_equals_singles(model, list(SYSTEMS.values()))
    laws.assert_smooth_at_the_cutoff(model)


def test_its_dynamics_conserve_energy(model):
    laws.assert_nve_drift_is_second_order(model, icosahedron(2))


def test_it_runs_in_the_engine_and_the_calculator(model):
    graph = Graph.from_atoms(icosahedron(3, 0.05), 2.5)
    laws.assert_equal(Engine(model).evaluate(graph, virial=True), evaluate(model, graph, virial=True), torch.float64)
    atoms = crystal()
    atoms.calc = MDGNNCalculator(model, dtype="float64")
    assert atoms.calc.backend == "engine"
    expected = evaluate(model, Graph.from_atoms(atoms, 2.5)).forces
    np.testing.assert_allclose(atoms.get_forces(), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def test_it_is_saved_and_loaded_as_what_it_is(model, tmp_path):
    path = tmp_path / "m.safetensors"
    mdgnn.save(model, path)
    assert read_header(path)["architecture"] == NAME
    again = mdgnn.load(path)
    assert type(again) is type(model) and again.config == model.config
    graph = Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    assert torch.equal(evaluate(again, graph).forces, evaluate(model, graph).forces)


def test_a_file_imports_nothing_that_nobody_trusts(model, tmp_path, monkeypatch):
    """Importing a module runs it: a file must not choose which."""
    path = tmp_path / "m.safetensors"
    mdgnn.save(model, path)
    monkeypatch.delitem(sys.modules, "outside_models.density")
    sentence = r"holds a 'outside_models.density:Density'.*import outside_models.density first, or .*trusted="
    with pytest.raises(ModelFileError, match=sentence):
        mdgnn.load(path)
    assert "outside_models.density" not in sys.modules
    with pytest.raises(ModelFileError, match=sentence):
        mdgnn.load(path, trusted=["outside_models"])
    assert type(mdgnn.load(path, trusted=["outside_models.density"])).__name__ == "Density"


def test_a_file_runs_no_getattr_of_a_module(model, density, tmp_path, monkeypatch):
    """A package that imports its parts when they are asked for would import what the file names."""
    path, asked, package = tmp_path / "m.safetensors", [], sys.modules["outside_models"]

    def lazily(name):
        asked.append(name)
        if name == "Density":
            return density
        raise AttributeError(name)

    monkeypatch.setattr(package, "__getattr__", lazily, raising=False)
    save_as("outside_models:Density", model, path)
    asked.clear()
    with pytest.raises(ModelFileError, match="outside_models has no class 'Density'"):
        mdgnn.load(path)
    assert not asked
    assert type(mdgnn.load(path, trusted=["outside_models"])) is density


def test_classes_of_a_program_run_elsewhere_by_the_engine(model, density, tmp_path, monkeypatch):
    """They are of __main__ where they were saved: another process has another one."""
    path, atoms = tmp_path / "m.safetensors", icosahedron(2, 0.05)
    mdgnn.save(model, path)
    expected = MDGNNCalculator(path, dtype="float64").get_forces(atoms)
    save_as("__main__:Density", model, path)
    with pytest.raises(ModelFileError, match="'__main__:Density', whose class stands in the program that saved it"):
        mdgnn.load(path)
    np.testing.assert_array_equal(MDGNNCalculator(path, dtype="float64").get_forces(atoms), expected)
    monkeypatch.setattr(sys.modules["__main__"], "Density", density, raising=False)
    assert type(mdgnn.load(path)) is density


def save_as(name, model, path):
    """A file whose model has that name."""
    from safetensors_parts import entry_of, joined, parts

    mdgnn.save(model, path)
    header, tensors = parts(path)
    header["__metadata__"]["mdgnn"] = json.dumps(entry_of(header) | {"architecture": name})
    path.write_bytes(joined(header, tensors))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("json:JSONDecoder", "is no Potential that is a model"),
        ("outside_models.density:Densities", "has no class 'Densities'"),
        ("outside_models.density:nn", "is no Potential that is a model"),
        ("no_such_module:Model", "there is no module 'no_such_module': install it, or put its folder on PYTHONPATH"),
        ("outside_models.density:Density.Config", "of the form 'package.module:Class'"),
        (".density:Density", "of the form 'package.module:Class'"),
        (":Density", "of the form 'package.module:Class'"),
        ("mdgnn:Potential", "is no Potential that is a model"),
        ("nonsense", "holds a 'nonsense', this mdgnn knows LennardJones"),
    ],
)
def test_architectures_that_are_none(model, tmp_path, name, words):
    save_as(name, model, tmp_path / "m.safetensors")
    with pytest.raises(ModelFileError, match=words):
        mdgnn.load(tmp_path / "m.safetensors", trusted=[name.partition(":")[0]])


def test_it_trains_from_a_file_and_drives_dynamics(density, tmp_path, monkeypatch):
    pytest.importorskip("lightning")
    from mdgnn.training.config import ConfigError, parse, read
    from mdgnn.training.run import train

    data, toml = file_of(tmp_path / "data.xyz", clusters(16)), tmp_path / "train.toml"
    toml.write_text(
        f'model = {{ architecture = "{NAME}", n_features = 6, cutoff = 2.5, units = "lj", n_knots = 64 }}\n'
        f'data = {{ train = "{data}", valid = 0.25, batch_size = 4 }}\nrun = {{ epochs = 2, threads = 1 }}\n'
    )
    assert run("train", toml, "--output", tmp_path / "run").exit_code == 0
    content = read(toml).content()
    path = tmp_path / "run" / "model.safetensors"
    trained = mdgnn.load(path)
    assert type(trained) is density and trained.config.n_features == 6 and trained.min_distance > 0.5
    with monkeypatch.context() as context:  # fine-tuning, by a process that has not imported the module
        context.delitem(sys.modules, "outside_models.density")
        content["model"] = {"start": str(path)}
        with pytest.raises(ModelFileError, match="importing a module runs it"):
            train(parse(content), tmp_path / "tuned")
        content["model"]["trusted"] = ["outside_models.density"]
        train(parse(content), tmp_path / "tuned")
        context.delitem(sys.modules, "outside_models.density")
        told = run("evaluate", path, data, "--output", tmp_path / "errors")
        assert told.exit_code == 1 and "importing a module runs it" in sentence(told)
        told = run("evaluate", path, data, "--output", tmp_path / "errors", "--trust", "outside_models.density")
        assert told.exit_code == 0, told.stderr
    with pytest.raises(ConfigError, match=r"\[model\] trusted: there is no module 'no_such_module'"):
        parse({**content, "model": {"start": str(path), "trusted": ["no_such_module"]}})
    told = run("md", "lj:13", "--model", path, "--steps", 3, "--output", tmp_path / "md")
    assert told.exit_code == 0, sentence(told)


CONSTRUCTORS = {
    "a configuration alone": "(self, config):\n        super().__init__(config)",
    "anything": "(self, *args, **options):\n        super().__init__(*args, **options)\n        config = self.config",
}


@pytest.mark.parametrize("takes", list(CONSTRUCTORS))
def test_constructors_that_are_not_decorated_do_too(density, tmp_path, takes):
    pytest.importorskip("lightning")
    decorated = re.search(r"    @takes_options_of.*?super\(\).__init__\(config\)", OUTSIDE, re.S)[0]
    plain = OUTSIDE.replace(decorated, f"    def __init__{CONSTRUCTORS[takes]}")
    (tmp_path / "outside_models" / "plain.py").write_text(plain)
    importlib.invalidate_caches()
    data, toml = file_of(tmp_path / "data.xyz", clusters(8)), tmp_path / "train.toml"
    toml.write_text(
        'model = { architecture = "outside_models.plain:Density", n_features = 6, cutoff = 2.5, units = "lj" }\n'
        f'data = {{ train = "{data}", valid = 0.25, batch_size = 4 }}\nrun = {{ epochs = 1, threads = 1 }}\n'
    )
    done = run("train", toml, "--output", tmp_path / "run")
    assert done.exit_code == 0, sentence(done)
    assert mdgnn.load(tmp_path / "run" / "model.safetensors").config.n_features == 6


def test_what_is_wrong_with_its_options_is_a_sentence(density):
    with pytest.raises(TypeError, match="Density has no option 'n_feature'; options are .*; did you mean 'n_features'"):
        density(n_feature=3)
    with pytest.raises(ValueError, match="expected a positive cutoff, got -1"):
        density(cutoff=-1.0)
    with pytest.raises(ValueError, match=r"expected n_features as an integer, got 3\.5"):
        density(n_features=3.5)
    config = density.Config(4, cutoff=3.0)
    assert density(config).config is config
    with pytest.raises(TypeError, match="one DensityConfig or options"):
        density(config, cutoff=2.0)


def test_calculators_run_a_file_whose_module_is_not_imported(model, tmp_path, monkeypatch):
    """By the engine's program: the same bits, without running a line of the module."""
    path, atoms = tmp_path / "m.safetensors", icosahedron(2, 0.05)
    mdgnn.save(model, path)
    expected = MDGNNCalculator(path, dtype="float64").get_forces(atoms)
    monkeypatch.delitem(sys.modules, "outside_models.density")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    calculator = MDGNNCalculator(path, dtype="float64")
    assert calculator.backend == "engine" and calculator.model.units == "lj"
    np.testing.assert_array_equal(calculator.get_forces(atoms), expected)
    for options in ({"dtype": "float32"}, {"dtype": "float64", "backend": "torch"}):
        with pytest.raises(ValueError, match="Density' is not imported: .* import outside_models.density first"):
            MDGNNCalculator(path, **options)
    assert "by the program alone" in run("info", path).output
    assert digests_of(calculator.model) == digests_of(model), "a run goes on with either"
    atoms.calc = calculator
    assert "outside_models.density" not in sys.modules


def test_a_run_with_an_older_file_goes_on_with_and_without_the_class(model, tmp_path, monkeypatch):
    """Which has options that the file does not know: without the class nobody knows their defaults."""
    mdgnn.save(model, tmp_path / "new.safetensors")
    header, data = parts(tmp_path / "new.safetensors")
    entry = entry_of(header)
    del entry["config"]["repulsion"], entry["config"]["n_features"]
    entry["config"]["shift"] = 0.0  # in another form
    header["__metadata__"]["mdgnn"] = json.dumps(entry)
    path = tmp_path / "old.safetensors"
    path.write_bytes(joined(header, data))

    def calculator(source):
        return MDGNNCalculator(source, dtype="float64")

    cases = {"class": calculator(path), "memory": calculator(model)}
    assert not isinstance(cases["class"].model, EngineOnly), "loaded while the class is there"
    simulate(icosahedron(2, 0.05), calculator(model), folder=tmp_path / "memory", steps=1)
    simulate(icosahedron(2, 0.05), calculator(path), folder=tmp_path / "class", steps=1)
    other = calculator(type(model)(cutoff=3.0, units="lj"))
    monkeypatch.delitem(sys.modules, "outside_models.density")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    cases["file"] = calculator(path)
    assert isinstance(cases["file"].model, EngineOnly)
    simulate(icosahedron(2, 0.05), calculator(path), folder=tmp_path / "file", steps=1)
    for begun, goes_on in (("class", "file"), ("file", "class"), ("memory", "class"), ("class", "class")):
        restart(tmp_path / begun, calculator=cases[goes_on], steps=2)
        with pytest.raises(RunError, match="has other weights or parameters"):
            restart(tmp_path / begun, calculator=other, steps=2)


def test_files_that_nobody_could_load_are_not_written(tmp_path):
    class Local(mdgnn.SchNet):
        pass

    with pytest.raises(TypeError, match="expected a model whose class stands in a module, got .*Local"):
        mdgnn.save(Local(4, 1, 4), tmp_path / "m.safetensors")


def test_the_old_name_of_min_distance_is_told():
    with pytest.warns(DeprecationWarning, match="least_distance of models is called min_distance now"):
        model = mdgnn.SchNet(4, 1, 4, least_distance=0.7)
    assert model.min_distance == 0.7
    with pytest.warns(DeprecationWarning, match="min_distance"):
        assert model.least_distance == 0.7


@pytest.mark.parametrize("kind", [mdgnn.LennardJones, mdgnn.PaiNN, mdgnn.SchNet, mdgnn.SimpleGNN])
def test_constructors_show_and_take_options_or_a_configuration(kind):
    """Those of a derived class too. What mypy knows of them: support/typed_constructors.py, of `make check`."""
    fields = list(inspect.signature(kind.Config).parameters.values())
    for shown in (inspect.signature(kind), inspect.signature(kind.__init__)):
        assert [p for p in shown.parameters.values() if p.name != "self"] == fields

    @dataclass(frozen=True, kw_only=True)
    class Longer(kind.Config):
        more: int = 0

    class Derived(kind):
        Config = Longer

    model = Derived(cutoff=2.0, more=3)
    assert model.config == Longer(cutoff=2.0, more=3) == Derived(model.config).config
    assert kind(cutoff=2.0).config == kind(kind.Config(cutoff=2.0)).config == kind.Config(cutoff=2.0)
    with pytest.raises(TypeError, match=f"{kind.__name__} has no option 'more'"):
        kind(more=3)


def test_a_warning_names_the_line_that_makes_the_model(density):
    for kind in (mdgnn.SchNet, density):  # with and without `takes_options_of`
        with pytest.warns(DeprecationWarning, match="min_distance") as caught:
            kind(least_distance=0.7)
        assert caught[0].filename == __file__


def test_an_option_by_its_old_and_its_new_name_is_refused():
    with (
        pytest.warns(DeprecationWarning, match="called min_distance now"),
        pytest.raises(TypeError, match="SchNet was given min_distance twice: as least_distance, too"),
    ):
        mdgnn.SchNet(4, 1, 4, least_distance=0.7, min_distance=0.8)
    with pytest.raises(TypeError, match="given an option twice"):
        mdgnn.SchNet.Config.from_json("SchNet", {"least_distance": 0.7, "min_distance": 0.8})


def test_a_second_cutoff_has_its_place():
    """Graphs reach as far as the largest."""

    @dataclass(frozen=True, kw_only=True)
    class Config(mdgnn.ModelConfig):
        triplet_cutoff: float = 3.0

        @property
        def cutoffs(self):
            return self.cutoff, self.triplet_cutoff

    class Triplets(mdgnn.Potential):
        pass

    Triplets.Config = Config
    assert Triplets(cutoff=4.0).cutoffs == (4.0, 3.0) and Triplets(cutoff=4.0).cutoff == 4.0
    assert Triplets(cutoff=2.5).cutoff == 3.0


def test_what_a_model_lacks_is_named(density, tmp_path):
    """By all who use it, without a warning before the error."""

    class NoBody(mdgnn.Potential):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.output_mlp = torch.nn.Linear(1, 1)

    class NoOutput(density):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            del self.output_mlp

    atoms = icosahedron(2, 0.05)
    for kind, missing in ((NoBody, "atomic_features"), (NoOutput, "output_mlp: make one in __init__, such as MLP")):
        model = kind(cutoff=2.5)
        for use in (
            Engine,
            MDGNNCalculator,
            lambda model: MDGNNCalculator(model, backend="torch").get_potential_energy(atoms),
            lambda model: mdgnn.evaluate(model, Graph.from_atoms(atoms, 2.5)),
            lambda model: model.attach_heads([], True),
        ):
            with pytest.raises(NotImplementedError, match=f"{kind.__name__} has no {missing}"):
                use(model)


def test_a_model_of_energies_alone_needs_no_output_layer():
    """Nor has it one that training could scale, or features that properties are read from."""

    class Energies(mdgnn.Potential):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.depth = torch.nn.Parameter(torch.ones(1))

        def atomic_energies(self, graph, vectors):
            return scatter_add((-(vectors**2).sum(1, keepdim=True)).exp() * self.depth, graph.edges_by_receiver)[:, 0]

    model = Energies(cutoff=2.5)
    with pytest.raises(ValueError, match="Energies has no features of atoms to predict properties from"):
        model.attach_heads([mdgnn.nn.Property("gap", "atomic", [0.0], 1.0)], True)
    model.output_mlp = torch.nn.Linear(3, 1)
    with pytest.raises(ValueError, match="Energies has atomic_energies of its own: expected energies_and_properties"):
        model.attach_heads([mdgnn.nn.Property("gap", "atomic", [0.0], 1.0)], True)
    del model.output_mlp
    pytest.importorskip("lightning")
    from mdgnn.training.first import calibrate

    calibrate(model, None, None)
    assert float(model.depth.detach()) == 1


def test_a_layer_may_have_the_name_of_the_program(density, monkeypatch, tmp_path):
    """Tensors of the program itself begin so, too, and have numbers."""

    class Program(density):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.program = torch.nn.ParameterList([torch.nn.Parameter(torch.rand(self.config.n_features))])

        def atomic_features(self, graph, vectors, types):
            return super().atomic_features(graph, vectors, types) * (1 + self.program[0])

    Program.__module__, Program.__qualname__ = density.__module__, "Program"
    monkeypatch.setattr(sys.modules[density.__module__], "Program", Program, raising=False)
    torch.manual_seed(0)
    model, path = Program(8, cutoff=2.5, units="lj").double(), tmp_path / "m.safetensors"
    mdgnn.save(model, path)
    state = mdgnn.load(path).state_dict()
    assert state.keys() == model.state_dict().keys() and "program.0" in state
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    graph = Graph.from_atoms(icosahedron(2, 0.05), 2.5)
    assert torch.equal(Engine.load(path).evaluate(graph).forces, Engine(model).evaluate(graph).forces)
