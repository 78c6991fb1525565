"""Errors of the command line: one sentence on stderr and an exit status, never a traceback for a user's mistake."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import typer


class CommandError(Exception):
    """A problem that one sentence explains; exit status 1."""

    status = 1


class InterruptedRunError(CommandError):
    """A run that a signal ended in good order; exit status 128 + signal, as shells expect."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.status = 128 + signum


@contextmanager
def errors_as_sentences() -> Iterator[None]:
    """Turn the errors raised at the package's boundaries into a sentence and an exit status.

    Other exceptions pass: those are bugs, and their traceback is wanted.
    """
    try:
        yield
    except CommandError as error:
        _tell(str(error), error.status)
    except KeyboardInterrupt:
        _tell("interrupted", 128 + signal.SIGINT)
    except OSError as error:
        reason = error.strerror or str(error)
        _tell(f"{error.filename}: {reason}" if error.filename else reason, 1)
    except MemoryError as error:
        _tell(f"not enough memory: {next(iter(str(error).splitlines()), 'it is used up')}", 1)
    except (ValueError, RuntimeError) as error:
        _tell(next(iter(str(error).splitlines()), type(error).__name__), 1)


def _tell(sentence: str, status: int) -> None:
    typer.echo(f"mdgnn: {sentence}", err=True)
    raise typer.Exit(status)
