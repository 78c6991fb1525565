"""A part of ASE's own tests with our calculator and lists; `make peers` runs all (tests/peers/ase_suite.py)."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ase.test.testsuite", reason="this ASE comes without its tests; `make peers` runs them")
PROGRAM = Path(__file__).parents[1] / "peers" / "ase_suite.py"
QUICK = (
    *("calculator/test_fd.py", "calculator/test_lj.py", "calculator/test_morse.py", "calculator/test_traj.py"),
    *("constraints/test_fixscaled.py", "constraints/test_fixedline_fixedplane.py", "constraints/test_hookean_pbc.py"),
    *("filter/test_strain_emt.py", "filter/test_filter.py", "md/test_md.py", "md/test_langevin_com.py"),
    *("neighbor", "optimize/test_optimize_stepwise.py", "optimize/test_replay.py"),
)


@pytest.mark.parametrize("backend", ["engine", "torch"])
def test_no_test_of_ase_fails_that_is_not_listed(backend):
    command = [sys.executable, PROGRAM, "--backend", backend, *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
