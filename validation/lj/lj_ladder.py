"""The Lennard-Jones ladder: python validation/lj/lj_ladder.py run NAME=MODEL [RUNG ...] [--work FOLDER] [--data FOLDER]
                           python validation/lj/lj_ladder.py report [--work FOLDER]

`run` climbs rungs (all, unless some are named) with a model and keeps the figures in FOLDER/NAME.json, where another
model begins anew; the model `exact` is the true potential, cut at 4 sigma, with tails, for liquids. `report` writes
results/lj_ladder.md and its pictures from what is there. The data are tables of energies and of published simulations.
"""

import argparse
import datetime
import hashlib
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch
from ase.calculators.calculator import CalculatorError
from lj_dynamics import EXACT_CUTOFF
from lj_report import write_report
from lj_rungs import RUNGS
from lj_systems import exact

from mdgnn import MDGNNCalculator
from mdgnn.locate import locate
from mdgnn.model_header import read_header

HERE = Path(__file__).parent


def run(name: str, model: str, rungs: list[str], data: Path, work: Path) -> None:
    """Measure, and keep each rung's figures as soon as they are there."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{name}.json"
    made = _about(model)
    for rung in rungs or RUNGS:
        start = time.perf_counter()
        if model == "exact":
            calculator = exact(EXACT_CUTOFF if rung == "states" else None)
        else:
            calculator = MDGNNCalculator(model, too_close="ignore")
        try:
            result = RUNGS[rung](calculator, data, work)
        except (CalculatorError, ValueError) as error:
            result = {"failed": str(error)}
        result["seconds"] = time.perf_counter() - start
        result["made"] = {
            "date": f"{datetime.date.today()}",
            "versions": f"mdgnn {version('mdgnn')}, torch {torch.__version__}, ase {version('ase')}",
            "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        }
        figures = json.loads(path.read_text()) if path.exists() else {}  # now: other rungs may run beside this one
        if figures.get("made") != made:
            figures = {"made": made}
        part = path.with_suffix(".part")  # a reader, or a full disk, meets whole files alone
        part.write_text(json.dumps({**figures, rung: result}, indent=1))
        part.replace(path)
        print(f"{name} {rung}: {result.get('failed', '')} {result['seconds']:.0f} s", flush=True)


def _about(model: str) -> dict[str, str]:
    """Which model it is, whatever its file is called."""
    if model == "exact":
        return {"model": "the true potential"}
    content, header = locate(model).read_bytes(), read_header(model)
    numbers = content[8 + int.from_bytes(content[:8], "little") :]
    record = header["training"]
    told = {"frames": record.get("structures", {}).get("train"), "steps": record.get("steps")}
    return {
        "model": f"{header['architecture']}, cutoff {header['cutoff']}",
        "training": ", ".join(f"{number} {what}" for what, number in told.items() if number),
        "digest": f"SHA-256 of its numbers {hashlib.sha256(numbers).hexdigest()[:12]}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["run", "report"])
    parser.add_argument("model", nargs="?", help="NAME=FILE: of its column, and of the model (or `exact`)")
    parser.add_argument("rungs", nargs="*", help=f"out of {', '.join(RUNGS)}")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "build" / "lj_ladder")
    given = parser.parse_intermixed_args()  # an option may stand before the model
    if given.task == "report":
        write_report(given.work, HERE.parent / "results")
        return
    name, equals, model = (given.model or "").partition("=")
    unknown = [rung for rung in given.rungs if rung not in RUNGS]
    if not equals or unknown:
        parser.error(f"no rung {unknown[0]!r}" if unknown else "expected NAME=MODEL")
    if not (given.data / "lj_ccd.tsv").exists():
        parser.error(f"no tables in {given.data}: --data names their folder")
    run(name, model, given.rungs, given.data, given.work)


if __name__ == "__main__":
    main()
