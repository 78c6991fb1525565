"""The neighbour list has the same bits on every level of SIMD: its C++ alone, compiled for each (levels-neighbors)."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not (shutil.which("make") and shutil.which("g++")), reason="needs g++ and make: `make test` has them"
)
def test_the_same_bits_on_every_level():
    done = subprocess.run(["make", "-s", "levels-neighbors"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("hash") >= 2
