"""Where model files are, and the error for those that cannot be read."""

from importlib import resources
from pathlib import Path


class ModelFileError(ValueError):
    """A file that is not a readable mdgnn model; the message says why."""


def pretrained_names() -> list[str]:
    """Names of the models that ship with the package."""
    folder = resources.files("mdgnn") / "pretrained"
    return sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))


def locate(name_or_path: str | Path) -> Path:
    """The file of a shipped model, or the path itself; write ``./lj`` for a file that is named like a shipped model.

    Raises
    ------
    FileNotFoundError
    """
    names = pretrained_names()
    if name_or_path in names:
        return Path(str(resources.files("mdgnn") / "pretrained" / f"{name_or_path}.safetensors"))
    path = Path(name_or_path)
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"no model file {str(name_or_path)!r}, and no shipped model of that name ({', '.join(names)})"
    )
