"""Model files: safetensors with a JSON header, never pickle.

The header's ``mdgnn`` entry holds format version, architecture, configuration, elements, cutoff, units, the shortest
distance in the training data, and a free training record; the tensors are the model's state.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize

from mdgnn.models import MODELS, Model

FORMAT_VERSION = 1


class ModelFileError(ValueError):
    """A file that is not a readable mdgnn model; the message says why."""


def pretrained_names() -> list[str]:
    """Names of the models that ship with the package."""
    folder = resources.files("mdgnn") / "pretrained"
    return sorted(f.name.removesuffix(".safetensors") for f in folder.iterdir() if f.name.endswith(".safetensors"))


def save(model: Model, path: str | Path, training: dict[str, Any] | None = None) -> None:
    """Write a model to a safetensors file, replacing an existing file only once the new one is complete.

    Parameters
    ----------
    model : one of mdgnn.models.MODELS
    path : str or Path
        Usually ends in ``.safetensors``.
    training : dict, optional
        How the model was made; anything that JSON holds.
    """
    if type(model).__name__ not in MODELS:
        raise TypeError(f"expected one of {', '.join(MODELS)}, got {type(model).__name__}")
    header = {
        "format_version": FORMAT_VERSION,
        "architecture": type(model).__name__,
        "config": model.config,
        "elements": model.elements,
        "cutoff": None if model.cutoff == float("inf") else model.cutoff,
        "units": model.units,
        "least_distance": model.least_distance,
        "training": training or {},
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    try:
        partial.write_bytes(serialize(state, metadata={"mdgnn": json.dumps(header)}))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def read_header(name_or_path: str | Path) -> dict[str, Any]:
    """The JSON header of a model file.

    Raises
    ------
    FileNotFoundError, ModelFileError
    """
    path = locate(name_or_path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ModelFileError(f"{path} is not a complete safetensors file ({error})") from None
    if "mdgnn" not in metadata:
        raise ModelFileError(f"{path} is a safetensors file, but not an mdgnn model: it has no mdgnn header")
    try:
        header = json.loads(metadata["mdgnn"])
        version, architecture = header["format_version"], header["architecture"]
        header["config"], header["units"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} has a broken mdgnn header ({error!r})") from None
    if version != FORMAT_VERSION:
        raise ModelFileError(f"{path} has model format {version}, this mdgnn reads format {FORMAT_VERSION}")
    if architecture not in MODELS:
        raise ModelFileError(f"{path} holds a {architecture!r}, this mdgnn knows {', '.join(MODELS)}")
    return header  # type: ignore[no-any-return]


def load(name_or_path: str | Path) -> Model:
    """Load a model that ships with the package (by name, such as ``"lj"``) or from a file.

    Raises
    ------
    FileNotFoundError
        If there is neither such a model nor such a file; the message lists the names.
    ModelFileError
        If the file is truncated, foreign, of another format version, or does not fit its own header.
    """
    header = read_header(name_or_path)
    path = locate(name_or_path)
    try:
        model: Model = MODELS[header["architecture"]](**header["config"])
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        dtypes = {t.dtype for t in state.values() if t.is_floating_point()}
        if len(dtypes) == 1:
            model = model.to(dtypes.pop())
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: the content does not fit its header ({error})") from None
    if not all(bool(torch.isfinite(t).all()) for t in state.values()):
        raise ModelFileError(f"{path} holds weights that are not finite")
    return model.eval()


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
