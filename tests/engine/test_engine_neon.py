"""The engine compiled for ARM, whose vectors are NEON's, gives the package's results but for rounding (make neon)."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="needs Debian's g++-aarch64-linux-gnu and qemu-user, for `make neon`; .ci/run installs them",
)
def test_neon_gives_the_same_results():
    command = ["make", "-s", "neon", f"PY={sys.executable}", "-o", ".venv/.installed-dev"]  # the package is here
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vectors of 16 bytes: 6 models" in done.stdout
