"""The networks that all benchmarks share: the same weights in every run."""

from typing import Any

import torch
from clusters import CUTOFF

import mdgnn

FEATURES = {"SimpleGNN": 32, "SchNet": 64, "PaiNN": 64}


def make(name: str, n_features: int, **options: Any) -> Any:
    torch.manual_seed(0)
    if name == "SimpleGNN":
        return mdgnn.SimpleGNN(node_dim=n_features, cutoff=CUTOFF, **options)
    return {"SchNet": mdgnn.SchNet, "PaiNN": mdgnn.PaiNN}[name](n_features, 3, 20, cutoff=CUTOFF, **options)
