"""What `make levels-engine` and `make neon` compare: a structure, model files and, beside each, what the package's
engine makes of it. Rows of 71 = 64 + 4 + 2 + 1 features need vectors of every length and single numbers."""

import sys
from pathlib import Path

import numpy as np
import torch

import mdgnn

WIDTH = 71
OPTIONS = {"elements": [1, 8], "cutoff": 2.5, "units": "lj", "n_knots": 65, "readout": "sum"}


def models() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {
        "simple-gnn": mdgnn.SimpleGNN(1, WIDTH, WIDTH, 2, **OPTIONS),
        "schnet": mdgnn.SchNet(WIDTH, 2, 6, **OPTIONS),
        "painn": mdgnn.PaiNN(WIDTH, 2, 6, **OPTIONS),
    }


def write(folder: Path) -> None:
    """`structure`: numbers of atoms and edges, atomic numbers, row_ptr, senders (int64), vectors (float64). For each
    architecture and precision NAME.safetensors, and NAME.expected: energies (N), forces (N, 3), virials (N, 3, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), -1).reshape(-1, 3)
    edges = mdgnn.NeighborList(OPTIONS["cutoff"]).update(1.1 * grid + random.normal(0, 0.05, (len(grid), 3)))
    numbers = np.where(np.arange(len(grid)) % 2, 1, 8)
    with (folder / "structure").open("wb") as out:
        for array in ([len(grid), len(edges.senders)], numbers, edges.row_ptr, edges.senders):
            out.write(np.asarray(array, dtype=np.int64).tobytes())
        out.write(np.asarray(edges.vectors, dtype=np.float64).tobytes())
    for name, model in models().items():
        for dtype in (torch.float32, torch.float64):
            path = folder / f"{name}-{str(dtype).removeprefix('torch.')}.safetensors"
            mdgnn.save(model.to(dtype), path)
            results = mdgnn.Engine.load(path).run(numbers, edges, virials=True)
            path.with_suffix(".expected").write_bytes(np.concatenate([x.ravel() for x in results]).tobytes())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
