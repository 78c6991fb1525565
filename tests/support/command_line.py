"""Commands, run in this process."""

from typer.testing import CliRunner

from mdgnn.cli import app


def run(*arguments):
    """The result of a command; bugs are raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def sentence(result):
    """The one line that an error puts on stderr."""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("mdgnn: "), result.stderr
    return lines[0]
