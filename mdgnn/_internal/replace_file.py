"""Files that are whole at any moment."""

import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that at any moment the old one or the new one is there, whole, also after a crash.

    Raises
    ------
    OSError
        If the system refuses, as where the disk is full; the old file is then as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb", buffering=0) as file:  # what a full disk refuses must not be tried again at closing
            view = memoryview(data)
            while view:
                view = view[file.write(view) :]
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
