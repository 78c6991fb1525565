"""The stub of the module for CUDA, as `make check` compares that of the CPU's."""

from pathlib import Path

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.sample("none"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_the_stub_has_the_functions_and_their_arguments(monkeypatch):
    stubtest = pytest.importorskip("mypy.stubtest")
    monkeypatch.chdir(Path(__file__).parents[2])  # where mypy looks for the stub
    assert stubtest.test_stubs(stubtest.parse_options(["mdgnn._C_cuda"])) == 0
