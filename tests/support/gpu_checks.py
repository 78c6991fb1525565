"""What a GPU says of the kernels, in at most six minutes: python gpu_checks.py [FOLDER]

The tests marked gpu; the sample of them that `make emulate-sample` runs, under each tool of compute-sanitizer, all four
at a time; the benchmarks of a GPU. Prints a table with the name of the device and writes it to FOLDER/checks.md, with
what each step printed beside it (build/gpu). The exit status is 0 if all of them passed.

compute-sanitizer looks at the kernels of this project alone, but for initcheck: what torch's kernels write must count
as written, and of its reports those that name a kernel of ours are failures. memcheck and initcheck get an allocation
for each tensor, so that the end of one is not the middle of another; tests that capture graphs, where CUDA cannot
allocate, run under the other two.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
SECONDS = 360  # for all of it
TESTS, SANITIZERS, CLEARING_UP = 130, 250, 15  # ends of the first two steps; what is left behind each for its report
OURS = ["--kernel-name", "kns=mdgnn"]
NO_GRAPHS = ["-k", "not cuda_graph and not test_device"]
NO_CACHE = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
TOOLS = {  # options of compute-sanitizer, of pytest, and the environment
    "memcheck": (OURS, NO_GRAPHS, NO_CACHE),
    "racecheck": (OURS, [], {}),
    "initcheck": ([], NO_GRAPHS, NO_CACHE),
    "synccheck": (OURS, [], {}),
}
PYTEST = [sys.executable, "-m", "pytest", "-m", "gpu", "--import-mode=importlib", "-p", "no:cacheprovider"]
SAMPLE = ["-p", "sample", "--emulation-sample"]
BENCHMARKS = ["benchmarks", "--benchmark-only"]
REPORTED = 99  # the exit status of compute-sanitizer with reports, if the program ended well


@dataclass
class Outcome:
    name: str
    status: int | None  # None: stopped when its time was over
    seconds: float
    tests: dict[str, int] | None  # passed, failed, skipped
    reports: int | None = None  # of compute-sanitizer, in all
    ours: int | None = None  # of these, in kernels of this project

    @property
    def verdict(self) -> str:
        if self.status is None:
            return "NOT FINISHED"
        if self.tests is None or self.tests["failed"] or not self.tests["passed"]:
            return "FAILED"
        if self.name in TOOLS and self.reports is None:
            return "FAILED"  # without a summary
        of_others = self.name == "initcheck" and self.status == REPORTED and self.ours == 0
        return "passed" if self.status == 0 or of_others else "FAILED"


class Step:
    """A command that runs, with what it prints in FOLDER/NAME.log."""

    def __init__(self, name, command, folder, environment=()):
        self.name, self.log, self.report = name, folder / f"{name}.log", folder / f"{name}.xml"
        self.report.unlink(missing_ok=True)
        self.begin = time.monotonic()
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, f"--junitxml={self.report}"],
                cwd=ROOT,
                env=os.environ | dict(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, end):
        """Waits until `end`, by the clock of time.monotonic; then asks it, and all it started, to end."""
        status = None
        try:
            status = self.process.wait(max(end - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            for how, seconds in ((signal.SIGINT, CLEARING_UP), (signal.SIGKILL, None)):
                os.killpg(self.process.pid, how)
                try:
                    self.process.wait(seconds)
                    break
                except subprocess.TimeoutExpired:
                    pass
        outcome = Outcome(self.name, status, time.monotonic() - self.begin, tests_of(self.report))
        if self.name in TOOLS:
            outcome.reports, outcome.ours = reports_of(self.log.read_text(errors="replace"))
        return outcome


def tests_of(report):
    """How many tests passed, failed and were skipped, by a report of pytest; None without one."""
    if not report.exists():
        return None
    (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
    n, failed, skipped = (int(suite.get(name)) for name in ("tests", "failures", "skipped"))
    failed += int(suite.get("errors"))
    return {"passed": n - failed - skipped, "failed": failed, "skipped": skipped}


def reports_of(text):
    """(all, those in kernels of this project) of compute-sanitizer's reports; (None, None) without a summary.

    A report begins with a line of its own and names the kernel in one of those that follow, indented.
    """
    summaries = re.findall(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+)", text, re.M)
    if not summaries:
        return None, None
    lines = [line.removeprefix("=========") for line in text.splitlines() if line.startswith("=========")]
    reports = []
    for line in lines:
        if line.startswith("     ") and reports:
            reports[-1] += line
        elif "SUMMARY" not in line:
            reports.append(line)
    n = sum(map(int, summaries))
    return n, min(sum("mdgnn" in report for report in reports), n)


def device():
    """A line for the head of the table."""
    code = (
        "import torch; p = torch.cuda.get_device_properties(0); print(f'{p.name}, {p.multi_processor_count} "
        "multiprocessors, torch {torch.__version__}, CUDA {torch.version.cuda}')"
    )
    line = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if line.returncode != 0:
        raise SystemExit(f"expected a CUDA device: {line.stderr.strip().splitlines()[-1]}")
    return line.stdout.strip()


def page(head, outcomes, seconds):
    lines = [f"# Checks on a GPU\n\n{time.strftime('%Y-%m-%d')}, {head}; {seconds:.0f} s\n"]
    lines.append("| check | result | passed | failed | skipped | reports | in our kernels | s |")
    lines.append("|---|---|---:|---:|---:|---:|---:|---:|")
    for o in outcomes:
        tests = o.tests or dict.fromkeys(("passed", "failed", "skipped"), "")
        cells = [o.name, o.verdict, *tests.values(), o.reports, o.ours, f"{o.seconds:.0f}"]
        lines.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main(folder="build/gpu"):
    begin = time.monotonic()
    folder = ROOT / folder
    folder.mkdir(parents=True, exist_ok=True)
    head = device()
    if not shutil.which("compute-sanitizer"):
        raise SystemExit("expected compute-sanitizer, which comes with CUDA's compilers, on the PATH")
    outcomes = [Step("tests", PYTEST, folder).finish(begin + TESTS)]
    running = []
    for tool, (options, of_pytest, environment) in TOOLS.items():
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", str(REPORTED), *options]
        running.append(Step(tool, [*command, *PYTEST, *SAMPLE, *of_pytest], folder, environment))
    outcomes += [step.finish(begin + SANITIZERS) for step in running]
    any_load = {"MDGNN_BENCHMARK_AT_ANY_LOAD": "1"}  # that of the steps before has not yet left the average
    benchmarks = Step("benchmarks", [*PYTEST, *BENCHMARKS], folder, any_load)
    outcomes.append(benchmarks.finish(begin + SECONDS - CLEARING_UP))
    text = page(head, outcomes, time.monotonic() - begin)
    (folder / "checks.md").write_text(text)
    print(text)
    return any(outcome.verdict != "passed" for outcome in outcomes)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
