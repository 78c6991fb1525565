"""Modules that a user has named, and where they may stand."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType


def no_module(error: ModuleNotFoundError) -> str:
    """What to do about it."""
    return f"there is no module {error.name!r}: install it, or put its folder on PYTHONPATH"


_folder: ContextVar[str | None] = ContextVar("folder", default=None)


@contextmanager
def modules_of(folder: str) -> Iterator[None]:
    """Let `import_named` find modules in a folder, too; "" is the current one."""
    before = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(before)


def import_named(module: str) -> ModuleType:
    """Import a module that a user has named.

    The folder of `modules_of` is on Python's path meanwhile, and not before or after: nobody named what else stands
    there. It comes last, so that its files hide no package.
    """
    folder = _folder.get()
    if folder is None or folder in sys.path:
        return importlib.import_module(module)
    sys.path.append(folder)
    try:
        return importlib.import_module(module)
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
