"""`mdgnn info`: the installation, or the header of a model file."""

import json
import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from mdgnn.engine import Engine, UnsupportedError
from mdgnn.locate import pretrained_names
from mdgnn.model_header import NAMES_IN_FILES, read_header
from mdgnn.threads import get_num_threads


def installation() -> dict[str, str]:
    """Versions, threads, CUDA and shipped models, in words; torch may not be there."""
    return {
        "Python": platform.python_version(),
        **{name: _version(name) for name in ("mdgnn", "torch", "numpy", "ase", "safetensors")},
        "CPU threads": str(get_num_threads()),
        "CUDA kernels": "not built" if find_spec("mdgnn._C_cuda") is None else "built",
        "CUDA devices": ", ".join(_cuda_devices()) or "none that torch can use",
        "shipped models": ", ".join(pretrained_names()) or "none",
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _cuda_devices() -> list[str]:
    try:
        import torch
    except ModuleNotFoundError:
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def model(name_or_path: str) -> dict[str, str]:
    """A model's header, a line for each entry or part of its records, its size, and what computes it on the CPU.

    Needs torch, for the number of parameters.
    """
    from mdgnn.model_file import EngineOnly, load_for_inference

    header = _with_names_of_options(read_header(name_or_path))
    program = header.pop("program", None)
    rows = {row: text for name, value in header.items() for row, text in _rows(name, value)}
    rows["program"] = "in the file, for the engine" if program else "none"
    loaded = load_for_inference(name_or_path)
    if isinstance(loaded, EngineOnly):
        rows["backend on the CPU"] = "engine, by the program alone: the model's module is not imported"
        return rows
    rows["parameters"] = str(sum(parameter.numel() for parameter in loaded.parameters()))
    try:
        Engine(loaded.eval().requires_grad_(False))
        rows["backend on the CPU"] = "engine" if loaded.has_energy else "engine; the model has learnt no energies"
    except UnsupportedError as error:
        rows["backend on the CPU"] = f"torch: {error}"
    return rows


def _with_names_of_options(header: dict[str, Any]) -> dict[str, Any]:
    """Files have older names for some."""
    option_of = {old: name for name, old in NAMES_IN_FILES.items()}

    def renamed(part: dict[str, Any]) -> dict[str, Any]:
        return {option_of.get(name, name): value for name, value in part.items()}

    return renamed({**header, "config": renamed(header["config"])})


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Parts of a record with records in it stand alone: that of a training has two thousand characters."""
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        for key, part in value.items():
            yield from _rows(f"{name}.{key}", part)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
