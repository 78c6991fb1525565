"""Peak memory of models and lists, each case in a process of its own; writes results/memory.md. Run by hand."""

import datetime
import os
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
MODELS = ("SimpleGNN", "SchNet", "PaiNN")
LARGE = [  # model, width, atoms along an edge of a cube
    *((name, width, edge) for name, width in (("SimpleGNN", 32), ("SchNet", 64)) for edge in (21, 46, 100)),
    *(("PaiNN", 64, edge) for edge in (21, 46, 80)),
    ("PaiNN", 32, 100),
]


def memory(entry: str) -> float:
    """MB of this process: VmHWM, its peak so far (ru_maxrss begins with the parent's), or VmRSS, what it takes now."""
    return int(Path("/proc/self/status").read_text().split(f"{entry}:")[1].split()[0]) / 1024


def measure(task: str, name: str, code: str) -> float:
    """MB: of a training step beyond those of the prepared graph and model, else of the whole process."""
    import torch
    from clusters import displaced, liquid
    from networks import FEATURES, make
    from plain_torch import energy_and_forces

    from mdgnn import Graph, evaluate

    torch.set_num_threads(2)
    if task == "training step":
        g = Graph.batch([displaced(55, seed) for seed in range(32)])
        model = make(name, FEATURES[name])
    else:
        g = liquid(29)
        model = make(name, 64).requires_grad_(False)
    before = memory("VmRSS")
    training = task == "training step"
    if code == "ours":
        energies, forces = evaluate(model, g, create_graph=training)[1:3]
    else:
        energies, forces = energy_and_forces(model, g, create_graph=training)
    if training:
        (energies.square().mean() + forces.square().mean()).backward()
    return memory("VmHWM") - (before if training else 0)


def measure_engine(name: str, width: str, edge: str, density: str) -> tuple[float, ...]:
    """Atoms, edges, seconds of the list and of a step, MB with the list, MB beyond it: one structure, by the engine."""
    import numpy as np
    from networks import make

    from mdgnn import Engine, NeighborList, set_num_threads

    set_num_threads(2)
    engine, n = Engine(make(name, int(width))), int(edge)
    spacing = float(density) ** (-1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1).reshape(-1, 3)
    positions = spacing * (grid + np.random.default_rng(0).normal(0, 0.05, grid.shape))
    numbers = np.full(n**3, next(z for z, row in enumerate(engine.program.element_of) if row >= 0))
    begin = time.perf_counter()
    edges = NeighborList(engine.cutoff).update(positions, np.eye(3) * spacing * n, [True] * 3, brief=True)
    with_list, before = time.perf_counter() - begin, memory("VmRSS")
    taken = []
    for _ in range(3):  # the first touches its memory
        begin = time.perf_counter()
        engine.run(numbers, edges)
        taken.append(time.perf_counter() - begin)
    return n**3, len(edges.senders), with_list, min(taken), memory("VmHWM"), memory("VmHWM") - before


def measure_list(system: str, quantities: str) -> tuple[float, float]:
    """MB of one call's result, and of the peak beyond what the process took before."""
    import numpy as np

    import mdgnn
    from mdgnn import _C

    rng = np.random.default_rng(0)
    n, density = 97_556, 0.8442
    if system == "crystals":  # 400 of 12 atoms, in one call
        side = (12 / density) ** (1 / 3)
        cells, first = np.broadcast_to(np.eye(3) * side, (400, 3, 3)).copy(), np.arange(401, dtype=np.int64) * 12
        positions, periodic = rng.uniform(0, side, (4800, 3)), np.ones((400, 3), dtype=bool)
        call = partial(_C.neighbors, quantities, positions, cells, periodic, first, cutoff=3.5, n_threads=1)
    else:
        side = (n / density) ** (1 / 3)
        positions = rng.uniform(0, side, (n, 3))
        if system == "unwrapped liquid":
            positions += rng.integers(-5, 6, positions.shape) * side
        call = partial(mdgnn.primitive_neighbor_list, quantities, True, np.eye(3) * side, positions, 3.5)
    mdgnn.set_num_threads(1)
    mdgnn.primitive_neighbor_list("ijSD", True, np.eye(3) * 9, rng.uniform(0, 9, (50, 3)), 1.0)
    before = memory("VmRSS")
    result = call()
    return sum(a.nbytes for a in result) / 2**20, memory("VmHWM") - before


def run(*arguments: str, **environment: str) -> list[float]:
    command = [sys.executable, __file__, *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=HERE, env={**os.environ, **environment}
    )
    return [float(x) for x in done.stdout.split()]


def engine_table() -> list[str]:
    lines = [
        "",
        "Engine: a step of a liquid (density 0.8442, cutoff 3.5, jittered lattice), float32, 2 threads, with the list",
        "given; whole process, list included. What the engine takes beyond the list is split into bytes an atom and an",
        "edge by a second run at half the density.",
        "",
        "| model | atoms | edges | list, s | step, s | us an atom | process, MB | engine, B an atom | B an edge |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, width, edge in LARGE:
        n, e, with_list, step, process, beyond = run("engine", name, str(width), str(edge), "0.8442")
        _, fewer, _, _, _, less = run("engine", name, str(width), str(edge), "0.4221")
        of_edge = (beyond - less) * 2**20 / (e - fewer)
        of_atom = (beyond * 2**20 - of_edge * e) / n
        lines.append(
            f"| {name}, F={width} | {n:,.0f} | {e:,.0f} | {with_list:.2f} | {step:.2f} | {step / n * 1e6:.1f} | "
            f"{process:.0f} | {of_atom:.0f} | {of_edge:.0f} |"
        )
    return lines


def main() -> None:
    import torch

    lines = ["# Peak memory", "", f"{datetime.date.today()}, torch {torch.__version__}, {platform.machine()}, CPU", ""]
    lines += ["Energies, forces and the gradient of a loss of both (double backward), 32 clusters of 55 atoms, 83,000"]
    lines += ["edges, float32; beyond what the process took before.", ""]
    lines += ["| model | ours, MB | plain torch, MB | ours / plain torch |", "|---|---:|---:|---:|"]
    for name in MODELS:
        (ours,), (plain,) = (run("training step", name, code) for code in ("ours", "plain torch"))
        lines.append(f"| {name} | {ours:.0f} | {plain:.0f} | {ours / plain:.2f} |")
    lines += [
        "",
        "Energies and forces of a liquid of 97,556 atoms, 14.8 million edges, F = 64, float32; the whole process, the",
        "graph included. Plain torch would need 64 x 4 bytes x 14.8 million = 3.8 GB for one array of messages. glibc",
        "keeps what is freed below 32 MB in pieces that later arrays do not fit into; it gives them back with",
        "MALLOC_MMAP_THRESHOLD_=1000000.",
        "",
        "| model | MB | MB with that threshold |",
        "|---|---:|---:|",
    ]
    for name in MODELS:
        (usual,) = run("energy+forces", name, "ours")
        (returned,) = run("energy+forces", name, "ours", MALLOC_MMAP_THRESHOLD_="1000000")
        lines.append(f"| {name} | {usual:.0f} | {returned:.0f} |")
    lines += engine_table()
    lines += [
        "",
        "One call of the neighbour list in a fresh process, one thread, float64, cutoff 3.5: 97,556 atoms at the",
        "density of a liquid, the same many cells apart, and 400 crystals of 12 atoms.",
        "",
        "| system | quantities | result, MB | peak, MB | peak / result |",
        "|---|---|---:|---:|---:|",
    ]
    for system in ("liquid", "unwrapped liquid", "crystals"):
        for quantities in ("ijSD", "ij"):
            size, taken = run("list", system, quantities)
            lines.append(f"| {system} | {quantities} | {size:.0f} | {taken:.0f} | {taken / size:.2f} |")
    (HERE / "results" / "memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["list"]:
        print(*measure_list(*sys.argv[2:]))
    elif sys.argv[1:2] == ["engine"]:
        print(*measure_engine(*sys.argv[2:]))
    elif len(sys.argv) == 4:
        print(measure(*sys.argv[1:]))
    else:
        main()
