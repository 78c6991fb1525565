"""Numbers in README and docs come from results files: python docs/fill_results.py [--check]

A page marks what is measured with comments, which readers do not see. A cell of a table, a smallest or largest cell,
or the first group of a regular expression:

    <!--= cpu.md; Engine; SimpleGNN, F=32 & 55; lecture / ours -->16.1<!--/-->
    <!--= lj_ladder.md; 2.; *: forces; max PaiNN -->0.229 %<!--/-->
    <!--= acac.md ~ mean temperature (\\d+) K -->298<!--/-->

and some rows and columns of one table:

    <!--table cpu.md; Engine; SimpleGNN* or SchNet*; task and ours as engine-->
    <!--/-->

`<!--table ops-->` is that of the ops, from their declarations.

The parts are: file, beginning of the heading, pattern of the row's cells joined by " & ", column, or "first" for the
first one. Without --check the texts between the comments are written anew; with it, pages that would change are an
error. So is a number with a unit of speed, size or accuracy that stands outside of such marks and of code, and some
words for one, such as "halves".
"""

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
FOLDERS = "benchmarks/results", "validation/results"
INLINE = re.compile(r"(<!--= (.+?) -->)(.*?)(<!--/-->)", re.S)
TABLE = re.compile(r"(<!--table (.+?)-->\n\n)(.*?)(<!--/-->)", re.S)
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.S | re.M)
MEASURED = re.compile(
    r"\d[\d.,]*(?:\s(?:µs|us|ms|s|seconds?|minutes?|hours?|kB|MB|GB|times|meV|epsilon|threads)\b|\s?%)"
    r"|\b(?:two threads|halv(?:e|es|ed)|microseconds?)\b|\b(?:as much as|of)\s\d[\d.,]*(?=\s(?:between|known)\b)"
    r"|\bfrom\s\d[\d.,]*\satoms\son\b"
)


class Table(NamedTuple):
    heading: str
    columns: list[str]
    rows: list[list[str]]


def pages() -> list[Path]:
    """README and the pages of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def results_file(name: str) -> str:
    """The text of a results file."""
    for folder in FOLDERS:
        if (path := ROOT / folder / name).exists():
            return path.read_text()
    raise ValueError(f"expected a file of {' or '.join(FOLDERS)}, got {name}")


def tables_of(text: str) -> list[Table]:
    """All tables of a page, each with the heading that it stands under."""
    tables, heading, above = [], "", ""
    for line in text.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            cells = [cell.strip().replace("**", "") for cell in line.strip()[1:-1].split("|")]
            if not above.startswith("|"):
                tables.append(Table(heading, cells, []))
            elif not set(line) <= set("|-: "):
                tables[-1].rows.append(cells)
        above = line
    return tables


def select(file: str, heading: str, pattern: str, columns: list[str]) -> list[list[str]]:
    """The cells in these columns of the rows that match."""
    patterns = [one if one.endswith("*") else f"{one} & *" for one in pattern.split(" or ")]
    cells = [
        [row[0 if column == "first" else table.columns.index(column)] for column in columns]
        for table in tables_of(results_file(file))
        if table.heading.startswith(heading) and set(columns) <= {"first", *table.columns}
        for row in table.rows
        if any(fnmatchcase(" & ".join(row), one) for one in patterns)
    ]
    if not cells:
        raise ValueError(f"{file} has no row {pattern!r} with {columns} under a heading {heading!r}")
    return cells


def number(text: str) -> float:
    return float(re.findall(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?", text)[0].replace(",", ""))


def inline(query: str) -> str:
    """The text that a query stands for."""
    if " ~ " in query:
        file, pattern = query.split(" ~ ")
        matches = re.findall(pattern, results_file(file))
        if len(set(matches)) != 1:
            raise ValueError(f"expected one match of {pattern!r} in {file}, got {matches}")
        return str(matches[0])
    file, heading, pattern, column = query.split("; ")
    best = {"min ": min, "max ": max}.get(column[:4])
    cells = [cell for (cell,) in select(file, heading, pattern, [column[4:] if best else column])]
    if best:
        return best(filter(None, cells), key=number)
    if len(cells) != 1:
        raise ValueError(f"expected one row that matches {query!r}, got {len(cells)}")
    return cells[0]


def table(query: str) -> str:
    """Rows and columns of one table, as Markdown."""
    if query == "ops":
        from mdgnn.ops import OPS
        from mdgnn.ops.declaration import table_of_ops

        return table_of_ops(OPS) + "\n"
    file, heading, pattern, selection = query.split("; ")
    columns, _, titles = zip(*(one.strip().partition(" as ") for one in selection.split(" and ")), strict=True)
    head = [title or column for column, title in zip(columns, titles, strict=True)]
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *select(file, heading, pattern, list(columns))]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + "\n"


def fill(text: str) -> str:
    """The page with all marked numbers as the results files have them."""
    text = INLINE.sub(lambda m: m[1] + inline(m[2]) + m[4], text)
    return TABLE.sub(lambda m: m[1] + table(m[2]) + m[4], text)


def complaints(text: str) -> list[str]:
    """What is wrong with a page's numbers, in words."""
    wrong = []
    if fill(text) != text:
        wrong.append("numbers differ from the results files: run `python docs/fill_results.py`")
    # Markdown takes a line that begins with a comment for a block of its own.
    wrong += [f"a line begins with a mark: {line}" for line in text.splitlines() if line.startswith("<!--= ")]
    rest = TABLE.sub("", INLINE.sub("", CODE.sub("", text)))
    wrong += [f"expected a mark around {found!r}" for found in MEASURED.findall(rest)]
    return wrong


def main(check: bool) -> int:
    wrong = 0
    for path in pages():
        text = path.read_text()
        if not check:
            path.write_text(text := fill(text))
        for complaint in complaints(text):
            print(f"{path.relative_to(ROOT)}: {complaint}")
            wrong += 1
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit("usage: python docs/fill_results.py [--check]")
    sys.exit(main(check="--check" in sys.argv))
