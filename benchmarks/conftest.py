"""The fixture that times a case, and the tables that a `--benchmark-only` session leaves in results/."""

import datetime
import os
import platform
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import pytest

HERE = Path(__file__).parent
SECONDS = 0.4  # that each code of a case aims to be timed for
MIN_ROUNDS, MAX_ROUNDS = 5, 400
SHORTEST = 5e-3  # seconds; what takes less is called several times a round, so that a cold cache after the turn of
# another code weighs little


@dataclass(frozen=True)
class Result:
    """One timed case: medians of every code and of the ratios to ours, `moved` the bytes of the memory traffic."""

    section: str
    device: str
    task: str
    n_atoms: int
    n_edges: int
    seconds: dict[str, float]
    ratios: dict[str, float]
    moved: int | None


results: dict[str, Result] = {}
collected: dict[str, list[str]] = {"cpu": [], "gpu": []}
files: set[str] = set()
load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
HIGHEST_LOAD = 0.5  # of other processes, before anything is timed
OVERRIDE = "MDGNN_BENCHMARK_AT_ANY_LOAD"


@pytest.fixture
def timed(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """Time the codes of a task in turns: `timed({"ours": f, "vesin": g}, task, n_atoms, n_edges)`.

    In every round each code runs for one call, or for a few where they are short: the speed of a machine wanders, and a
    ratio within a round does not. What a call returns is freed before its time ends. Slow codes run in the first rounds
    alone, and those named in `once` in the first one. All of them are called once or more before, to warm up. `moved`:
    bytes that ours moves. `rounds`: that many rounds of one call, and no call before them.
    """

    def run(
        functions: dict[str, Callable[[], Any]],
        task: str,
        n_atoms: int,
        n_edges: int,
        moved: int | None = None,
        once: Collection[str] = (),
        rounds: int | None = None,
    ) -> None:
        device, section = _device(request.node), request.module.__doc__.strip()
        peers = {code: function for code, function in functions.items() if code != "ours"}
        benchmark.group = f"{device}: {section.splitlines()[0]}"
        if not benchmark.enabled:
            benchmark.pedantic(functions["ours"])
            for function in peers.values():
                function()
            return
        # (rounds, calls a round)
        if not rounds:
            for code in {*once} & {*functions}:
                functions[code]()
        plans = {code: (1, 1) if code in once else (rounds, 1) if rounds else _plan(f) for code, f in functions.items()}
        times: dict[str, list[float]] = {code: [] for code in peers}

        def ours() -> None:
            functions["ours"]()  # without this, pytest-benchmark would hold what one call returns during the next

        def turn_of_the_peers() -> None:
            for code, function in peers.items():
                if len(times[code]) < plans[code][0]:
                    times[code].append(_seconds(function, plans[code][1]))

        benchmark.pedantic(ours, rounds=plans["ours"][0], iterations=plans["ours"][1], teardown=turn_of_the_peers)
        own = benchmark.stats.stats.data
        # Not strict: pytest-benchmark calls a batch once more than it times it.
        ratios = {code: median(peer / one for peer, one in zip(times[code], own, strict=False)) for code in peers}
        seconds = {"ours": median(own)} | {code: median(times[code]) for code in peers}
        benchmark.extra_info |= {"task": task, "n_atoms": n_atoms, "n_edges": n_edges}
        benchmark.extra_info |= {"peers": {code: seconds[code] for code in peers}, "ratios": ratios}
        if moved is not None:
            benchmark.extra_info |= {"bytes": moved, "GB/s": round(moved / seconds["ours"] * 1e-9, 1)}
        results[request.node.nodeid] = Result(section, device, task, n_atoms, n_edges, seconds, ratios, moved)

    return run


def _plan(function: Callable[[], Any]) -> tuple[int, int]:
    """The rounds and the calls a round that a function gets."""
    cost = _seconds(function, 1)
    if cost < 0.1:
        cost = min(_seconds(function, 1) for _ in range(3))
    calls = max(1, round(SHORTEST / cost))
    fewest = MIN_ROUNDS if cost < 1 else 3
    return min(max(fewest, int(SECONDS / (cost * calls))), MAX_ROUNDS), calls


def _seconds(function: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def _device(item: pytest.Item) -> str:
    return "gpu" if item.get_closest_marker("gpu") else "cpu"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remember the cases before any are deselected; refuse to time them beside other work."""
    if config.getoption("benchmark_only", False) and load > HIGHEST_LOAD and not os.environ.get(OVERRIDE):
        raise pytest.UsageError(
            f"expected a load average of at most {HIGHEST_LOAD} to time anything, got {load:.1f}: wait until other "
            f"processes are done, or set {OVERRIDE}=1, and the page will say so"
        )
    for item in items:
        if HERE in item.path.parents:
            collected[_device(item)].append(item.nodeid)
            files.add(item.path.name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the peers, whom the table of pytest-benchmark lacks."""
    for line in _tables(list(results.values())):
        terminalreporter.write_line(line)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table of each device all of whose cases ran."""
    config = session.config
    asked = [Path(config.invocation_params.dir, arg.split("::")[0]).resolve() for arg in config.args]
    whole = any(path == HERE or path in HERE.parents for path in asked)
    if not (config.getoption("benchmark_only", False) and whole):
        return
    for device, cases in collected.items():
        complete = cases and all(case in results for case in cases)
        if device == "cpu" and files != {path.name for path in HERE.rglob("bench_*.py")}:
            complete = False  # a module was skipped for want of a peer
        if complete:
            folder = HERE / "results"
            folder.mkdir(exist_ok=True)
            (folder / f"{device}.md").write_text(_page(device, [results[case] for case in cases]))


def _page(device: str, rows: list[Result]) -> str:
    lines = [f"# Benchmarks, {device.upper()}", "", *_header(device), ""]
    lines.append("Codes in turns: median times, and medians of the ratios within a round; above 1 ours is faster.")
    return "\n".join([*lines, *_tables(rows)]) + "\n"


def _tables(rows: list[Result]) -> list[str]:
    lines = []
    for section in dict.fromkeys(row.section for row in rows):
        lines += ["", f"## {section}", "", *_table([row for row in rows if row.section == section])]
    return lines


def _table(rows: list[Result]) -> list[str]:
    peers = list(dict.fromkeys(code for row in rows for code in row.ratios))
    traffic = any(row.moved for row in rows)
    head = ["task", "atoms", "edges", "ours", *peers, *(f"{peer} / ours" for peer in peers)]
    head += ["MB moved", "ours GB/s"] if traffic else []
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        ours = row.seconds["ours"]
        cells = [row.task, f"{row.n_atoms:,}", f"{row.n_edges:,}", _duration(ours)]
        cells += [_duration(row.seconds[peer]) if peer in row.seconds else "" for peer in peers]
        cells += [f"{row.ratios[peer]:.3g}" if peer in row.ratios else "" for peer in peers]
        if traffic:
            cells += [f"{row.moved * 1e-6:.3g}", f"{row.moved / ours * 1e-9:.3g}"] if row.moved else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _duration(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _header(device: str) -> list[str]:
    import torch

    busy = load > HIGHEST_LOAD
    lines = [
        f"- date: {datetime.date.today().isoformat()}",
        f"- CPU: {_cpu_model()}, {torch.get_num_threads()} threads, {platform.system()} {platform.machine()}",
        f"- load average before the run: {load:.1f}" + (f" (over {HIGHEST_LOAD}, by {OVERRIDE})" if busy else ""),
    ]
    if device == "gpu":
        lines.append(f"- GPU: {torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    packages = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "ase", "vesin", "matscipy", "mdgnn"))
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
