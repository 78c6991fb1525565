"""Model files: safetensors with a JSON header, never pickle.

The header's ``mdgnn`` entry holds format version, architecture, configuration, elements, cutoff, units, the shortest
distance in the training data, a free training record, the properties that the model predicts beside the energy, if
any, and what the engine runs, so that it needs no Python to read a file; the tensors are the model's state and the
program's weights. Files of format 1 have no program; nor have those of models that have not learnt energies.

The architecture is the name of a model of mdgnn, or "package.module:Class". A file never chooses what is imported: see
`load`. What the engine runs needs no class, so that calculators run a file of a model whose module is not here.
"""

import copy
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mdgnn._internal.torch_context import torch_context
from mdgnn.engine import Engine, UnsupportedError
from mdgnn.engine.program import OF_PROGRAM, content
from mdgnn.locate import ModelFileError, locate
from mdgnn.model_config import RENAMED, ModelConfig
from mdgnn.models.names import UntrustedError, class_of, name_of
from mdgnn.nn import Property
from mdgnn.potential import Potential

FORMAT_VERSION = 3
NAMES_IN_FILES = {new: old for old, new in RENAMED.items()}  # of options: those of format 1


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
        config, _ = header["config"], header["units"]
    except (json.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path} has a broken mdgnn header ({error!r})") from None
    if version not in range(1, FORMAT_VERSION + 1):
        raise ModelFileError(f"{path} has model format {version}, this mdgnn reads formats 1 to {FORMAT_VERSION}")
    if not isinstance(architecture, str):
        raise ModelFileError(f"{path} has a broken mdgnn header: expected the name of a model, got {architecture!r}")
    if not isinstance(config, dict):
        raise ModelFileError(f"{path} has a broken mdgnn header: expected options as config, got {config!r:.80}")
    return header  # type: ignore[no-any-return]


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
    return _load(name_or_path, trusted)


def _load(name_or_path: str | Path, trusted: Sequence[str]) -> Potential:
    header = read_header(name_or_path)
    path, architecture = locate(name_or_path), header["architecture"]
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
        with safe_open(path, framework="pt") as file:
            of_model, all_read = model.state_dict().keys(), header["format_version"] == 1
            names = [n for n in file.keys() if all_read or n in of_model or not n.startswith(OF_PROGRAM)]  # noqa: SIM118
            state = {name: file.get_tensor(name) for name in names}
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

    It has energies and forces on the CPU, in the precision of the file, and no properties beside them.
    """

    def __init__(self, path: Path, header: dict[str, Any]):
        self.name, engine = header["architecture"], Engine.load(path)
        with safe_open(path, framework="pt") as file:
            of_model = {n: file.get_tensor(n) for n in file.keys() if not n.startswith(OF_PROGRAM)}  # noqa: SIM118
        self.digest = _digest(self.name.rpartition(":")[2], header["config"], of_model)
        known = tuple(z for z, row in enumerate(engine.program.element_of) if z > 0 and row >= 0)
        super().__init__(
            ModelConfig(
                cutoff=engine.cutoff,
                elements="any" if header["elements"] == "any" else known,
                units=header["units"],
                readout=engine.readout,
                min_distance=header[NAMES_IN_FILES["min_distance"]],
            )
        )
        self.engine = engine

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
def load_for_inference(name_or_path: str | Path) -> Potential:
    """As `load`, but `EngineOnly` where the model's module is not imported and the file has a program.

    Raises
    ------
    FileNotFoundError, ModelFileError
        As `load`.
    """
    try:
        return _load(name_or_path, ())
    except _UntrustedFileError:
        header = read_header(name_or_path)
        if not header.get("program"):
            raise
        try:
            return EngineOnly(locate(name_or_path), header)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ModelFileError):
                raise
            raise ModelFileError(f"{locate(name_or_path)} has a broken mdgnn header ({error!r})") from None


def digests_of(model: Potential) -> list[str]:
    """SHA-256 of a model's class, configuration and weights, as its file says and as the class says.

    An older file has fewer options than the class, whose defaults nobody knows without it: the first is the same
    whether the class is here or not, the last whether the model comes from a file or not. Equal models share one.
    """
    if isinstance(model, EngineOnly):
        return [model.digest]
    name, weights = type(model).__name__, model.state_dict()
    configs = [model.config.to_json()]
    if model.config_in_file is not None:
        configs.insert(0, model.config_in_file)
    return [_digest(name, config, weights) for config in configs]


def _digest(kind: str, config: dict[str, Any], tensors: Mapping[str, Tensor]) -> str:
    options = {RENAMED.get(name, name): value for name, value in config.items()}
    digest = hashlib.sha256(json.dumps([kind, options], sort_keys=True, default=_plain).encode())
    for name, tensor in sorted(tensors.items()):
        dtype, shape, numbers = content(tensor.detach().cpu())
        digest.update(f"{name} {dtype} {tuple(shape)}".encode() + numbers)
    return digest.hexdigest()


def _plain(option: Any) -> Any:
    """What another process has too of an option that JSON does not hold: numbers, or the class alone."""
    return option.tolist() if isinstance(option, (np.ndarray, np.generic, Tensor)) else type(option).__name__
