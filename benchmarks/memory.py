"""Peak memory of models, each case in a process of its own; writes results/memory.md. Run by hand."""

import datetime
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
MODELS = ("SimpleGNN", "SchNet", "PaiNN")


def memory(entry: str) -> float:
    """MB of this process: VmHWM, its peak so far (ru_maxrss begins with the parent's), or VmRSS, what it takes now."""
    return int(Path("/proc/self/status").read_text().split(f"{entry}:")[1].split()[0]) / 1024


def measure(task: str, name: str, code: str) -> float:
    """MB: of a training step beyond those of the prepared graph and model, else of the whole process."""
    import torch
    from bench_models import FEATURES, displaced, liquid, make
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


def run(task: str, name: str, code: str) -> float:
    command = [sys.executable, __file__, task, name, code]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE).stdout)


def main() -> None:
    import torch

    lines = ["# Peak memory", "", f"{datetime.date.today()}, torch {torch.__version__}, {platform.machine()}, CPU", ""]
    lines += ["Energies, forces and the gradient of a loss of both (double backward), 32 clusters of 55 atoms, 83,000"]
    lines += ["edges, float32; beyond what the process took before.", ""]
    lines += ["| model | ours, MB | plain torch, MB | ours / plain torch |", "|---|---:|---:|---:|"]
    for name in MODELS:
        ours, plain = (run("training step", name, code) for code in ("ours", "plain torch"))
        lines.append(f"| {name} | {ours:.0f} | {plain:.0f} | {ours / plain:.2f} |")
    lines += [
        "",
        "Energies and forces of a liquid of 97,556 atoms, 14.8 million edges, F = 64, float32; the whole process,",
    ]
    lines += [
        "the graph included. Plain torch would need 64 x 4 bytes x 14.8 million = 3.8 GB for one array of messages.",
        "",
    ]
    lines += ["| model | ours, MB |", "|---|---:|"]
    lines += [f"| {name} | {run('energy+forces', name, 'ours'):.0f} |" for name in MODELS]
    (HERE / "results" / "memory.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        print(measure(*sys.argv[1:]))
    else:
        main()
