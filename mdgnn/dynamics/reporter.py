"""What a run tells its user while it goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mdgnn._internal.warn_user import warn_user


class Reporter:
    """Warns, and shows no progress; the command line has one with a progress bar."""

    def note(self, sentence: str) -> None:
        """What the user should know of a run that goes on."""
        warn_user(sentence)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Around `total` steps; yields a function of the step and a line about it."""
        yield lambda step, state: None
