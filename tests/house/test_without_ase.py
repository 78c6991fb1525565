"""Where ASE is absent, what the tests' conftest names is collected: one file that imports it would stop all."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT = """
from importlib.machinery import PathFinder

of_all = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, *rest: None if name.split(".")[0] == "ase" else of_all(name, *rest)
)
"""


def test_what_needs_no_ase_is_collected_without(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(WITHOUT)
    command = [sys.executable, "-m", "pytest", "tests", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert "test_painn_message.py" in done.stdout and "test_calculator.py" not in done.stdout
