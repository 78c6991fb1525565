"""Model files: safetensors with a JSON header, never pickle.

The header's ``mdgnn`` entry holds format version, architecture, configuration, elements, cutoff, units, the shortest
distance in the training data, a free training record, the properties that the model predicts beside the energy, if
any, and what the engine runs, so that it needs no Python to read a file; the tensors are the model's state and the
program's weights. Files of format 1 have no program; nor have those of models that have not learnt energies.
"""

import copy
import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdgnn._internal.torch_context import torch_context
from mdgnn.engine import Engine, UnsupportedError
from mdgnn.engine.program import OF_PROGRAM
from mdgnn.locate import ModelFileError, locate
from mdgnn.models import MODELS, Model, heads_from_header

FORMAT_VERSION = 3


@torch_context()
def save(model: Model, path: str | Path, training: dict[str, Any] | None = None) -> None:
    """Write a model to a safetensors file, replacing an existing file only once the new one is complete.

    With it goes the program of `mdgnn.Engine`, unless the engine cannot run the model.

    Parameters
    ----------
    model : one of mdgnn.models.MODELS
    path : str or Path
        Usually ends in ``.safetensors``.
    training : dict, optional
        How the model was made; anything that JSON holds.

    Raises
    ------
    ValueError
        If there are numbers in it, or in the model's configuration, that are not finite.
    """
    if type(model).__name__ not in MODELS:
        raise TypeError(f"expected one of {', '.join(MODELS)}, got {type(model).__name__}")
    header = {
        "format_version": FORMAT_VERSION,
        "architecture": type(model).__name__,
        "config": {name: _or_none(value) for name, value in model.config.items()},
        "elements": model.elements,
        "cutoff": _or_none(model.cutoff),
        "units": model.units,
        "least_distance": model.least_distance,
        "training": training or {},
    }
    if model.heads is not None:
        header["heads"] = model.heads.header
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    header["program"], weights = _program(model, state)
    try:
        text = json.dumps(header, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"expected a configuration and a training record of finite numbers ({error})") from None
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    try:
        partial.write_bytes(serialize({**state, **weights}, metadata={"mdgnn": text}))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _or_none(value: Any) -> Any:
    """JSON has no infinity, which a cutoff may be."""
    return None if isinstance(value, float) and value == math.inf else value


def _program(model: Model, state: dict[str, Tensor]) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """The header's entry of what the engine runs, and those of its weights that are not in the state."""
    if model.dtype not in (torch.float32, torch.float64):
        return None, {}
    try:
        engine = Engine(copy.deepcopy(model).cpu().eval())
    except UnsupportedError:
        return None, {}
    program = engine.program
    if not all(bool(torch.isfinite(w).all()) for w in program.weights.values()):
        return None, {}
    return program.stored(state)


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
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path} has a broken mdgnn header ({error!r})") from None
    if version not in range(1, FORMAT_VERSION + 1):
        raise ModelFileError(f"{path} has model format {version}, this mdgnn reads formats 1 to {FORMAT_VERSION}")
    if architecture not in MODELS:
        raise ModelFileError(f"{path} holds a {architecture!r}, this mdgnn knows {', '.join(MODELS)}")
    return header  # type: ignore[no-any-return]


class _WithoutDraws(TorchFunctionMode):
    """Weights that are to be replaced are not drawn, which would take random numbers away from the caller."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.normal_, Tensor.uniform_) or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@torch_context()
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
        config = dict(header["config"])
        if config.get("cutoff", 0) is None and header["architecture"] != "LennardJones":  # whose own word it is
            config["cutoff"] = math.inf
        with _WithoutDraws():
            model: Model = MODELS[header["architecture"]](**config)
            if "heads" in header:
                heads_from_header(model, header["heads"])
        with safe_open(path, framework="pt") as file:
            names = [n for n in file.keys() if header["format_version"] == 1 or not n.startswith(OF_PROGRAM)]  # noqa: SIM118
            state = {name: file.get_tensor(name) for name in names}
        dtypes = {t.dtype for t in state.values() if t.is_floating_point()}
        if len(dtypes) == 1:
            model = model.to(dtypes.pop())
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{path}: the content does not fit its header ({error})") from None
    if not all(bool(torch.isfinite(t).all()) for t in state.values()):
        raise ModelFileError(f"{path} holds weights that are not finite")
    return model.eval()
