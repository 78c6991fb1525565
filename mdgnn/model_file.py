"""Model files: safetensors with a JSON header, never pickle.

The header's ``mdgnn`` entry holds format version, architecture, configuration, elements, cutoff, units, the shortest
distance in the training data, a free training record, the properties that the model predicts beside the energy, if
any, and what the engine runs, so that it needs no Python to read a file; the tensors are the model's state and the
program's weights. Files of format 1 have no program; programs of before they had properties are of energies alone.

The architecture is the name of a model of mdgnn, or "package.module:Class". A file never chooses what is imported: see
`load`. What the engine runs needs no class, so that calculators run a file of a model whose module is not here.
"""

import copy
import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as deserialize
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdgnn._internal.torch_context import torch_context
from mdgnn.engine import Engine, UnsupportedError
from mdgnn.engine.program import content
from mdgnn.locate import ModelFileError
from mdgnn.model_config import ModelConfig
from mdgnn.model_header import (
    FORMAT_VERSION,
    NAMES_IN_FILES,
    OF_PROGRAM,
    ModelInfo,
    StoredModel,
    digest_of_contents,
)
from mdgnn.model_header import read_header as read_header
from mdgnn.models.names import UntrustedError, class_of, name_of
from mdgnn.nn import Property
from mdgnn.potential import Potential


@torch_context()
def save(model: Potential, path: str | Path, training: dict[str, Any] | None = None) -> None:
    """Write a model to a safetensors file, replacing an existing file only once the new one is complete.

    With it goes the program of `mdgnn.Engine`, unless the engine cannot run the model.

    Parameters
    ----------
    model : Potential
    path : str or Path
        Usually ends in ``.safetensors``.
    training : dict, optional
        How the model was made; anything that JSON holds.

    Raises
    ------
    TypeError
        For what is no `Potential`, or whose class no name finds.
    ValueError
        If there are numbers in it, or in the model's configuration, that are not finite.
    NotImplementedError
        If the model lacks its body or its output layer.
    """
    header = {
        "format_version": FORMAT_VERSION,
        "architecture": name_of(type(model)),
        "config": {NAMES_IN_FILES.get(name, name): value for name, value in model.config.to_json().items()},
        "elements": model.config.elements,
        "cutoff": _or_none(model.cutoff),
        "units": model.units,
        NAMES_IN_FILES["min_distance"]: model.min_distance,
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


def _program(model: Potential, state: dict[str, Tensor]) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
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


class _WithoutDraws(TorchFunctionMode):
    """Weights that are to be replaced are not drawn, which would take random numbers away from the caller."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.normal_, Tensor.uniform_) or getattr(function, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@torch_context()
def load(name_or_path: str | Path, trusted: Sequence[str] = ()) -> Potential:
    """Load a model that ships with the package (by name, such as ``"lj"``) or from a file.

    Importing a module runs it, so that a file must not choose one. The class of a model of another package is taken
    from a module that has been imported already, or that stands in `trusted`; it must derive from `Potential`.

    Parameters
    ----------
    name_or_path : str or Path
    trusted : sequence of str
        Names of modules that may be imported, such as "package.module".

    Raises
    ------
    FileNotFoundError
        If there is neither such a model nor such a file; the message lists the names.
    ModelFileError
        If the file is truncated, foreign, of another format version, or does not fit its own header; if its model's
        module is not imported and not trusted.
    """
    return _load(StoredModel.read(name_or_path), trusted)


def _load(stored: StoredModel, trusted: Sequence[str]) -> Potential:
    path, header = stored.path, stored.header
    architecture = header["architecture"]
    try:
        kind = class_of(architecture, lambda module: module in trusted)
    except ValueError as error:
        wrong = _UntrustedFileError if isinstance(error, UntrustedError) else ModelFileError
        raise wrong(f"{path} {error}") from None
    try:
        with _WithoutDraws():
            model = kind(kind.Config.from_json(architecture, header["config"]))
            if "heads" in header:
                properties = [Property(**p) for p in header["heads"]["properties"]]
                model.attach_heads(properties, bool(header["heads"]["energy"]))
        of_model, all_read = model.state_dict().keys(), header["format_version"] == 1
        tensors = deserialize(stored.content).items()
        state = {n: t for n, t in tensors if all_read or n in of_model or not n.startswith(OF_PROGRAM)}
        dtypes = {t.dtype for t in state.values() if t.is_floating_point()}
        if len(dtypes) == 1:
            model = model.to(dtypes.pop())
        model.load_state_dict(state)
        model.config_in_file = header["config"]
    except (SafetensorError, RuntimeError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{path}: the content does not fit its header ({error})") from None
    if not all(bool(torch.isfinite(t).all()) for t in state.values()):
        raise ModelFileError(f"{path} holds weights that are not finite")
    return model.eval()


class _UntrustedFileError(ModelFileError):
    """Of a model whose module is not imported."""


class EngineOnly(Potential):
    """A model whose class is not here: what its file says of it, and the program of the engine.

    It runs on the CPU, in the precision of the file.
    """

    def __init__(self, stored: StoredModel):
        self.name = stored.header["architecture"]
        self.engine = Engine.from_content(stored.content, stored.path)
        info = stored.info()
        self.digest = info.digest()
        super().__init__(
            ModelConfig(
                cutoff=info.cutoff,
                elements="any" if info.elements == "any" else [z for z in info.elements if z > 0],
                units=info.units,
                readout=info.readout,
                min_distance=info.min_distance,
            )
        )

    @property
    def dtype(self) -> torch.dtype:
        return self.engine.dtype

    def atomic_energies(self, *inputs: Any) -> Any:
        raise UnsupportedError(f"a {self.name!r} runs by the program of its file alone: import its module first")

    def check(self, backend: str, device: torch.device, dtype: torch.dtype) -> None:
        """Raise a ValueError unless the engine has that on that device in that precision."""
        if backend == "torch" or device.type != "cpu" or dtype != self.dtype:
            own = str(self.dtype).removeprefix("torch.")
            raise ValueError(
                f"the module of a {self.name!r} is not imported: without it the model runs by the engine on the CPU in "
                f"{own}, not by {backend} on {device} in {str(dtype).removeprefix('torch.')}; import "
                f"{self.name.partition(':')[0]} first for torch"
            )


@torch_context()
def load_for_inference(model: str | Path | StoredModel) -> Potential:
    """As `load`, but `EngineOnly` where the model's module is not imported and the file has a program.

    Raises
    ------
    FileNotFoundError, ModelFileError
        As `load`.
    """
    stored = model if isinstance(model, StoredModel) else StoredModel.read(model)
    try:
        return _load(stored, ())
    except _UntrustedFileError:
        if stored.precision is None:
            raise
        return EngineOnly(stored)


def info_of(model: Potential) -> ModelInfo:
    """What calculators must know of a model."""
    known = model.elements
    return ModelInfo(
        name=type(model).__name__,
        cutoff=model.cutoff,
        units=model.units,
        readout=model.readout,
        min_distance=model.min_distance,
        elements="any" if known.known == "any" else known.numbers,
        has_energy=model.has_energy,
        properties=[] if model.heads is None else model.heads.properties,
        digest=partial(_first_digest, model),
    )


def _first_digest(model: Potential) -> str:
    return digests_of(model)[0]


def digests_of(model: Potential) -> list[str]:
    """SHA-256 of a model's class, configuration and weights, as its file says and as the class says.

    An older file has fewer options than the class, whose defaults nobody knows without it: the first is the same
    whether the class is here or not, the last whether the model comes from a file or not. Equal models share one.
    """
    if isinstance(model, EngineOnly):
        return [model.digest]
    tensors = {name: content(tensor.detach().cpu()) for name, tensor in model.state_dict().items()}
    weights = {
        n: (str(dtype).removeprefix("torch."), tuple(shape), data) for n, (dtype, shape, data) in tensors.items()
    }
    configs = [model.config.to_json()]
    if model.config_in_file is not None:
        configs.insert(0, model.config_in_file)
    return [digest_of_contents(type(model).__name__, config, weights) for config in configs]
