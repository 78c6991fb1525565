"""The list of ASE's tests that cannot pass, as `ase_suite.py` reads it."""

import ase_suite
import pytest

LIST = """
# Figures
any a.py::test_x: why: for this
engine b/c.py::test_y[1]: another

# Not run, as it has no end
torch d.py::test_z*: slow
"""


def test_entries_of_one_backend_with_the_reason_of_their_paragraph():
    both = {"a.py::test_x": "Figures: why: for this"}
    assert ase_suite.read_list(LIST, "engine") == {**both, "b/c.py::test_y[1]": "Figures: another"}
    assert ase_suite.read_list(LIST, "torch") == {**both, "d.py::test_z*": "Not run, as it has no end: slow"}


@pytest.mark.skipif(not ase_suite.SUITE.is_dir(), reason="`make peers` has an ASE with its tests")
@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_what_is_listed_is_there(backend):
    listed = ase_suite.read_list(ase_suite.LISTED.read_text(), backend)
    assert len(listed) > 4
    for pattern, why in listed.items():
        file, name = pattern.split("::")
        function = name.rstrip("*?").partition("[")[0]
        assert f"def {function}" in (ase_suite.SUITE / file).read_text(), pattern
        assert why.split(": ", 1)[0] and why.split(": ", 1)[1], pattern
