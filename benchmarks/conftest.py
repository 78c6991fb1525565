"""The fixture that times a case, and the tables that a `--benchmark-only` session leaves in results/."""

import datetime
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SECONDS = 0.4  # that one case aims to be timed for
MIN_ROUNDS, MAX_ROUNDS = 5, 400
SHORTEST = 2e-4  # seconds; what takes less is called several times a round


@dataclass(frozen=True)
class Result:
    """One timed case: `code` is "ours" or the name of a peer, `moved` the bytes of its memory traffic."""

    section: str
    device: str
    task: str
    n_atoms: int
    n_edges: int
    code: str
    seconds: float
    moved: int | None


results: dict[str, Result] = {}
collected: dict[str, list[str]] = {"cpu": [], "gpu": []}
files: set[str] = set()
load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


@pytest.fixture
def timed(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Time a function: `timed(function, task, n_atoms, n_edges, code)`; cases of one task and size form a group.

    `once`: it takes so long that one call is enough.
    """

    def run(
        function: Callable[[], Any],
        task: str,
        n_atoms: int,
        n_edges: int,
        code: str,
        moved: int | None = None,
        once: bool = False,
    ) -> None:
        device = _device(request.node)
        benchmark.group = f"{device}: {task}, {n_atoms} atoms"
        benchmark.extra_info |= {"n_atoms": n_atoms, "n_edges": n_edges, "code": code}
        if not benchmark.enabled:
            benchmark.pedantic(function)
            return
        rounds = iterations = 1
        if not once:
            cost = min(_once(function) for _ in range(2))
            cost = cost if cost > 0.1 else min(_once(function) for _ in range(3))
            iterations = max(1, round(SHORTEST / cost))
            rounds = min(max(MIN_ROUNDS, int(SECONDS / (cost * iterations))), MAX_ROUNDS)
        benchmark.pedantic(function, rounds=rounds, iterations=iterations)
        seconds = benchmark.stats.stats.median
        if moved is not None:
            benchmark.extra_info |= {"bytes": moved, "GB/s": round(moved / seconds * 1e-9, 1)}
        section = request.module.__doc__.splitlines()[0]
        results[request.node.nodeid] = Result(section, device, task, n_atoms, n_edges, code, seconds, moved)

    return run


def _once(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _device(item: pytest.Item) -> str:
    return "gpu" if item.get_closest_marker("gpu") else "cpu"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Remember the cases before any are deselected."""
    for item in items:
        if item.path.parent == HERE:
            collected[_device(item)].append(item.nodeid)
            files.add(item.path.name)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table of each device all of whose cases ran."""
    config = session.config
    asked = [Path(config.invocation_params.dir, arg.split("::")[0]).resolve() for arg in config.args]
    whole = any(path == HERE or path in HERE.parents for path in asked)
    if not (config.getoption("benchmark_only", False) and whole):
        return
    for device, cases in collected.items():
        complete = cases and all(case in results for case in cases)
        if device == "cpu" and files != {path.name for path in HERE.glob("bench_*.py")}:
            complete = False  # a module was skipped for want of a peer
        if complete:
            folder = HERE / "results"
            folder.mkdir(exist_ok=True)
            (folder / f"{device}.md").write_text(_page(device, [results[case] for case in cases]))


def _page(device: str, rows: list[Result]) -> str:
    lines = [f"# Benchmarks, {device.upper()}", "", *_header(device), ""]
    lines.append("Median times of one run; a ratio above 1 means that ours is faster.")
    for section in dict.fromkeys(row.section for row in rows):
        lines += ["", f"## {section}", "", *_table([row for row in rows if row.section == section])]
    return "\n".join(lines) + "\n"


def _table(rows: list[Result]) -> list[str]:
    codes = list(dict.fromkeys(row.code for row in rows))
    peers = [code for code in codes if code != "ours"]
    traffic = any(row.moved for row in rows)
    head = ["task", "atoms", "edges", "ours", *peers, *(f"{peer} / ours" for peer in peers)]
    head += ["MB moved", "ours GB/s"] if traffic else []
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for task, n_atoms, n_edges in dict.fromkeys((row.task, row.n_atoms, row.n_edges) for row in rows):
        case = {row.code: row for row in rows if (row.task, row.n_atoms) == (task, n_atoms)}
        ours = case["ours"]
        cells = [task, f"{n_atoms:,}", f"{n_edges:,}", _duration(ours.seconds)]
        cells += [_duration(case[peer].seconds) if peer in case else "" for peer in peers]
        cells += [f"{case[peer].seconds / ours.seconds:.3g}" if peer in case else "" for peer in peers]
        if traffic:
            moved = ours.moved
            cells += [f"{moved * 1e-6:.3g}", f"{moved / ours.seconds * 1e-9:.3g}"] if moved else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _header(device: str) -> list[str]:
    import torch

    lines = [
        f"- date: {datetime.date.today().isoformat()}",
        f"- CPU: {_cpu_model()}, {torch.get_num_threads()} threads, {platform.system()} {platform.machine()}",
        f"- load average before the run: {load:.1f}",
    ]
    if device == "gpu":
        lines.append(f"- GPU: {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "ase", "vesin", "mdgnn"))
    return [*lines, f"- versions: Python {platform.python_version()}, {packages}"]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
