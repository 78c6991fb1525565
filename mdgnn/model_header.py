"""What a model file says of its model, read without torch.

See `mdgnn.model_file` for the format. `StoredModel` is a file as the engine runs it, by its program alone.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, deserialize

from mdgnn.locate import ModelFileError, locate
from mdgnn.properties import Property

FORMAT_VERSION = 3
OF_PROGRAM = "program."  # names of tensors that are the program's alone begin so
RENAMED = {"least_distance": "min_distance"}  # options of the release before, and in files
NAMES_IN_FILES = {new: old for old, new in RENAMED.items()}  # of options: those of format 1
DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "I64": "int64", "BOOL": "bool"}


@dataclass(frozen=True)
class ModelInfo:
    """What calculators must know of a model beside what computes it.

    Attributes
    ----------
    name : str
        Of its class.
    cutoff, units, readout, min_distance
        As of `mdgnn.ModelConfig`; the cutoff is the largest.
    elements : "any" or sequence of int
        Atomic numbers that the model knows.
    has_energy : bool
    properties : sequence of Property
        What it predicts beside the energy.
    digest : callable
        SHA-256 of class, configuration and weights.
    """

    name: str
    cutoff: float
    units: str
    readout: str
    min_distance: float
    elements: Literal["any"] | Sequence[int]
    has_energy: bool
    properties: Sequence[Property]
    digest: Callable[[], str] = field(repr=False)


@dataclass(frozen=True)
class StoredModel:
    """A model file, all of it: what another process makes of the file later changes nothing.

    Attributes
    ----------
    path : Path
    content : bytes
    header : dict
    """

    path: Path
    content: bytes = field(repr=False)
    header: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, name_or_path: str | Path) -> "StoredModel":
        """A model that ships with the package, or a file. Raises FileNotFoundError or ModelFileError."""
        path = locate(name_or_path)
        content = path.read_bytes()
        return cls(path, content, _header_in(content, path))

    @property
    def precision(self) -> str | None:
        """The dtype of what the engine runs; None where the file has nothing for it."""
        program = self.header.get("program")
        return program.get("dtype") if isinstance(program, dict) else None

    @property
    def has_all_in_program(self) -> bool:
        """Whether what the engine runs is all that the model predicts: files of before have no properties in it."""
        program, heads = self.header.get("program"), self.header.get("heads") or {}
        return isinstance(program, dict) and (not heads.get("properties") or bool(program.get("properties")))

    def info(self) -> ModelInfo:
        """Of a file with a program; without properties where they are not in it and the model's module is not imported.

        Raises
        ------
        ModelFileError
            For a header that does not fit.
        """
        h = self.header
        try:
            program = h["program"]
            known = [z for z, row in enumerate(program["element_of"]) if row >= 0]
            heads = h.get("heads", {"energy": True, "properties": []})
            module, _, name = h["architecture"].rpartition(":")
            of_program = [(p["name"], p["kind"]) for p in program.get("properties", [])]
            there = of_program or not module or module in sys.modules  # what computes properties
            properties = [Property(**p) for p in heads["properties"] if there]
            if (program["energies"] is not None) != bool(heads["energy"]):
                raise ValueError("expected a program of energies, or none, as the heads say")
            if of_program and of_program != [(p.name, p.kind) for p in properties]:
                raise ValueError("expected a program of the properties that the heads say")
            return ModelInfo(
                name=name,
                cutoff=math.inf if program["cutoff"] is None else float(program["cutoff"]),
                units=h["units"],
                readout=program["readout"],
                min_distance=float(h[NAMES_IN_FILES["min_distance"]]),
                elements="any" if h["elements"] == "any" else known,
                has_energy=bool(heads["energy"]),
                properties=properties,
                digest=partial(_digest_of_file, name, h["config"], self.content),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"{self.path} has a broken mdgnn header ({error!r})") from None


def read_header(name_or_path: str | Path) -> dict[str, Any]:
    """The JSON header of a model file.

    Raises
    ------
    FileNotFoundError, ModelFileError
    """
    return StoredModel.read(name_or_path).header


def _header_in(content: bytes, path: Path) -> dict[str, Any]:
    try:
        deserialize(content)  # type: ignore[no-untyped-call]
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
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


def _digest_of_file(kind: str, config: dict[str, Any], content: bytes) -> str:
    tensors = {
        name: (DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]), bytes(entry["data"]))
        for name, entry in deserialize(content)  # type: ignore[no-untyped-call]
        if not name.startswith(OF_PROGRAM)
    }
    return digest_of_contents(kind, config, tensors)


def digest_of_contents(
    kind: str, config: dict[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...], bytes]]
) -> str:
    """SHA-256 of a model's class, configuration and weights, of which dtype, shape and bytes are given."""
    options = {RENAMED.get(name, name): value for name, value in config.items()}
    digest = hashlib.sha256(json.dumps([kind, options], sort_keys=True, default=_plain).encode())
    for name, (dtype, shape, data) in sorted(tensors.items()):
        digest.update(f"{name} torch.{dtype} {shape}".encode() + data)
    return digest.hexdigest()


def _plain(option: Any) -> Any:
    """What another process has too of an option that JSON does not hold: numbers, or the class alone."""
    return option.tolist() if hasattr(option, "tolist") else type(option).__name__
