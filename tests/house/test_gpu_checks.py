"""The script for a machine with a GPU, run with tests that need none and a compute-sanitizer that is not one."""

import sys
import time

import gpu_checks
import pytest

REPORTS = """\
========= COMPUTE-SANITIZER
========= Invalid __global__ read of size 4 bytes
=========     at void mdgnn::cuda::<unnamed>::sum_rows_kernel<float>(mdgnn::Rows)+0x1f0
=========     by thread (0,0,0) in block (0,0,0)
=========
========= Uninitialized __global__ memory read of size 4 bytes
=========     at void at::native::vectorized_elementwise_kernel<4>(int)+0x60
=========     by thread (3,0,0) in block (0,0,0)
=========
========= {kind} SUMMARY: {n} {words}
"""
# A program that prints what compute-sanitizer might, once that which it is given has ended, and its exit status.
SANITIZER = """\
#!{python}
import subprocess, sys
given = sys.argv[sys.argv.index({python!r}):]
status = subprocess.run(given).returncode
print("========= ERROR SUMMARY: {n} errors")
sys.exit(status or {status})
"""


@pytest.mark.parametrize(
    ("text", "reports"),
    [
        (REPORTS.format(kind="ERROR", n=2, words="errors"), (2, 1)),
        (REPORTS.format(kind="RACECHECK", n=2, words="hazards displayed (2 errors, 0 warnings)"), (2, 1)),
        ("========= COMPUTE-SANITIZER\n1 passed\n========= ERROR SUMMARY: 0 errors\n", (0, 0)),
        ("Segmentation fault\n", (None, None)),
    ],
)
def test_reports_are_counted_and_those_of_our_kernels(text, reports):
    assert gpu_checks.reports_of(text) == reports


def run(tmp_path, monkeypatch, body, n_reports=0, status=0):
    """The exit status and the rows of the table, without the times."""
    (tmp_path / "test_some.py").write_text(body)
    sanitizer = tmp_path / "compute-sanitizer"
    sanitizer.write_text(SANITIZER.format(python=sys.executable, n=n_reports, status=status))
    sanitizer.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpu_checks, "device", lambda: "a device of the test")
    monkeypatch.setattr(gpu_checks, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_checks, "SAMPLE", [])
    monkeypatch.setattr(gpu_checks, "PYTEST", [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"])
    monkeypatch.setattr(gpu_checks, "BENCHMARKS", ["test_some.py"])
    failed = gpu_checks.main("out")
    text = (tmp_path / "out" / "checks.md").read_text()
    assert "a device of the test" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-2]] for line in text.splitlines()[6:]]
    assert [row[0] for row in rows] == ["tests", *gpu_checks.TOOLS, "benchmarks"]
    return failed, [row[1:] for row in rows]


def test_all_is_well(tmp_path, monkeypatch):
    failed, rows = run(tmp_path, monkeypatch, "def test_one(): pass\ndef test_cuda_graph(): pass\n")
    every, some = ["passed", "2", "0", "0"], ["passed", "1", "0", "0"]
    assert not failed
    assert rows == [[*every, "", ""]] + [[*t, "0", "0"] for t in (some, every, some, every)] + [[*every, "", ""]]


def test_a_failure_and_reports_are_told(tmp_path, monkeypatch):
    failed, rows = run(tmp_path, monkeypatch, "def test_one(): assert False\n", 3, gpu_checks.REPORTED)
    assert failed and all(row[0] == "FAILED" for row in rows)
    failed, rows = run(tmp_path, monkeypatch, "def test_one(): pass\n", 3, gpu_checks.REPORTED)
    # initcheck alone has reports of other kernels than ours
    assert failed and [row[0] for row in rows] == ["passed", "FAILED", "FAILED", "passed", "FAILED", "passed"]


def test_what_takes_too_long_is_ended(tmp_path):
    step = gpu_checks.Step("slow", ["sh", "-c", "sleep 60 & sleep 60"], tmp_path)
    begin = time.monotonic()
    outcome = step.finish(begin + 0.2)
    assert outcome.verdict == "NOT FINISHED" and outcome.tests is None and time.monotonic() - begin < 30
