"""What the command line tells on stderr: errors in one sentence with an exit status, never a traceback for a user's
mistake, and warnings in one sentence."""

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TextIO

import typer

from mdgnn._internal.needs_torch import NeedsTorchError
from mdgnn._internal.reasons import first_line, out_of_memory
from mdgnn._internal.run_errors import InterruptedRunError, RunError

# About code that the user has not written: told only if warnings were asked for, by -W or PYTHONWARNINGS.
FOR_PROGRAMMERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)


class CommandError(Exception):
    """What is wrong with a command, in one sentence; exit status 1."""


def need_extra() -> None:
    """Raise a CommandError where what training needs is not installed."""
    for name in ("lightning", "pydantic"):
        if find_spec(name) is None:
            raise CommandError(f"this needs {name}, which is not installed: pip install 'mdgnn[train]'")


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turn the errors raised at the package's boundaries into a sentence and an exit status; warnings into sentences.

    Other exceptions pass: those are bugs, and their traceback is wanted.
    """
    before = warnings.showwarning
    warnings.showwarning = _show_warning
    try:
        yield
    except InterruptedRunError as error:
        _tell(str(error), 128 + error.signum)  # as shells expect
    except (CommandError, RunError, NeedsTorchError) as error:
        _tell(str(error), 1)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        _tell("this needs torch, which is not installed: pip install torch", 1)
    except KeyboardInterrupt:
        _tell("interrupted", 128 + signal.SIGINT)
    except OSError as error:
        reason = error.strerror or str(error)
        _tell(f"{error.filename}: {reason}" if error.filename else reason, 1)
    except (ValueError, RuntimeError, MemoryError) as error:
        _tell(out_of_memory(error) or first_line(error) or type(error).__name__, 1)
    finally:
        warnings.showwarning = before


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A sentence: the line that the warning points at is none of the user's."""
    place = ""
    if issubclass(category, FOR_PROGRAMMERS):
        if not sys.warnoptions:
            return
        place = f" ({filename}:{lineno})"
    print(f"mdgnn: warning: {' '.join(str(message).split())}{place}", file=file or sys.stderr)


def _tell(sentence: str, status: int) -> None:
    typer.echo(f"mdgnn: {sentence}", err=True)
    raise typer.Exit(status)
