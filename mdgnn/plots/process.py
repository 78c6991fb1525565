"""The process that draws."""

import atexit
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, TypeAlias

from mdgnn._internal.reasons import first_line
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.plots.style import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A call of a module's function, with its arguments: another process can be sent that, and draws the figure.
Drawing: TypeAlias = "partial[Figure]"
LONGEST_S = 30.0  # of all pictures together; they take a second, and longer where Matplotlib has to look for its fonts
# What it reads is what this process has just written to a file without a name, which nobody else can reach; it reads
# when this process has said so, by a byte, and ends when there is nobody any more to say it.
_CODE = """
import json, os, pickle, sys
sys.path = json.loads(sys.argv[1])
try:
    from mdgnn.plots.style import load_matplotlib
    load_matplotlib()
except Exception:
    pass  # each picture will say so
if os.read(int(sys.argv[2]), 1):
    pickle.load(sys.stdin.buffer)()
"""


class _Artist:
    """A process that imports Matplotlib, then waits for what it is to draw.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        # Agg is the one that writes PNG; an empty file and a folder without a matplotlibrc keep the user's from being
        # read.
        environment |= {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}
        # Files, not pipes: so neither process ever waits for the other to read, and this one can look at the clock.
        with ExitStack() as stack:
            self.job, self.told, self.errors = (stack.enter_context(TemporaryFile()) for _ in range(3))
            gate, self._gate = os.pipe()
            stack.callback(os.close, self._gate)
            paths = json.dumps([str(Path(place).absolute()) for place in sys.path])
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _CODE, paths, str(gate)],
                    stdin=self.job,
                    stdout=self.told,
                    stderr=self.errors,
                    pass_fds=[gate],
                    env=environment,
                    cwd=Path(sys.executable).anchor,
                    start_new_session=True,  # out of reach of a terminal's Ctrl-C, which this process gets
                )
            finally:
                os.close(gate)
            self._open = stack.pop_all()

    def begin(self, drawing: Callable[[], None]) -> None:
        """Let it draw."""
        pickle.dump(drawing, self.job)
        self.job.seek(0)
        with suppress(BrokenPipeError):  # it has ended, and its status says why
            os.write(self._gate, b"1")

    def close(self) -> None:
        """End it, if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._open.close()


_waiting: _Artist | None = None


def start() -> None:
    """Start the process that the next `draw` needs, which takes half a second to import Matplotlib, while this one has
    other work. Where it cannot be started, `draw` will say so."""
    global _waiting
    if _waiting is None:
        with suppress(OSError):
            _waiting = _Artist()


@atexit.register
def _stop() -> None:
    artist = _taken()
    if artist is not None:
        artist.close()


def _taken() -> _Artist | None:
    """The process that waits, which then waits for nobody else; none of a parent by fork."""
    global _waiting
    artist, _waiting = _waiting, None
    return artist if artist is not None and artist.owner == os.getpid() else None


def draw(folder: Path, pictures: Mapping[str, Callable[[], Drawing]]) -> list[str]:
    """Draw pictures into a folder; the names of those that are there now.

    A picture that fails, in its preparation or its drawing, is a sentence on stderr and no exception; nor are signals:
    SIGINT and SIGTERM only end the drawing. None is left there of an earlier time.

    Parameters
    ----------
    folder : Path
    pictures : dict
        By file name, a function that prepares the picture.
    """
    failed: dict[str, str] = {}
    try:
        with StopSignals() as stop:
            ready = {}
            for name, prepare in pictures.items():
                try:
                    (folder / name).unlink(missing_ok=True)
                    if not stop.received:
                        ready[name] = prepare()
                except Exception as error:
                    failed[name] = _reason(error)
            try:
                failed |= _draw_elsewhere(folder, ready, stop)
            except Exception as error:
                failed |= dict.fromkeys(ready, _reason(error))
    except KeyboardInterrupt:  # the second one, or one that came in another thread's stead
        pass
    drawn = [name for name in pictures if name not in failed and (folder / name).exists()]
    failed = {name: failed.get(name, "interrupted") for name in pictures if name not in drawn}
    for name in failed:
        with suppress(OSError):  # half a picture
            (folder / name).unlink(missing_ok=True)
    for reason in dict.fromkeys(failed.values()):
        names = [str(folder / name) for name, why in failed.items() if why == reason]
        what = f"the picture {names[0]} was" if len(names) == 1 else f"the pictures {', '.join(names)} were"
        print(f"mdgnn: {what} not drawn: {reason}", file=sys.stderr)
    return drawn


def _draw_elsewhere(folder: Path, drawings: Mapping[str, Drawing], stop: StopSignals) -> dict[str, str]:
    """Draw in another process; the reasons, by name, of what failed."""
    if not drawings or stop.received:
        return {}
    try:
        artist = _taken() or _Artist()
    except OSError as error:
        return dict.fromkeys(drawings, f"cannot start {sys.executable!r}: {error.strerror}")
    with closing(artist):
        artist.begin(partial(_draw_here, str(folder.absolute()), dict(drawings)))
        why = _wait(artist.process, stop)
        artist.told.seek(0)
        results: dict[str, str | None] = dict(json.loads(line) for line in artist.told if line.endswith(b"\n"))
        artist.errors.seek(0)
        last = artist.errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        status = artist.process.returncode
    why = why or last or f"the process that draws ended with status {status}"
    return {name: reason for name in drawings if (reason := results.get(name, why)) is not None}


def _wait(process: "subprocess.Popen[bytes]", stop: StopSignals) -> str:
    """Wait for its end, or end it; why, or nothing."""
    deadline, why = time.monotonic() + LONGEST_S, ""
    try:
        while not why and process.poll() is None:
            time.sleep(0.01)
            if stop.received:
                why = "interrupted"
            elif time.monotonic() > deadline:
                why = f"drawing took more than {LONGEST_S:g} s"
    finally:
        process.kill()  # which is nothing to one that has ended
        process.wait()
    return why


def _draw_here(folder: str, drawings: Mapping[str, Drawing]) -> None:
    """Say for each picture, as a line of JSON on stdout, its name and the reason why it failed, or null."""
    for name, drawing in drawings.items():
        path, reason = Path(folder, name), None
        try:
            save(drawing(), path)
        except Exception as error:
            reason = _reason(error)
            path.unlink(missing_ok=True)
        print(json.dumps([name, reason]), flush=True)


def _reason(error: Exception) -> str:
    """One line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error) or type(error).__name__
