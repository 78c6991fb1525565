"""Random lists and ops on CUDA and the CPU; `make emulate-fuzz COUNT=10000` for many."""

import os

import pytest
import torch
from fuzz import check

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
COUNT, SEED = (int(os.environ.get(f"MDGNN_FUZZ_{name}", default)) for name, default in (("COUNT", 200), ("SEED", 0)))
OF_A_TEST = 20


@pytest.mark.parametrize("first", range(0, COUNT, OF_A_TEST))
def test_random_cases_equal_the_cpus(first):
    for number in range(first, min(first + OF_A_TEST, COUNT)):
        check(SEED, number)
