"""Run the tests that need a peer, and keep the outcome in results.md: ``record.py NAME PACKAGE... -- COMMAND...``.

COMMAND is one that takes pytest's ``--junitxml``; without one, the environment could not be made. It fails with the
command, and where a package is missing, nothing passed, or a test was skipped for want of the peer: then its tests were
not run, whatever pytest says.
"""

import datetime
import platform
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from xml.etree import ElementTree

PAGE = Path(__file__).with_name("results.md")
HEAD = """# Tests that need a peer

Written by `make peers`: each row by the last run of that peer, in an environment of its own.

| peer | versions | outcome | passed | expected to fail | skipped | failed | date |
|---|---|---|---:|---:|---:|---:|---|
"""


def outcomes(report):
    """How many tests passed, failed and so on, and why tests were skipped, of a file by ``--junitxml``."""
    counts, reasons = Counter(), []
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        elif skipped is None:
            counts["passed"] += 1
        elif skipped.get("type") == "pytest.xfail":
            counts["expected to fail"] += 1
        else:
            counts["skipped"] += 1
            reasons.append(skipped.get("message", ""))
    return counts, reasons


def fault_of(status, counts, reasons, modules):
    """Why the peer's tests do not count as run and passed, or nothing."""
    if status:
        return f"failed (exit status {status})"
    for reason in reasons:
        for module in modules:
            if f"import '{module}" in reason or f"{module} is " in reason:
                return f"not run: {reason}"
    return "" if counts["passed"] else "not run: no test passed"


def with_row(page, name, cells):
    """The page with the row of `name` in its place, in order of names."""
    rows = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    rows.pop("peer", None)
    rows[name] = "| " + " | ".join([name, *map(str, cells)]) + " |"
    return HEAD + "".join(f"{rows[key]}\n" for key in sorted(rows))


def main(arguments):
    split = arguments.index("--")
    (name, *packages), command = arguments[:split], arguments[split + 1 :]
    versions = [f"Python {platform.python_version()}"]
    counts, reasons, fault = Counter(), [], ""
    for package in (*packages, "torch"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            fault = f"not run: {package} is not installed"
    if not fault and not command:
        fault = "not run: its environment could not be made"
    if not fault:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            status = subprocess.run([*command, f"--junitxml={report}"], check=False).returncode
            if report.exists():
                counts, reasons = outcomes(report)
            modules = [package.replace("-", "_") for package in packages]
            fault = fault_of(status, counts, reasons, [*modules, name.split()[0]])
    numbers = [counts[word] for word in ("passed", "expected to fail", "skipped", "failed")]
    cells = [", ".join(versions), fault or "passed", *numbers, datetime.date.today().isoformat()]
    PAGE.write_text(with_row(PAGE.read_text() if PAGE.exists() else "", name, cells))
    return f"{name}: {fault}" if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
