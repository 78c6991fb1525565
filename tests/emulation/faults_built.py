"""The libraries of kernels that the tests of the machine launch, made where they are out of date."""

import fcntl
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "emulation"


def build_faults() -> None:
    """One process at a time: another would load a library that is being written."""
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / "faults.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(
            ["make", "-f", "tests/emulation/Makefile", "--no-print-directory", f"PYTHON={sys.executable}", "faults"],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
