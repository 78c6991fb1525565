"""ASE's own tests with our calculator and neighbour lists in the place of ASE's: ``python tests/peers/ase_suite.py``.

All neighbour lists are ours, LennardJones is ours, and MorsePotential is a model of pairs, which the engine runs too.
EMT and ASAP's EMT are, with ``--backend torch``, the same potential as a model: the figures of ASE's tests hold. With
the engine, which has no logarithm, they are pairs of Morse: where a test's subject is ASE's machinery, it passes all
the same. What cannot pass is listed in ase_failures.txt, with why; any other failure fails the run, and so does a
listed test that passes.
"""

import argparse
import os
import signal
import sys
from fnmatch import fnmatchcase
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import ase.neighborlist
import pytest

import mdgnn
from mdgnn.adapters.ase import PrimitiveNeighborList

HERE = Path(__file__).parent
SUITE = Path(ase.__file__).parent / "test"
LISTED = HERE / "ase_failures.txt"
FOLDERS = ("calculator", "constraints", "filter", "md", "neb", "neighbor", "optimize", "precon")
LONGEST = 600  # seconds of processor time a test may take, which other work on the machine does not shorten


def substitute(backend):
    """Put ours in the place of ASE's, before a test is imported: lists first, which ASE's calculators import."""
    for name in ("neighbor_list", "primitive_neighbor_list", "first_neighbors"):
        setattr(ase.neighborlist, name, getattr(mdgnn, name))
    for name in ("PrimitiveNeighborList", "NewPrimitiveNeighborList"):
        setattr(ase.neighborlist, name, PrimitiveNeighborList)
    start = ase.neighborlist.NeighborList.__init__
    start.__defaults__ = (*start.__defaults__[:-1], PrimitiveNeighborList)

    os.environ["ASE_SUITE_BACKEND"] = backend  # for processes that a test starts, too
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
    import ase_models
    from ase.calculators import emt, h2morse, lj, morse  # noqa: F401  (h2morse keeps ASE's MorsePotential)

    emt.EMT, morse.MorsePotential = ase_models.EMT, ase_models.MorsePotential
    lj.LennardJones = ase_models.LennardJones
    asap = ModuleType("asap3")
    asap.EMT, asap.__version__, asap.__spec__ = ase_models.EMT, "ours", ModuleSpec("asap3", None)
    sys.modules["asap3"] = asap


def read_list(text, backend):
    """By test, why it is expected to fail: lines ``backend test: why`` in paragraphs that begin with ``# kind``."""
    listed, kind = {}, ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("#"):
            kind = line.lstrip("# ")
            continue
        test, why = line.split(": ", 1)
        of, test = test.split(" ", 1)
        if of in ("any", backend):
            listed[test] = f"{kind}: {why}"
    return listed


class Listed:
    """A plugin that expects the failures of the list, and ends a test that has no end."""

    def __init__(self, listed):
        self.listed, self.unseen = listed, set(listed)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        signal.signal(signal.SIGPROF, self._too_long)
        signal.setitimer(signal.ITIMER_PROF, LONGEST)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _too_long(self, *arguments):
        raise TimeoutError(f"not done after {LONGEST} s of processor time")

    def pytest_collection_modifyitems(self, items):
        for item in items:
            name = f"{item.path.relative_to(SUITE).as_posix()}::{item.name}"
            for pattern, why in self.listed.items():
                if fnmatchcase(name, pattern.replace("[", "[[]")):
                    self.unseen.discard(pattern)
                    item.add_marker(pytest.mark.xfail(reason=why, strict=True, run=not why.startswith("Not run")))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", default=FOLDERS, help="files and folders of ase.test")
    parser.add_argument("--backend", choices=("engine", "torch"), default="engine")
    options, rest = parser.parse_known_args()
    substitute(options.backend)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    listed = Listed(read_list(LISTED.read_text(), options.backend))
    arguments = ["-c", os.devnull, "--rootdir", str(SUITE), "-p", "no:cacheprovider", "-q", *rest]
    status = pytest.main([*arguments, *(str(SUITE / path) for path in options.paths)], plugins=[listed])
    if options.paths is FOLDERS and listed.unseen:
        sys.exit(f"{LISTED.name} lists what is no test: {', '.join(sorted(listed.unseen))}")
    sys.exit(status)


if __name__ == "__main__":
    main()
