"""Warnings that point at the user's line."""

import sys
import warnings


def warn_user(sentence: str) -> None:
    """A warning at the line that called this package or ASE: the path from there has no fixed length."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in (
        "mdgnn",
        "ase",
        "contextlib",
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(sentence, stacklevel=level)
