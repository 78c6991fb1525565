"""The folder of a training run: what it holds, and how files in it are replaced."""

import csv
import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mdgnn._internal.folder_lock import InUseError, is_empty, lock_folder
from mdgnn._internal.replace_file import replace_file
from mdgnn._internal.run_errors import RunError as RunError
from mdgnn.data.sources import part_of

CONFIG, START, LOG, LAST, BEST = "config.json", "start.safetensors", "log.csv", "last.ckpt", "best.ckpt"
MODEL, SUMMARY = "model.safetensors", "summary.json"
IN_CHECKPOINTS = ("state_dict", "optimizer_states", "loops", "callbacks")
OURS = (CONFIG, START, LOG, LAST, BEST, MODEL, SUMMARY)


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Make the folder, and keep other jobs out of it.

    Raises
    ------
    RunError
        If it is a file, another job has it, or the system refuses.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"the output folder {folder} is a file; choose another (--output, or folder=)")
    with ExitStack() as stack:
        try:
            stack.enter_context(lock_folder(folder))
        except InUseError as error:
            raise RunError(str(error)) from None
        except OSError as error:
            what = "write to" if folder.exists() else "make"
            raise RunError(f"cannot {what} the folder {folder}: {error.strerror}") from None
        yield


def check_free(folder: Path, force: bool) -> None:
    """Raise a RunError if a run must not write to this folder: not empty without `force`."""
    if not force and not is_empty(folder):
        raise RunError(
            f"the output folder {folder} is not empty; choose another (--output, or folder=), replace what a run left "
            f"there (--force, or force=True), or continue it (--resume {folder}, or mdgnn.training.run.resume)"
        )


def clear(folder: Path) -> None:
    """Remove what an earlier run left there, and nothing else."""
    for name in OURS:
        for path in (folder / name, folder / f"{name}.part"):
            path.unlink(missing_ok=True)
    for path in (*folder.glob("*.png"), *folder.glob(".*.png.*.part"), *folder.glob("tensorboard/events.*")):
        path.unlink()


def replace_by(path: Path, data: bytes) -> None:
    """Write a file so that at any moment the old one or the new one is there, whole.

    Raises
    ------
    RunError
        If the system refuses, as where the disk is full.
    """
    try:
        replace_file(path, data)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """As `replace_by`; numbers that are not finite become null."""
    replace_by(path, (json.dumps(_finite(content), indent=2) + "\n").encode())


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> dict[str, Any]:
    """Of a file that this module wrote.

    Raises
    ------
    RunError
        If it is missing or is not such JSON.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise RunError(f"{path.parent} holds no run of mdgnn train: it has no {path.name}") from None
    except ValueError as error:
        raise RunError(f"{path} is broken: {error}") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is broken: expected an object of JSON, got {content!r}")
    return dict(content)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a run's checkpoint, which is tensors, numbers and text, or is refused.

    Raises
    ------
    RunError
        If there is anything else in it, such as code, if it is damaged, or not of a run.
    """
    import torch

    try:
        with warnings.catch_warnings():  # about pickles of other kinds, which are refused anyway
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} is missing") from None
    except MemoryError:
        raise
    except Exception:  # a damaged pickle raises anything at all
        raise RunError(f"{path} is damaged, or holds more than tensors, numbers and text, and is refused") from None
    missing = [key for key in IN_CHECKPOINTS if not isinstance(content, dict) or key not in content]
    if not missing and not (isinstance(content["callbacks"], dict) and "Watch" in content["callbacks"]):
        missing = ["callbacks"]
    if missing:
        raise RunError(f"{path} is damaged, or no checkpoint of a run of mdgnn train: it has no {missing[0]}")
    return dict(content)


def fingerprint(paths: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files, by name; of a part of a file, such as ``file.xyz@0:100``, that of the whole."""
    checksums = {}
    for path in paths:
        digest = hashlib.sha256()
        name, _ = part_of(path)
        with name.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        checksums[str(path)] = digest.hexdigest()
    return checksums


class Log:
    """A CSV file of one row for each validation, which goes on where a checkpoint stands.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        "step" is among them.
    step : int
        Rows of later steps are removed: the run makes them again. So is a row that was cut off.
    """

    def __init__(self, path: Path, columns: Sequence[str], step: int):
        self.path, self.columns = path, list(columns)
        rows = read_log(path) if step and path.exists() else []
        self._rows = [self.columns] + [[r[c] for c in self.columns] for r in rows if int(r["step"]) <= step]
        replace_by(path, self._text(self._rows))

    def _text(self, rows: Iterable[Sequence[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a row; numbers are written so that they read back exactly."""
        values = ["" if row.get(c) is None else repr(row[c]) for c in self.columns]
        try:
            with self.path.open("ab", buffering=0) as file:
                data = self._text([values])
                while data:
                    data = data[file.write(data) :]
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}") from None


def read_log(path: Path) -> list[dict[str, str]]:
    """Whole rows of a log."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(whole)))
