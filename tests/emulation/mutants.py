"""Faults that are planted into the kernels, one at a time: which of them does a sample of the tests find, and how?

    mutants.py plant CSRC TARGET      copies of the sources with a switch at each fault, and their list: faults.json
    mutants.py run [--minutes M]      goes on with the study, and writes mutants.md
    mutants.py list                   the faults by file and line

Faults are concepts, not patches: they follow the sources. All are compiled at once (`include/planted_faults.h`). A run
of the sample of `make emulate-sample`, with every fault off, says which tests reach which; then each fault is turned on
for the tests that reach it, the quickest first, until one fails. Each attempt is a process of its own.
"""

import argparse
import ctypes
import hashlib
import json
import os
import random
import re
import select
import signal
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BUILT = ROOT / "build" / "emulation" / "mutants"

# --- planting --------------------------------------------------------------------------------------------------------

BARRIER_GONE, BARRIER_PASSED = "a barrier removed", "a barrier that a lane passes by"
BARRIER_LATE, BARRIER_EARLY = "a barrier behind the access that it is for", "a barrier before the access that it is for"
MASK, LANE = "a mask without its last lane", "a shuffle from the next lane"
FURTHER, NEARER, INDEX = "a bound one further", "a bound one nearer", "an index one further"
ATOMIC, GUARD = "an atomic made a plain sum", "a write of one lane by all"
ALIGNMENT, NO_ROOM = "wide loads at any address", "an array of the workspace without room"

COLLECTIVE = re.compile(r"\b__(shfl|shfl_up|shfl_down|shfl_xor|ballot|match_any)_sync\(")
BARRIER = re.compile(r"\b__sync(threads|warp)\(\)")
COMPARISON = re.compile(r" (<|<=|>|>=) ")
SUBSCRIPT = re.compile(r"(?<=[\w\])])\[(?=([^\[\]?]*))")
VARIABLE = re.compile(r"\b(?!k[A-Z])[a-z_]\w*")
ONE_LANE = re.compile(
    r"(?<![\w.])((?:lane|member|group|before|threadIdx\.x|t\.number|lane_number\(\)|lane_of_warp\(\)) (==|!=) "
    r"(?:0|leader|kWarp - 1))(?!\w)"
)
DEVICE = re.compile(r"\b(__global__|__device__|MDGNN_HD)\b")


@dataclass(frozen=True)
class Fault:
    number: int
    kind: str
    file: str
    line: int
    text: str

    @property
    def place(self):
        return f"{self.file}:{self.line}"


def end_of_parentheses(text, at):
    """Behind the bracket that closes the one at `at`."""
    depth = 0
    while True:
        depth += (text[at] in "([{") - (text[at] in ")]}")
        at += 1
        if depth == 0:
            return at


def end_of_statement(text, at):
    """Behind the statement that begins at `at`: its semicolon, or the brace that closes its block."""
    while text[at] != ";":
        if text[at] in "([{":
            braces = text[at] == "{"
            at = end_of_parentheses(text, at)
            if braces and text[at : at + 1] not in (",", ")", ";"):
                return at
        else:
            at += 1
    return at + 1


def start_of_statement(text, end):
    """Where the statement begins that ends before `end`."""
    at, depth = len(text[:end].rstrip()) - 1, 0
    while depth or text[at - 1] not in ";{}":
        at -= 1
        depth += (text[at] in ")]}") - (text[at] in "([{")
    return at + len(text[at:end]) - len(text[at:end].lstrip())


def code_only(text):
    """The text with comments, strings and lines of the preprocessor blanked: positions stay."""
    blank = lambda match: re.sub(r"[^\n]", " ", match[0])  # noqa: E731
    return re.sub(r'//[^\n]*|"[^"\n]*"|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', blank, text, flags=re.M)


def bodies_of_device_functions(code):
    spans = []
    for mark in DEVICE.finditer(code):
        at = mark.end()
        while code[at] not in "{;":
            at = end_of_parentheses(code, at) if code[at] in "(" else at + 1
        if code[at] == "{" and (not spans or at > spans[-1][1]):
            spans.append((at, end_of_parentheses(code, at)))
    return spans


class Planter:
    """The faults of a file, and what their switches insert where."""

    def __init__(self, file, text, faults):
        self.file, self.text, self.code, self.faults, self.inserted = file, text, code_only(text), faults, []
        self.device = bodies_of_device_functions(self.code)

    def fault(self, kind, at):
        line = self.text.count("\n", 0, at)
        self.faults.append(Fault(len(self.faults), kind, self.file, line + 1, self.text.splitlines()[line].strip()))
        return len(self.faults) - 1

    def insert(self, at, text, removed=0):
        self.inserted.append((at, len(self.inserted), text, removed))

    def matches(self, pattern, of_device=True):
        """Outside of what the compiler works out."""
        for match in pattern.finditer(self.code):
            at = match.start()
            line = self.code[self.code.rfind("\n", 0, at) + 1 : at]
            inside = not of_device or any(begin < at < end for begin, end in self.device)
            if inside and "constexpr" not in line and "static_assert" not in line:
                yield match

    def plant(self):
        for match in self.matches(BARRIER):
            self.plant_barrier(match)
        for match in self.matches(COLLECTIVE):
            end = end_of_parentheses(self.code, match.end() - 1) - 1
            comma = self.code.index(",", match.end())
            self.insert(match.end(), f"planted_mask({self.fault(MASK, match.start())}, ")
            self.insert(comma, ")")
            if match[1].startswith("shfl"):
                last = match.end() + self.code[match.end() : end].rindex(",") + 2
                self.insert(last, f"PlantedStep{{{self.fault(LANE, match.start())}}} + ")
        for match in self.matches(COMPARISON):
            further, nearer = self.fault(FURTHER, match.start()), self.fault(NEARER, match.start())
            self.insert(match.end(), f"PlantedStep{{{further}, {nearer}}} + ")
        for match in self.matches(SUBSCRIPT):
            if VARIABLE.search(match[1]):
                self.insert(match.end(), f"PlantedStep{{{self.fault(INDEX, match.start())}}} + ")
        for match in self.matches(re.compile(r"\batomic(Add|Min|Max|CAS)\(")):
            self.insert(match.start(), "planted_")
            self.insert(match.end(), f"{self.fault(ATOMIC, match.start())}, ")
        for match in self.matches(ONE_LANE):
            on = self.fault(GUARD, match.start())
            self.insert(match.start(1), f"(planted({on}) || " if match[2] == "==" else f"(!planted({on}) && ")
            self.insert(match.end(1), ")")
        for match in self.matches(re.compile(r" % (16|kPack<T>)(?= == 0)"), of_device=False):
            self.insert(match.start(1), f"(planted({self.fault(ALIGNMENT, match.start())}) ? 1 : ")
            self.insert(match.end(1), ")")
        for match in self.matches(re.compile(r"\.take<[\w: ]+>\("), of_device=False):
            self.insert(match.end(), f"planted({self.fault(NO_ROOM, match.start())}) ? 0 : ")
        return self.with_insertions()

    def plant_barrier(self, match):
        start, end = match.span()
        if self.code[end] == ";":  # a statement of its own
            after, before = end_of_statement(self.code, end + 1), start_of_statement(self.code, start)
            touches = lambda a, b: "[" in self.code[a:b] or "staged" in self.code[a:b]  # noqa: E731
            if self.code[end + 1 :].lstrip()[0] != "}" and touches(end, after):
                on = self.fault(BARRIER_LATE, start)
                self.insert(start, f"if (!planted({on})) ")
                self.insert(after, f" if (planted({on})) {match[0]};")
            if before < start and touches(before, start):
                on = self.fault(BARRIER_EARLY, start)
                self.insert(before, f"if (planted({on})) {match[0]}; ")
                self.insert(start, f"if (!planted({on})) ")
        gone, passed = self.fault(BARRIER_GONE, start), self.fault(BARRIER_PASSED, start)
        self.insert(start, f"(planted({gone}) || planted_in_a_lane({passed}) ? void() : ")
        self.insert(end, ")")

    def with_insertions(self):
        parts, done = [], 0
        for at, _, text, _ in sorted(self.inserted):
            parts += [self.text[done:at], text]
            done = at
        return "".join([*parts, self.text[done:]])


def plant(sources, target):
    """Writes the sources as C++ with switches (as translate.py does), and the list of faults."""
    from translate import translate

    faults = []
    for path in sorted(p for p in sources.rglob("*") if p.suffix in (".cu", ".cpp", ".hpp", ".h")):
        text = path.read_text()
        if path.suffix == ".cu" or path.name.startswith("cuda"):
            text = Planter(str(path), text, faults).plant()
        text = f'#line 1 "{path}"\n{translate(text)}'
        to = target / path.relative_to(sources)
        if not to.exists() or to.read_text() != text:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(text)
    (target.parent / "faults.json").write_text(json.dumps([asdict(f) for f in faults], indent=0))


# --- the study -------------------------------------------------------------------------------------------------------

COVERAGE, VERDICTS = BUILT / "coverage.jsonl", BUILT / "verdicts.jsonl"
PROCESSES = 2
OF_BOUNDS = (FURTHER, NEARER, INDEX)
SAMPLE = ["tests/neighbors", "tests/ops", "-m", "gpu", "--emulation-sample"]
HANGS_AFTER = 20.0  # seconds, and ten times as long as without the fault
MOST_FAULTS = 8192
LONGEST_TEST = 200.0  # seconds
MOST_SECONDS = 40.0  # for the tests of one fault that does not show


def attempt(items, fault, seconds):
    """Runs tests with a fault on, in a process of their own, until one fails; says what became of them."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        run_and_tell(items, fault, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        ended, _, _ = select.select([pipe], [], [], seconds)
        if not ended:
            os.kill(pid, signal.SIGKILL)
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if told:
        return json.loads(told)
    if ended:
        return {"found": "crash", "message": signal.strsignal(os.WTERMSIG(status)) or "", "test": ""}
    return {"found": "hang", "message": f"no end after {seconds:.0f} s", "test": ""}


def run_and_tell(items, fault, write):
    """In the process of an attempt."""
    from _pytest.runner import runtestprotocol

    module = ctypes.CDLL(str(module_of_mutants()))
    switch = ctypes.c_int.in_dll(module, "planted_fault")
    reached = (ctypes.c_ubyte * MOST_FAULTS).in_dll(module, "reached_faults")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    switch.value = fault
    result = {"found": "", "message": "", "test": "", "skipped": False}
    start = time.time()
    for item in items:
        failed = [r for r in runtestprotocol(item, log=False) if not r.passed]
        result["skipped"] = bool(failed) and all(r.skipped for r in failed)
        if failed and not result["skipped"]:
            result |= {"test": item.nodeid, **kind_of_failure(str(failed[0].longrepr))}
            break
    result |= {"seconds": time.time() - start, "reached": [k for k, r in enumerate(reached) if r]}
    os.write(write, json.dumps(result).encode())
    os._exit(0)


def kind_of_failure(text):
    if said := re.search(r"emulated CUDA: [^\n]*", text):
        return {"found": "machine", "message": said[0]}
    error = next((line[2:].strip() for line in reversed(text.splitlines()) if line.startswith("E ")), text[-200:])
    return {"found": "results", "message": error}


class Study:
    """A plugin of pytest that takes the place of its loop over tests. What it finds is appended to files at once."""

    def __init__(self, until):
        self.until = until

    def pytest_runtestloop(self, session):
        """Half of the time for what tests reach without a fault, until that is known; the rest for faults."""
        import torch

        torch.testing.assert_close(torch.ones(1), torch.ones(1))  # what it imports, attempts need not import
        half = (time.time() + self.until) / 2
        known = {line["test"] for line in lines_of(COVERAGE)}
        in_processes([item for item in session.items if item.nodeid not in known], half, cover)
        covered = {line["test"]: line for line in lines_of(COVERAGE)}
        items = [item for item in session.items if item.nodeid in covered]
        print(f"what {len(items)} of {len(session.items)} tests reach is known")
        done = {line["fault"] for line in lines_of(VERDICTS)}

        def judge(fault):
            outcome = {"fault": fault.number, **verdict(fault, items, covered)}
            if len(items) == len(session.items) or outcome["found"] not in ("", "not reached"):
                append(VERDICTS, outcome)

        faults = [fault for fault in in_order_of_judgement(planted_faults()) if fault.number not in done]
        if len(items) < len(session.items):  # which bounds have no verdict would not be by chance
            faults = [fault for fault in faults if fault.kind not in OF_BOUNDS]
        in_processes(faults, self.until, judge)
        return True


def in_processes(tasks, until, run):
    """Two at once: each runs every second of the tasks, in their order, until a time."""
    processes = []
    for first in range(PROCESSES):
        if pid := os.fork():
            processes.append(pid)
            continue
        try:
            for task in tasks[first::PROCESSES]:
                if time.time() < until:
                    run(task)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    statuses = [os.waitpid(pid, 0)[1] for pid in processes]
    if any(statuses):
        raise SystemExit("a process of the study failed")


def in_order_of_judgement(faults):
    """Bounds and indices, which are most of all, after the others and at random: a part of them is a sample."""
    draw = random.Random(0)
    return sorted(faults, key=lambda fault: (fault.kind in OF_BOUNDS, draw.random() * (fault.kind in OF_BOUNDS)))


def cover(item):
    append(COVERAGE, {"test": item.nodeid, **of_test(item)})


def of_test(item):
    """A test that takes too long is not run with faults: it counts as one that reaches none."""
    result = attempt([item], -1, LONGEST_TEST)
    if result["found"] == "hang":
        return {"seconds": LONGEST_TEST, "skipped": True, "reached": []}
    if result["found"]:
        raise SystemExit(f"{item.nodeid} fails without a fault: {result['message']}")
    return {name: result[name] for name in ("seconds", "skipped", "reached")}


def verdict(fault, items, covered):
    """Runs the tests that reach a fault, the quickest first, as long as they are let."""
    tests = sorted(
        (covered[i.nodeid]["seconds"], k, i)
        for k, i in enumerate(items)
        if fault.number in covered[i.nodeid]["reached"]
    )
    if not tests:
        return {"found": "not reached", "message": "", "test": ""}
    chosen, seconds = [], 0.0
    for duration, _, item in tests:
        if chosen and seconds + duration > MOST_SECONDS:
            break
        chosen.append(item)
        seconds += duration
    result = attempt(chosen, fault.number, HANGS_AFTER + 10 * seconds)
    return {name: result[name] for name in ("found", "message", "test")} | {"tests": [len(chosen), len(tests)]}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append(path, line):
    """At once: several processes do so."""
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def module_of_mutants():
    return next(BUILT.glob("_C_cuda*.so"))


def planted_faults():
    return [Fault(**fault) for fault in json.loads((BUILT / "faults.json").read_text())]


def run(minutes):
    import pytest

    os.chdir(ROOT)
    os.environ |= {"MDGNN_EMULATION": "mutants", "MDGNN_EMULATION_ORDER": "random:1", "OMP_NUM_THREADS": "1"}
    digest = hashlib.sha256(module_of_mutants().read_bytes()).hexdigest()
    if not (stamp := BUILT / "digest").exists() or stamp.read_text() != digest:  # other kernels: begin anew
        for path in (COVERAGE, VERDICTS):
            path.unlink(missing_ok=True)
        stamp.write_text(digest)
    study = Study(time.time() + 60 * minutes)
    pytest.main(
        [*SAMPLE, "-q", "-s", "-p", "emulated_cuda", "-p", "no:cacheprovider", "-p", "no:xdist"], plugins=[study]
    )


# --- the table -------------------------------------------------------------------------------------------------------

SAME = "No fault: at the bound both give the same."
NOTHING = "No fault: a turn beyond the end has nothing to do."
EXTENT = (
    "Results do not show it: of what extents a structure has depend the sizes of bins, and so the time; the list only "
    "where rounding in a skewed cell reaches as far as from one bin to the next."
)
# Why a fault is not found: by its kind, and words of its place and line.
WHY = [
    (
        "barrier",
        "force_virial/cuda.cu",
        "the sums have been read",
        "No fault on a GPU today: before a warp writes the sums of its next row, all of its lanes meet in shuffles, "
        "behind their reads. A second row comes with more than 524,280 atoms, which no test has.",
    ),
    (FURTHER, "neighbors/cuda.cu", "visit < n_visits", "No fault: n_visits is odd, and so no multiple of 32."),
    (FURTHER, "neighbors/cuda.cu", "first < n;", NOTHING),
    (FURTHER, "neighbors/cuda_bins.cu", "k < w.n_tiles", "What is cleared, too, is padding, or written later."),
    (FURTHER, "neighbors/cuda_bins.cu", "step > 0", EXTENT),
    (FURTHER, "neighbors/cuda_bins.cu", "base < w.structures.positions.rows", NOTHING),
    (FURTHER, "neighbors/cuda_rows.cu", "s != shift[c]", "No fault: the two are not equal there."),
    (FURTHER, "neighbors/cuda_rows.cu", "order < 0 ? low : high", "No fault: 0 ends the search."),
    (FURTHER, "message/table.cu", "tile < layout.tiles", NOTHING),
    (FURTHER, "ops/", "begin < end; begin += kWarp", NOTHING),
    (FURTHER, "radial_filter/cuda.cu", "parts < 1 ? 1", SAME),
    (FURTHER, "radial_filter/cuda.cu", "begin + length <", SAME),
    (FURTHER, "radial_filter/cuda.cu", "apart < kWarp", "No fault: no lane is 32 lanes behind another."),
    (FURTHER, "radial_filter/cuda.cu", "sort.first[g] = total", "No fault: scan_intervals writes that number anew."),
    (FURTHER, "radial_filter/cuda.cu", "base < n_intervals", NOTHING),
    (
        FURTHER,
        "radial_filter/cuda.cu",
        "first[g] = place",
        "No fault: the number that is written is the one that follows.",
    ),
    (NEARER, "neighbors/cuda.cu", "left < 0 ? 0", "No fault: 32 stays 32, and -1 is below every lane, as 0 is."),
    (NEARER, "concat_message/cuda.cu", "first + u * step < end ?", SAME),
    (NEARER, "painn_message/cuda.cu", "staged[k < n ? k : n - 1]", SAME),
    (NEARER, "radial_filter/cuda.cu", "rows.row_ptr[middle + 1] <= k", "No fault: the walk goes on from a row before."),
    (NEARER, "radial_filter/cuda.cu", "<= kMostShared", "No fault: counters may be in either memory."),
    (NEARER, "radial_filter/cuda_table.hpp", "lane > a", "No fault: edge a is of the interval of edge a."),
    (LANE, "neighbors/cuda_bins.cu", "value, step", "No fault: steps of 17, 9, 5, 3 and 2 reach all lanes, too."),
    (INDEX, "neighbors/cuda_bins.cu", "ordered(mine ? x[k]", EXTENT),
    (INDEX, "neighbors/cuda_bins.cu", "raise(&w.bounds[common].high[k]", EXTENT),
    (GUARD, "neighbors/cuda_bins.cu", "leader", "No fault: all lanes have the same number, and its maximum is taken."),
]
PAGE = """# Faults planted into the kernels

By `make emulate-mutants`: each fault is turned on alone, and the sample of tests of `make emulate-sample` (checked, in
a random order of threads), as far as it reaches the fault, runs until one fails. It is found by the machine, by a
comparison of results (which tests without the machine would see, too), by a crash of the process, or because it does
not end. Not reached are bounds of numbers that are not integers, and what no test of the sample comes to.
{drawn}
{counts}
## Not found
{places}"""


def table(header, rows):
    return "\n".join(["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]) + "\n"


def counts(faults, verdicts):
    """A row for each kind, and one for all."""
    ways = {"machine": "machine", "results": "results", "crash": "crash", "hang": "no end"}
    ways |= {"": "not found", "not reached": "not reached", None: "not run"}
    rows = []
    for kind in [*dict.fromkeys(f.kind for f in faults), "all"]:
        of_kind = [verdicts[f.number] for f in faults if kind in ("all", f.kind)]
        rows.append([kind, len(of_kind), *map(of_kind.count, ways)])
    return table(["fault", "planted", *ways.values()], rows)


def why_not_found(fault):
    reasons = (
        why for kind, place, words, why in WHY if kind in fault.kind and place in fault.file and words in fault.text
    )
    return next(reasons, "Not argued yet.")


def report():
    faults, by_number = planted_faults(), {line["fault"]: line["found"] for line in lines_of(VERDICTS)}
    verdicts = {fault.number: by_number.get(fault.number) for fault in faults}
    places = {}
    for fault in faults:
        if verdicts[fault.number] == "":
            text = fault.text.replace("|", "\\|")
            row = [f"`{fault.place.removeprefix('csrc/')}`", f"`{text}`"]
            places.setdefault((fault.kind, why_not_found(fault)), []).append(row)
    lists = [f"\n### {kind}\n{why}\n\n{table(['place', 'line'], rows)}" for (kind, why), rows in places.items()]
    of_bounds = [verdicts[fault.number] is not None for fault in faults if fault.kind in OF_BOUNDS]
    drawn = ""
    if not all(of_bounds):
        drawn = (
            f"Of {len(of_bounds)} bounds and indices {sum(of_bounds)} were drawn at random; the others were not run.\n"
        )
    page = PAGE.format(drawn=drawn, counts=counts(faults, verdicts), places="".join(lists))
    (HERE / "mutants.md").write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    planting = commands.add_parser("plant")
    planting.add_argument("sources", type=Path)
    planting.add_argument("target", type=Path)
    commands.add_parser("run").add_argument("--minutes", type=float, default=600)
    commands.add_parser("list")
    commands.add_parser("report")
    arguments = parser.parse_args()
    if arguments.command == "plant":
        plant(arguments.sources, arguments.target)
    elif arguments.command == "run":
        run(arguments.minutes)
        report()
    elif arguments.command == "report":
        report()
    else:
        for fault in planted_faults():
            print(fault.number, fault.place, fault.kind, "|", fault.text)


if __name__ == "__main__":
    main()
