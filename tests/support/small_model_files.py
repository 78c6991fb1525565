"""Small model files of all architectures that have a program, in both precisions, for `make fuzz-files`."""

import sys
from pathlib import Path

import torch
from systems import gnn, radial

import mdgnn


def write(folder):
    """The paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for dtype in (torch.float32, torch.float64):
        few = {"n_knots": 3, "elements": [1, 8], "shift": [-1.5, 0.1], "scale": [0.5, 2.0]}
        models = {
            "sum": gnn(dtype, **few),
            "mean": gnn(dtype, aggregation="mean", readout="mean", **few),
            "schnet": radial("SchNet", dtype, **few),
            "painn": radial("PaiNN", dtype, **few),
        }
        for name, model in models.items():
            paths.append(folder / f"{name}-{str(dtype).removeprefix('torch.')}.safetensors")
            mdgnn.save(model, paths[-1], {"note": "π \U0001f600"})
    return paths


if __name__ == "__main__":
    write(Path(sys.argv[1]))
