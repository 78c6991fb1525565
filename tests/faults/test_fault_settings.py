"""Under other people's settings: what torch has been set to around a calculator changes none of its results.

Inference mode around making one spoiled the torch backend for ever; autocast raised deep inside.
"""

import contextlib

import numpy as np
import pytest
import torch
from systems import crystal, gnn, radial

import mdgnn
from mdgnn import Engine, Graph, MDGNNCalculator, evaluate

SETTINGS = {
    "inference mode": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "all of them": contextlib.ExitStack,
}
MODELS = {
    "lj": lambda: mdgnn.load("lj"),
    "SimpleGNN": gnn,
    "max": lambda: gnn(aggregation="max"),
    "SchNet": lambda: radial("SchNet"),
    "direct": lambda: radial("PaiNN", filters="direct"),
    "LennardJones": lambda: mdgnn.LennardJones(cutoff=2.5),
}


@contextlib.contextmanager
def set_to(name):
    with SETTINGS[name]() as stack:
        if name == "all of them":
            for other in list(SETTINGS)[:-1]:
                stack.enter_context(SETTINGS[other]())
        yield


def results(calculator):
    atoms = crystal()
    computed = calculator.compute(atoms, stress=True)
    (again,) = calculator.evaluate(atoms, stress=True)
    return computed, again


def assert_same(actual, expected):
    for one, other in zip(actual, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


BACKENDS = {
    "lj": ["engine", "torch"],
    "SimpleGNN": ["engine", "torch"],
    "SchNet": ["engine", "torch"],
}  # others: torch's
CASES = [("lj", backend, setting) for backend in BACKENDS["lj"] for setting in SETTINGS]
CASES += [(name, b, "all of them") for name in MODELS if name != "lj" for b in BACKENDS.get(name, ["torch"])]


@pytest.mark.parametrize(("name", "backend", "setting"), CASES)
def test_made_and_used_under_a_setting(name, backend, setting):
    model = MODELS[name]()
    expected = results(MDGNNCalculator(model, backend=backend))
    with set_to(setting):
        inside = MDGNNCalculator(model, backend=backend)
        assert_same(results(inside), expected)
    assert_same(results(inside), expected)
    outside = MDGNNCalculator(model, backend=backend)
    with set_to(setting):
        assert_same(results(outside), expected)
    assert_same(results(outside), expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_files_and_engines_under_a_setting(setting, tmp_path):
    expected = Engine(mdgnn.load("water")).evaluate(Graph.from_atoms(crystal_of_hydrogen(), 3.5))
    with set_to(setting):
        model = mdgnn.load("water")
        mdgnn.save(model, tmp_path / "m.safetensors")
        engines = Engine(model), Engine.load(tmp_path / "m.safetensors")
    graph = Graph.from_atoms(crystal_of_hydrogen(), 3.5)
    for engine in engines:
        assert torch.equal(engine.evaluate(graph).forces, expected.forces)
    prediction = evaluate(model.requires_grad_(True), graph, create_graph=True)
    prediction.forces.square().sum().backward()  # parameters are not inference's


def crystal_of_hydrogen():
    atoms = crystal()
    atoms.numbers[:] = 1
    return atoms


def test_a_model_that_was_made_in_inference_mode():
    with torch.inference_mode():
        model = radial("SchNet")
    graph = Graph.from_atoms(crystal(), 2.5)
    first = evaluate(model, graph, forces=False).energy
    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert not torch.equal(evaluate(model, graph, forces=False).energy, first), "tables of the weights of before"
    with torch.inference_mode():
        model = radial("SchNet")
    calculator = MDGNNCalculator(model, backend="torch")
    assert_same(results(calculator), results(MDGNNCalculator(radial("SchNet"), backend="torch")))


@pytest.mark.parametrize("name", ["SimpleGNN", "SchNet", "direct", "LennardJones"])
def test_evaluate_within_inference_mode_and_autocast(name):
    """A graph that was made inside has tensors that autograd may not keep."""
    model, atoms = MODELS[name](), crystal()
    expected = evaluate(model, Graph.from_atoms(atoms, 2.5), virial=True)
    for setting in ("inference mode", "autocast"):
        with set_to(setting):
            prediction = evaluate(model, Graph.from_atoms(atoms, 2.5), virial=True)
        for one, other in zip(prediction[:4], expected[:4], strict=True):
            assert torch.equal(one, other)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_settings_are_as_they_were(two_threads):
    before = (torch.get_default_dtype(), torch.get_default_device(), torch.get_num_threads(), torch.is_grad_enabled())
    with torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"):
        results(MDGNNCalculator("lj", backend="torch"))
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert torch.get_default_device().type == "meta"
    assert before == (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )


def test_random_numbers_are_left_to_the_caller():
    """Loading a model drew weights, only to replace them."""
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    MDGNNCalculator("lj")
    mdgnn.load("acac")
    assert torch.equal(torch.rand(3), expected)


def test_the_precision_of_products_is_the_calculators_own(monkeypatch):
    """On GPUs, and processors with bfloat16, the setting of the process changes results."""
    seen = []
    calculator = MDGNNCalculator("lj", backend="torch")
    evaluated = mdgnn.calculators.by_torch.evaluate

    def watched(*arguments, **options):
        seen.append(torch.get_float32_matmul_precision())
        return evaluated(*arguments, **options)

    monkeypatch.setattr(mdgnn.calculators.by_torch, "evaluate", watched)
    torch.set_float32_matmul_precision("medium")
    try:
        results(calculator)
        assert seen == ["highest"] * 2 and torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
