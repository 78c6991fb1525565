"""Energy and forces of the engine as a fraction of what the processor can do; writes results/peak.md.

Run by hand, on a quiet machine. Sources are compiled for each level of SIMD that the machine has, and timed in turns
with a loop of multiply-adds on the same threads.
"""

import datetime
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from clusters import CUTOFF, positions_of
from conftest import _cpu_model
from instructions import compiled, products
from networks import FEATURES, make

import mdgnn

HERE = Path(__file__).parent
LEVELS = {64: "AVX-512", 32: "AVX2", 16: "SSE2"}
NEEDS = {64: "avx512vl", 32: "avx2"}
SIZES = (561, 6525)
LAYERS = 3
LANES = 8  # of `products`


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


def main() -> None:
    n_threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    flags = Path("/proc/cpuinfo").read_text()
    levels = [level for level in LEVELS if NEEDS.get(level, "") in flags]
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        programs = {}
        for level in levels:
            (folder / str(level)).mkdir()
            programs[level] = compiled(folder / str(level), HERE / "peak.cpp", f"-DMDGNN_SIMD_BYTES={level}")
        for n_atoms in SIZES:
            write_structure(folder / str(n_atoms), n_atoms)
        lines = [
            "# Engine: fractions of the peak of multiply-adds",
            "",
            f"{datetime.date.today()}, {_cpu_model()}, {platform.machine()}. Energy and forces, float32,",
            f"{LAYERS} layers, threads: {n_threads}; time for an edge and a layer, everything included.",
            "Operations are those of messages (benchmarks/peak.py derives them) and of linear layers; the peak is that",
            "of a loop of multiply-adds on the same threads in turns. Levels below the machine's are forced.",
            "",
            "| model | atoms | edges | level | FLOP | peak, GFLOP/s | ns | of peak |",
            "|---|---:|---:|---|---:|---:|---:|---:|",
        ]
        for name, width in FEATURES.items():
            model = folder / "model.safetensors"
            mdgnn.save(make(name, width), model)
            linear = 2 * LANES * products(mdgnn.Engine.load(model).program) / LAYERS
            for level in levels:
                run = [str(programs[level]), str(n_threads), str(model), *(str(folder / str(n)) for n in SIZES)]
                for line in subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines():
                    n_atoms, n_edges, step, peak, ratio = map(float, line.split())
                    n_operations = operations_of_an_edge(name) * width + linear * n_atoms / n_edges
                    lines.append(
                        f"| {name}, F = {width} | {n_atoms:,.0f} | {n_edges:,.0f} | {LEVELS[level]} "
                        f"| {n_operations:,.0f} | {peak * 1e-9:.0f} | {step / n_edges / LAYERS * 1e9:.1f} "
                        f"| {ratio * n_operations * n_edges * LAYERS:.0%} |"
                    )
    (HERE / "results" / "peak.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
