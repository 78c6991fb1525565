"""What commands show: tables on stdout; notes and a progress bar on stderr."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from mdgnn.dynamics.reporter import Reporter

WIDE, PAGE, BORDERS = 10_000, 100, 7  # characters: where there is no terminal, of two columns, of what frames them
LONGEST_CELL = 60  # of any column, where a table does not say more


def print_table(title: str, rows: dict[str, str]) -> None:
    """Two columns on stdout, which together are about as wide as a page; longer values fold."""
    table = Table(title=Text(title), show_header=False)
    table.add_column()
    table.add_column(max_width=max(PAGE - BORDERS - max(map(len, rows)), PAGE // 3))
    for name, value in rows.items():
        table.add_row(Text(name), Text(value))
    show(table)


def show(table: Table) -> None:
    """A table on stdout, in which nothing is cut off: folded on a terminal, elsewhere long cells alone."""
    for column in table.columns:
        column.overflow = "fold"
        column.max_width = column.max_width or LONGEST_CELL
    Console(width=None if Console().is_terminal else WIDE).print(table)


@contextmanager
def progress(label: str, total: int) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on a terminal's stderr; yields a function of the step and a line about it."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    state = TextColumn("{task.fields[state]}", markup=False)
    with Progress(*columns, state, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, total=total, state="")
        yield lambda step, text: bar.update(task, completed=step, state=text)


class TerminalReporter(Reporter):
    """Tells on stderr, with a progress bar if that is a terminal."""

    def note(self, sentence: str) -> None:
        """One line."""
        Console(stderr=True, soft_wrap=True, highlight=False).print(Text(f"mdgnn: {sentence}"))

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """See `progress`."""
        with progress(label, total) as update:
            yield update
