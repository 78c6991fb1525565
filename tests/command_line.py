"""Commands, run in this process."""

from typer.testing import CliRunner

from mdgnn.cli import app


def run(*arguments):
    """The result of a command; bugs are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
