"""Makes C++ of CUDA: translate.py SOURCES TARGET copies a tree of sources in which these two things are rewritten.

    kernel<<<grid, block, 0, stream>>>(arguments)
        emulation::launch(kernel, grid, block, 0, stream)(arguments)
    __shared__ T array[n];
        __shared__ T array[n]; emulation::declare_shared(&array, sizeof array, "array");

Lines keep their numbers, and a #line names the source, so that messages and debuggers speak of the .cu file. A file
whose text is the same is not written again: what is built of it stays.
"""

import re
import sys
from pathlib import Path

SHARED = re.compile(r"__shared__\s[^;=]*?(\w+)(?:\[[^;]*\])?;")


def start_of_kernel(text, end):
    """Where the name of the kernel before `<<<` begins, with its template arguments."""
    at = len(text[:end].rstrip())
    if text[at - 1] == ">":
        depth = 1
        while depth:
            at -= 1
            depth += {">": 1, "<": -1}.get(text[at - 1], 0)
        at -= 1
    while re.match(r"[\w:]", text[at - 1]):
        at -= 1
    return at


def translate(text):
    while (mark := text.find("<<<")) >= 0:
        start, end = start_of_kernel(text, mark), text.index(">>>", mark)
        kernel, configuration = text[start:mark], text[mark + 3 : end]
        text = f"{text[:start]}::emulation::launch({kernel}, {configuration}){text[end + 3 :]}"
    return SHARED.sub(lambda m: f'{m[0]} ::emulation::declare_shared(&{m[1]}, sizeof {m[1]}, "{m[1]}");', text)


def main(sources, target):
    for path in sorted(p for p in sources.rglob("*") if p.suffix in (".cu", ".cpp", ".hpp", ".h")):
        text = f'#line 1 "{path}"\n{translate(path.read_text())}'
        to = target / path.relative_to(sources)
        if not to.exists() or to.read_text() != text:
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_text(text)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
