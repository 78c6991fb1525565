"""What tests have launched is known, in whatever process they ran."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.sample("none"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TESTS = """
import pytest
import torch
from mdgnn.ops import Rows, scatter_add

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sum(dtype, worker_id):
    scatter_add(torch.ones(3, 2, dtype=dtype).cuda(), Rows(torch.tensor([0, 3]).cuda()))
    print("in", worker_id)
"""


def test_launches_of_all_workers_count(tmp_path):
    """Two tests, in two processes, launch two kernels."""
    if "emulated_cuda" not in sys.modules:
        pytest.skip("kernels are counted where they are emulated: make emulate")
    (tmp_path / "test_two.py").write_text(TESTS)
    arguments = ["-p", "emulated_cuda", "-p", "launched_kernels", "-n", "2", "-rP", "-c", os.devnull, "--rootdir", "."]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [sys.executable, "-m", "pytest", *arguments, "test_two.py"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert "2 passed" in run.stdout and {"in gw0", "in gw1"} <= set(run.stdout.splitlines()), run.stdout
    assert run.returncode == pytest.ExitCode.TESTS_FAILED
    not_launched = re.findall(r"(\w+)<(float|double)", run.stdout.split("no test has launched these kernels:")[1])
    assert ("max_rows_kernel", "float") in not_launched and ("max_rows_kernel", "double") in not_launched
    assert not {("sum_rows_kernel", "float"), ("sum_rows_kernel", "double")} & set(not_launched)
