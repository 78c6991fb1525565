"""Rules of the house: which way imports point, what importing costs, what the compiled sources may contain."""

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {  # layer: layers below it
    "_internal": {"_internal", "threads"},
    "threads": set(),
    "ops": {"_C", "_C_cuda", "_internal", "threads", "ops"},
    "pair_cutoffs": set(),
    "locate": set(),
    "properties": set(),
    "model_header": {"locate", "properties"},
    "neighbors": {"_C", "threads", "ops", "pair_cutoffs"},  # ops: for tensors, when they come
    "adapters": {"adapters", "neighbors", "ops", "pair_cutoffs"},
    "graph": {"_internal", "ops", "neighbors"},
    "nn": {"_internal", "graph", "ops", "nn", "properties", "threads"},
    "model_config": {"model_header", "nn"},
    "potential": {"_internal", "graph", "model_config", "nn", "ops"},
    "models": {"_internal", "graph", "ops", "nn", "model_config", "potential", "models"},
    "engine": {
        *("_C", "_internal", "engine", "graph", "locate", "model_header", "neighbors", "nn", "ops", "potential"),
        *("threads",),
    },
    "model_file": {"_internal", "engine", "locate", "model_config", "model_header", "models", "nn", "potential"},
    "calculators": {
        *("_internal", "calculators", "engine", "graph", "model_file", "model_header", "neighbors", "nn", "ops"),
        *("potential", "properties"),
    },
    "calculator": {"MDGNNCalculator", "calculators"},  # warns, and goes with the next release
    "data": {"_internal", "data", "graph", "neighbors", "ops"},
    "plots": {"_internal", "neighbors", "plots"},
    "training": {
        *("_internal", "data", "graph", "locate", "model_config", "model_file", "model_header", "models", "nn"),
        *("ops", "plots", "potential", "properties", "threads", "training"),
    },
    "dynamics": {
        *("_C", "_internal", "calculators", "data", "dynamics", "locate", "models", "neighbors", "plots", "threads"),
    },
    "cli": {
        *("_internal", "calculators", "cli", "data", "dynamics", "engine", "locate", "model_file", "model_header"),
        *("models", "neighbors", "plots", "potential", "threads", "training"),
    },
}
NO_LAYERS = {
    "__init__",
    "__main__",
    "_C",
    "_C_cuda",
    "pretrained",
}  # the lazy package, its command, binaries, scripts and files of models
MAY_INCLUDE = {  # folder of csrc: those that its sources may include from
    "core": {"core"},
    "neighbors": {"core", "neighbors"},
    "ops": {"core", "ops"},
    "engine": {"core", "ops", "engine"},
    "dynamics": {"core", "neighbors", "engine", "dynamics"},
    "bindings": {"core", "neighbors", "ops", "engine", "dynamics", "bindings"},
}


def imports_of(path):
    """Layers of the package; of a relative import the dots, as no layer may have any."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("mdgnn"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("mdgnn."))


def includes_of(path):
    """In brackets or quotes, with any blanks."""
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', path.read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    "text", ['#include "torch/extension.h"', "#include <torch/all.h>", "  #  include<ATen/ATen.h>"]
)
def test_an_include_is_seen_however_it_is_written(tmp_path, text):
    (tmp_path / "x.hpp").write_text(f"#pragma once\n{text}\n")
    (name,) = includes_of(tmp_path / "x.hpp")
    assert name.split("/")[0] in ("torch", "ATen")


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("from mdgnn.data import Dataset", ["data"]),
        ("from mdgnn import ops, graph", ["ops", "graph"]),
        ("import mdgnn.data.labels as labels", ["data"]),
        ("def late():\n    from mdgnn.cli import app", ["cli"]),
        ("from . import data", ["."]),
        ("from ..data import Dataset", [".."]),
        ("import numpy", []),
    ],
)
def test_an_import_is_seen_however_it_is_written(tmp_path, text, layers):
    (tmp_path / "x.py").write_text(text)
    assert list(imports_of(tmp_path / "x.py")) == layers


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_point_one_way(layer):
    package = ROOT / "mdgnn"
    files = [package / f"{layer}.py"] if (package / f"{layer}.py").exists() else list((package / layer).rglob("*.py"))
    assert files
    for path in files:
        assert set(imports_of(path)) <= MAY_IMPORT[layer], path


def test_every_module_has_a_layer_and_layers_are_in_an_order():
    layers = {path.name.split(".")[0] for path in (ROOT / "mdgnn").iterdir() if path.suffix in (".py", "") and (
        path.is_file() or any(path.glob("*.py")))}  # fmt: skip
    assert layers - NO_LAYERS == set(MAY_IMPORT)
    below = {layer: (names - {layer}) & set(MAY_IMPORT) for layer, names in MAY_IMPORT.items()}
    assert list(TopologicalSorter(below).static_order())[-1] == "cli"  # raises for a circle


def circle_of(imports):
    """Modules that import each other in a circle, or none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_modules_import_each_other_in_no_circle():
    """Siblings of a layer too, in functions as on top: what one needs of another can be read alone."""
    paths = {_name_of(path): path for path in (ROOT / "mdgnn").rglob("*.py")}
    imports = {name: _modules_imported(path, paths) - {name} for name, path in paths.items()}
    assert sum(map(len, imports.values())) > len(paths), "imports that are not seen make no circle"
    assert circle_of(imports) == []


def test_a_circle_of_imports_is_seen(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.py").write_text(f"def late():\n    from mdgnn import {other}\n")
    known = {"mdgnn.a": tmp_path / "a.py", "mdgnn.b": tmp_path / "b.py"}
    assert set(circle_of({name: _modules_imported(path, known) for name, path in known.items()})) == set(known)


def _name_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _modules_imported(path, known):
    """Names of modules of the package; what is imported for the type checker alone does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {module if module in known else node.module for module in modules.values()}
    return names & set(known)


MADE_BY_HAND = {  # files that make what a declaration makes, and why
    "declaration": {"Function"},  # the ops' own
    "operators": {"Library"},  # the ops' own
    "edge_vectors": {"Function"},  # the forward returns what a search has computed: there is no kernel to declare
    "csr": {"Library"},  # counting_sort: integers without derivatives
    "neighbor_search": {"Library"},  # a search without derivatives, whose results differ in number and size
    "fused_network": {"Function"},  # a whole network with a list of weights, whose second derivatives are its layers'
}


def made_by_hand(path):
    """Autograd functions and libraries of operators that a module makes."""
    for node in ast.walk(ast.parse(path.read_text())):
        used = []
        if isinstance(node, ast.ClassDef):
            used = node.bases
        elif isinstance(node, ast.Call):
            used = [node.func, *(base for a in node.args if isinstance(a, ast.Tuple) for base in a.elts)]
        names = {ast.unparse(name).split(".")[-1] for name in used}
        yield from names & {"Function", "Library", "custom_op", "triton_op"}


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("class F(torch.autograd.Function): pass", ["Function"]),
        ("class F(Function): pass", ["Function"]),
        ("F = type('F', (Function,), {})", ["Function"]),
        ("_library = torch.library.Library('mdgnn', 'FRAGMENT')", ["Library"]),
        ("@torch.library.custom_op('mdgnn::f', mutates_args=())\ndef f(x): pass", ["custom_op"]),
        ("def f(function: type[Function]): return Op(x)", []),
    ],
)
def test_what_is_made_by_hand_is_seen(tmp_path, text, made):
    (tmp_path / "x.py").write_text(text)
    assert list(made_by_hand(tmp_path / "x.py")) == made


def test_ops_are_made_by_their_declarations():
    """Checks, derivatives, operators and tests follow from these alone."""
    made = {path.stem: set(made_by_hand(path)) for path in (ROOT / "mdgnn").rglob("*.py")}
    assert {name: of for name, of in made.items() if of} == MADE_BY_HAND


def test_import_loads_neither_torch_nor_ase_and_touches_nothing():
    code = (
        "import sys, mdgnn; dir(mdgnn); mdgnn.neighbor_list; "
        "assert not {'torch', 'ase', 'matplotlib', 'lightning', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import torch; before = torch.get_default_dtype(), torch.initial_seed(), torch.get_num_threads()\n"
        "import mdgnn; [getattr(mdgnn, n) for n in mdgnn.__all__]\n"
        "assert before == (torch.get_default_dtype(), torch.initial_seed(), torch.get_num_threads())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_kernels_know_neither_torch_nor_the_machine():
    sources = [p for p in (ROOT / "csrc").rglob("*") if p.is_file()]
    assert {path.relative_to(ROOT / "csrc").parts[0] for path in sources} == set(MAY_INCLUDE), "all have rules"
    for path in sources:
        heads = {re.split(r"[/.]", name)[0] for name in includes_of(path)}
        assert not heads & {"torch", "ATen", "c10"}, path
        folder = path.relative_to(ROOT / "csrc").parts[0]
        assert folder == "bindings" or not heads & {"pybind11", "Python"}, path
        ours = {name.split("/")[0] for name in includes_of(path)} & set(MAY_INCLUDE)
        assert ours <= MAY_INCLUDE[folder], path
    assert "-march=native" not in (ROOT / "CMakeLists.txt").read_text().replace("never -march=native", "")


def test_unknown_attribute_is_an_attribute_error():
    import mdgnn

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mdgnn.nonsense
