"""Small model files for `make fuzz-files`: of all architectures that have a program, in both precisions; and programs
that nobody wrote, in every version."""

import json
import sys
from pathlib import Path

import torch
from heads import with_heads
from random_programs import RandomProgram
from safetensors.numpy import save
from systems import gnn, radial

import mdgnn


def write_program(path, text, weights):
    """A file with a program and without a model; returns its path."""
    program = json.loads(text)
    header = {"format_version": 2 if program["version"] == 1 else 3, "program": program}
    path.write_bytes(save(weights, metadata={"mdgnn": json.dumps(header)}))
    return path


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
            "properties": with_heads("PaiNN", dtype=dtype, **few),
            "no-energies": with_heads("SimpleGNN", energy=False, dtype=dtype, **few),
        }
        for name, model in models.items():
            paths.append(folder / f"{name}-{str(dtype).removeprefix('torch.')}.safetensors")
            mdgnn.save(model, paths[-1], {"note": "π \U0001f600"})
    for version, options in ((1, {"old": True}), (2, {}), (3, {"properties": True})):
        for seed in range(3):
            program = RandomProgram(seed, **options)
            name = f"random-{seed}-version-{version}.safetensors"
            paths.append(write_program(folder / name, *program.arguments()))
    return paths


if __name__ == "__main__":
    write(Path(sys.argv[1]))
