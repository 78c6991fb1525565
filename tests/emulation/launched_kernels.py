"""A pytest plugin (-p launched_kernels): a session fails unless its tests have launched every kernel of the module.

Kernels are the functions of the module whose names the sources declare as `__global__`; each instance of a template is
one of its own.
"""

import re
import subprocess

import pytest
from emulated_cuda import BUILT, MODE, device_library

DECLARED = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\((?:[^()]|\([^()]*\))*\)\s+)?(\w+)\(")
of_workers = set()


def declared_kernels():
    sources = (BUILT.parents[1] / "csrc").rglob("*.*")
    return {name for path in sources if path.suffix in (".cu", ".hpp") for name in DECLARED.findall(path.read_text())}


def kernels_of_module():
    """Their names with template arguments and parameters."""
    (module,) = (BUILT / MODE).glob("_C_cuda*.so")
    listed = subprocess.run(["nm", "-C", "--defined-only", str(module)], capture_output=True, text=True, check=True)
    functions = (line.split(" ", 2) for line in listed.stdout.splitlines())
    return {name for _, kind, name in functions if kind in "tTwW" and name_of(name) in declared_kernels()}


def name_of(function):
    """The name alone; empty for functions within others."""
    name = re.fullmatch(r"(?:void )?(?:\w+::|\(anonymous namespace\)::)*(\w+)(?:<.*>)?\(.*\)", function)
    return name[1] if name and "::{" not in function and "lambda" not in function else ""


def launched():
    text = device_library.emulation_launched_kernels().decode()
    return {line.split(" ", 1)[1] for line in text.splitlines()}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    of_workers.update(node.workeroutput.get("launched", ()))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):
        session.config.workeroutput["launched"] = sorted(launched())
    elif missing := kernels_of_module() - of_workers - launched():
        print("\nno test has launched these kernels:", *sorted(missing), sep="\n    ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
