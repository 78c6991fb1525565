"""Energy and forces of the engine as a fraction of what the processor can do; writes results/peak.md.

    python benchmarks/peak.py BUILD ... [--threads N]

Run by hand, on a quiet machine: two minutes. Each BUILD is a folder that CMake has built the package in, such as one
for this machine and one with ``-DMDGNN_SIMD=avx2``, which has the code of machines without AVX-512: the driver is
linked with its objects. Steps are timed in turns with a loop of multiply-adds on the same threads.
"""

import argparse
import datetime
import platform
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from clusters import CUTOFF, positions_of
from conftest import _cpu_model
from instructions import CSRC, products
from networks import FEATURES, make

import mdgnn

HERE = Path(__file__).parent
LEVELS = {64: "AVX-512", 32: "AVX2", 16: "SSE2 or NEON"}
BYTES = {"AUTO": 64, "avx2": 32, "baseline": 16}  # of MDGNN_SIMD
SIZES = (561, 6525)
LAYERS = 3
LANES = 8  # of `products`
# An AMD Zen 3 core (AVX2, 91 GFLOP/s, 512 KB of L2), 561 atoms, before the loops were redesigned: ns, and of peak.
BEFORE = {"SimpleGNN": (187, 0.05), "SchNet": (138, 0.13), "PaiNN": (1130, 0.09)}


def operations_of_an_edge(name: str) -> int:
    """Additions and multiplications for an edge, a feature and a layer, of energy and forces.

    A cubic takes 3 multiply-adds, 6; its slope b + (2 t) c + (3 t^2) d takes 2, 4.

    SchNet. Forwards: a cubic; out += x W, 2. Backwards: cubic and slope; grad_x += g W, 2; the sum over features of
    (g x) W', 3.

    PaiNN. Forwards: three cubics; a, b, d = x W, 3; s += a, 1; v[c] += u[c] b + v_j[c] d, 12. Backwards, with the
    gradients g of s and h[c] of v: three cubics and slopes; h.u, 5; h.v_j, 5; sums g W_a and (h.u) W_b, 4, and
    h[c] W_d, 6, from which the gradients of x and v follow; the derivative for r, (g x_a) W_a' + (h.u x_b) W_b' +
    (h.v_j x_d) W_d', 9; that for u[c], x_b W_b, 1, and sums of its products with h[c], 6.

    SimpleGNN. Forwards: the cubic of a feature; the argument, 2; SiLU, 16 (exp as 12 instructions); the product with
    the envelope and the sum, 2. Backwards: cubic and slope; the argument, 2; SiLU and its derivative, 20; g silu,
    summed, 2; the derivative for the argument, 2, its sum, 1, and that of its product with the slope, 2.
    """
    cubic, slope = 6, 4
    return {
        "SchNet": cubic + 2 + cubic + slope + 2 + 3,
        "PaiNN": 3 * cubic + 3 + 1 + 12 + 3 * (cubic + slope) + 5 + 5 + 4 + 6 + 9 + 1 + 6,
        "SimpleGNN": cubic + 2 + 16 + 2 + cubic + slope + 2 + 20 + 2 + 2 + 1 + 2,
    }[name]


def write_structure(path: Path, n_atoms: int) -> None:
    edges = mdgnn.NeighborList(CUTOFF).update(positions_of(n_atoms))
    with path.open("wb") as out:
        for array in ([n_atoms, len(edges.senders)], np.ones(n_atoms), edges.row_ptr, edges.senders):
            out.write(np.asarray(array, dtype=np.int64).tobytes())
        out.write(np.asarray(edges.vectors, dtype=np.float64).tobytes())


def linked(build: Path, folder: Path) -> Path:
    """The driver with the objects of a build."""
    cache = (build / "CMakeCache.txt").read_text()
    simd = re.search(r"^MDGNN_SIMD:\w+=(\w+)$", cache, re.M)
    objects = [
        path for part in ("core", "engine", "ops") for path in build.glob(f"CMakeFiles/_C.dir/csrc/{part}/**/*.o")
    ]
    if not objects:
        raise SystemExit(f"expected a folder with the objects of a build, got {build}")
    flags = ["-std=c++20", "-O3", "-Wno-psabi", "-fno-math-errno", "-ffp-contract=fast", f"-I{CSRC}"]
    flags.append(f"-DMDGNN_SIMD_BYTES={BYTES[simd[1] if simd else 'AUTO']}")
    program = folder / build.name
    driver = str(HERE / "peak.cpp")
    subprocess.run(["g++", *flags, driver, *map(str, objects), "-o", str(program), "-pthread", "-ldl"], check=True)
    return program


def write_table(rows: list[tuple[str, ...]], n_threads: int) -> None:
    lines = [
        "# Engine: fractions of the peak of multiply-adds",
        "",
        f"{datetime.date.today()}, {_cpu_model()}, {platform.machine()}. Energy and forces, float32,",
        f"{LAYERS} layers, threads: {n_threads}; time for an edge and a layer, everything included.",
        "Operations are those of messages (benchmarks/peak.py derives them) and of linear layers; the peak is that",
        "of a loop of multiply-adds on the same threads in turns. Levels below the machine's are forced. Before: of",
        "a thread of another machine, an AMD Zen 3 with AVX2 (91 GFLOP/s), before the loops were redesigned.",
        "",
        "| model | atoms | edges | level | FLOP | peak, GFLOP/s | ns | times the first | of peak "
        "| before, ns | of peak |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    (HERE / "results" / "peak.md").write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Fractions of the peak of multiply-adds.")
    parser.add_argument("builds", nargs="+", type=Path, metavar="BUILD")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        programs = [linked(build, folder) for build in arguments.builds]
        for n_atoms in SIZES:
            write_structure(folder / str(n_atoms), n_atoms)
        for name, width in FEATURES.items():
            model = folder / "model.safetensors"
            mdgnn.save(make(name, width), model)
            linear = 2 * LANES * products(mdgnn.Engine.load(model).program) / LAYERS
            for n_atoms in SIZES:
                first = 0.0
                for program in programs:
                    run = [str(program), str(arguments.threads), str(model), str(folder / str(n_atoms))]
                    line = subprocess.run(run, check=True, capture_output=True, text=True).stdout
                    level, _, n_edges, step, peak, ratio = map(float, line.split())
                    n_operations = operations_of_an_edge(name) * width + linear * n_atoms / n_edges
                    first = first or step
                    before = BEFORE[name] if n_atoms == 561 and level == 32 else None
                    rows.append(
                        (
                            f"{name}, F = {width}",
                            f"{n_atoms:,}",
                            f"{n_edges:,.0f}",
                            LEVELS[int(level)],
                            f"{n_operations:,.0f}",
                            f"{peak * 1e-9:.0f}",
                            f"{step / n_edges / LAYERS * 1e9:.1f}",
                            f"{step / first:.2f}",
                            f"{ratio * n_operations * n_edges * LAYERS:.0%}",
                            f"{before[0]:,}" if before else "",
                            f"{before[1]:.0%}" if before else "",
                        )
                    )
    write_table(rows, arguments.threads)


if __name__ == "__main__":
    main()
