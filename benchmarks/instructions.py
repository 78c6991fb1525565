"""Instructions of the engine's operations, counted by valgrind, beside a floor; writes results/instructions.md.

Run by hand, with valgrind installed. Counts do not depend on what else the machine does, so a change can be judged
where times cannot. valgrind has no AVX-512: these are the loops for AVX2, eight float32 in a vector.
"""

import datetime
import re
import subprocess
import tempfile
from pathlib import Path

from networks import FEATURES, make

import mdgnn
from mdgnn.engine.program import Program

HERE = Path(__file__).parent
CSRC = HERE.parent / "csrc"
LANES = 8
SOURCES = sorted(
    str(path.relative_to(CSRC)) for part in ("core", "engine", "ops") for path in CSRC.glob(f"{part}/**/*.cpp")
)
CMAKE = (HERE.parent / "CMakeLists.txt").read_text()  # which says what may contract
CONTRACT = set(re.findall(r"csrc/([\w/]+\.cpp)", CMAKE.split("set_source_files_properties(")[1].split("PROPERTIES")[0]))


def floors(name: str, width: int) -> dict[str, float]:
    """Instructions an edge that a message needs at least: multiply-adds of vectors, and loads that do not come with
    one. To interpolate a value takes 3 and a load, a slope 2 and a product; an exp counts as 12, a division as one."""
    vectors = width / LANES
    if name == "SchNet":  # x W; and g W, g x W' summed
        return {"cfconv": vectors * (4 + 1), "cfconv_backward": vectors * (4 + 1 + 3 + 2)}
    if name == "PaiNN":  # three filters times x, then unit and v; backwards 27 products of its math.hpp
        return {"painn_message": vectors * (3 * 4 + 3 + 1 + 3 + 3), "painn_message_backward": vectors * (3 * 7 + 27)}
    silu = 12 + 4
    forward, backward = 4 + 2 + silu + 1 + 4, 4 + 3 + 2 + silu + 4 + 6  # with sums of slopes; and the slope of SiLU
    return {"concat_message_table": vectors * forward, "concat_message_table_backward": vectors * backward}


# Of all messages together: operations an edge, by lanes. Forces add in double precision, gathered for senders.
OF_EDGES = {
    "Run::find_lengths": 12 / LANES,
    "Run::find_gradients_of_vectors": 24 / LANES,
    "Run::sort_edges": 6,
    "Run::sort_lengths": 2,
    "force_virial": 12,
}


def products(program: Program) -> float:
    """Vector multiply-adds of an atom in all linear layers, forwards and, where the edges come in, backwards."""
    moves: set[int] = set()
    total = 0
    for i in program.instructions:
        wholes = [program.arrays[v][3] if len(program.arrays[v]) > 3 else v for v in i.inputs]
        moved = [v in moves for v in wholes]
        if i.op in ("concat_message_table", "cfconv", "painn_message") or any(moved):
            moves.update(i.outputs)
        if i.op == "linear":
            for v, w, back in zip(i.inputs, i.weights, moved, strict=False):
                total += program.arrays[v][1] * program.weights[w].numel() * (1 + back)
    return total / LANES


def compiled(folder: Path, driver: Path, *options: str) -> Path:
    """A driver, with the sources and flags of the package."""
    objects = []
    for source in [driver, *(CSRC / name for name in SOURCES)]:
        may = source == driver or str(source.relative_to(CSRC)) in CONTRACT
        flags = ["-std=c++20", "-O3", "-g", "-Wno-psabi", "-fno-math-errno", f"-I{CSRC}", *options]
        target = folder / f"{len(objects)}.o"
        contract = f"-ffp-contract={'fast' if may else 'off'}"
        subprocess.run(["g++", *flags, contract, "-c", str(source), "-o", str(target)], check=True)
        objects.append(str(target))
    program = folder / driver.stem
    subprocess.run(["g++", *objects, "-o", str(program), "-pthread", "-ldl"], check=True)
    return program


def counted(program: Path, model: Path, folder: Path) -> tuple[list[int], dict[str, int]]:
    """Atoms, edges and allocations; instructions of functions, each with what it calls."""
    out = folder / "callgrind.out"
    run = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no", f"--callgrind-out-file={out}"]
    done = subprocess.run([*run, str(program), str(model), "9"], check=True, capture_output=True, text=True)
    annotate = ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)]
    counts: dict[str, int] = {}
    for line in subprocess.run(annotate, check=True, capture_output=True, text=True).stdout.splitlines():
        match = re.match(r"\s*([\d,]+) .*?:(?:void )?mdgnn::(?:cpu|engine)::(\w+)<float>(::\w+)?\(", line)
        if match:
            counts[match[2] + (match[3] or "")] = int(match[1].replace(",", ""))
    return [int(x) for x in done.stdout.split()], counts


def row(what: str, count: float, floor: float) -> str:
    return f"| {what} | {count:.0f} | {floor:.0f} | {count / floor:.1f} |"


def rows_of(name: str, program: Path, folder: Path) -> list[str]:
    width, model = FEATURES[name], folder / "model.safetensors"
    mdgnn.save(make(name, width), model)
    (n_atoms, n_edges, n_allocations), counts = counted(program, model, folder)
    lines = ["", f"## {name}, F = {width}: {n_atoms} atoms, {n_edges} edges, 3 layers", ""]
    lines += [f"Instructions: {counts['Engine::run']:,}. Allocations: {n_allocations}.", ""]
    lines += ["| what | instructions | floor | ratio |", "|---|---:|---:|---:|"]
    for op, floor in floors(name, width).items():
        lines.append(row(f"{op}, an edge and layer", counts[op] / n_edges / 3, floor))
    for op, floor in OF_EDGES.items():
        lines.append(row(f"{op.removeprefix('Run::').replace('_', ' ')}, an edge", counts[op] / n_edges, floor))
    floor = products(mdgnn.Engine.load(model).program)
    lines.append(row("linear layers, an atom", counts["multiply"] / n_atoms, floor))
    lines.append(f"| other work of atoms, an atom | {counts['apply'] / n_atoms:.0f} | | |")
    return lines


def main() -> None:
    lines = [
        "# Instructions of the engine",
        "",
        f"{datetime.date.today()}. One step with forces on one thread, float32.",
    ]
    lines += [
        "Counted by valgrind on the loops for AVX2, in vectors of eight; floor: multiply-adds of such vectors, and"
    ]
    lines += ["loads that do not come with one. Counts do not depend on the machine's mood, but say nothing of caches."]
    with tempfile.TemporaryDirectory() as name:
        program = compiled(Path(name), HERE / "instructions.cpp")
        for architecture in FEATURES:
            lines += rows_of(architecture, program, Path(name))
    (HERE / "results" / "instructions.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
