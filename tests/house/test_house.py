"""Rules of the house: which way imports point, what importing costs, what the compiled sources may contain."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAY_IMPORT = {  # layer: layers below it
    "_internal": {"_internal", "threads"},
    "threads": set(),
    "ops": {"_C", "_C_cuda", "_internal", "threads", "ops"},
    "pair_cutoffs": set(),
    "locate": set(),
    "neighbors": {"_C", "threads", "ops", "pair_cutoffs"},  # ops: for tensors, when they come
    "adapters": {"adapters", "neighbors", "ops", "pair_cutoffs"},
    "graph": {"_internal", "ops", "neighbors"},
    "nn": {"_internal", "graph", "ops", "nn", "threads"},
    "model_config": {"nn"},
    "potential": {"_internal", "graph", "model_config", "nn", "ops"},
    "models": {"graph", "ops", "nn", "model_config", "potential", "models"},
    "engine": {"_C", "_internal", "threads", "ops", "graph", "locate", "neighbors", "nn", "potential", "engine"},
    "model_file": {"_internal", "engine", "locate", "model_config", "models", "nn", "potential"},
    "calculators": {
        *("_internal", "calculators", "engine", "graph", "model_file", "models", "neighbors", "nn", "ops", "potential"),
    },
    "data": {"_internal", "data", "graph", "neighbors", "ops"},
    "plots": {"_internal", "neighbors", "plots"},
    "training": {
        *("_internal", "data", "graph", "locate", "model_config", "model_file", "models", "nn", "plots", "potential"),
        *("threads", "training"),
    },
}


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mdgnn"):
            parts = node.module.split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        if isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("mdgnn."))


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_imports_point_one_way(layer):
    package = ROOT / "mdgnn"
    files = [package / f"{layer}.py"] if (package / f"{layer}.py").exists() else list((package / layer).glob("*.py"))
    assert files
    for path in files:
        assert set(imports_of(path)) <= MAY_IMPORT[layer], path


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
    assert sources
    for path in sources:
        text = path.read_text()
        assert not any(f"#include <{name}" in text for name in ("torch", "ATen", "c10")), path
    assert "-march=native" not in (ROOT / "CMakeLists.txt").read_text().replace("never -march=native", "")


def test_unknown_attribute_is_an_attribute_error():
    import mdgnn

    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mdgnn.nonsense
