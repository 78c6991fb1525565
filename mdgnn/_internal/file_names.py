"""Names of output folders, and paths as a shell takes them."""

import re
import shlex
from pathlib import Path


def short_name(name: str) -> str:
    """What stands for a structure, a model or a configuration in the name of a folder.

    Of a file, its name without folders and the last suffix, with _ for what needs care in a shell or on other systems.
    """
    if name.startswith("lj:") and not Path(name).exists():
        return name.replace(":", "")
    return re.sub(r"[^\w.@+=,-]+", "_", Path(name).stem) or "structure"


def shell_path(path: str | Path) -> str:
    """As a path stands in a command that a shell is given."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
