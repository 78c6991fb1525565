"""The configuration of a training run: a TOML file of sections, strict about what it does not know.

[model]
architecture = "PaiNN"          # and any of its options: n_features = 64, cutoff = 5.0 ...
[data]
train = "train.xyz"
valid = 0.1                     # a share of train, or files
[loss]
forces = 100.0                  # a number, or [[epoch, weight], ...] with straight lines between
[optimizer]
lr = 1e-3
[run]
epochs = 200
[[property]]                    # any number of them: what else than the energy is learnt
name = "gap"
kind = "intensive"
"""

import difflib
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from mdgnn import models
from mdgnn._internal.user_modules import import_named, no_module
from mdgnn.model_header import RENAMED
from mdgnn.models.names import class_of
from mdgnn.potential import Potential
from mdgnn.training.schedules import last_weight
from mdgnn.training.sections import (
    ConfigError,
    DataSection,
    LossSection,
    OptimizerSection,
    Positive,
    PropertySection,
    RunSection,
    Section,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OF_ENERGIES = ("output_mlp", "repulsion")  # parts of a model that nothing else depends on
TRAINED = [name for name in models.__all__ if getattr(models, name).has_weights]
SET_BY_TRAINING = ("shift", "scale", "min_distance", *RENAMED)  # options of models


class ModelSection(BaseModel):
    """What is trained; besides these keys, all options of the architecture.

    `references` are the energies of the elements' lone atoms: "isolated" (structures of one atom in the training
    data), "least_squares", "none", a file of lone atoms, or numbers by symbol. `scale` multiplies what the network
    says: "rms_force", or a number. `mean_neighbours`, an option of the architectures, is that of the data unless it is
    given. The last layer of a new network is made to begin with the size of the labels; but 1 is the published network,
    as it is drawn. `start` is a model file whose weights, references and scale are the first ones (of its properties,
    those that a [[property]] names again); where its model is of another package, `trusted` names the modules that may
    be imported. `freeze` are patterns (as of file names) of parameters that stay as they are, as those of energies
    alone do where none are learnt. `dtype` is by default that of `start`, of a new model "float32".
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    architecture: str | None = None
    start: str | None = None
    trusted: list[str] = []
    freeze: list[str] = []
    references: dict[str, float] | str = "least_squares"
    scale: Literal["rms_force"] | Positive = "rms_force"
    dtype: Literal["float32", "float64"] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Those of the architecture."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _without_an_end(cls, content: Any) -> Any:
        """The cutoff that `_in_json` has changed."""
        endless = isinstance(content, dict) and content.get("cutoff", 0) is None
        return {**content, "cutoff": math.inf} if endless else content

    @model_validator(mode="after")
    def _knows_its_options(self) -> "ModelSection":
        for module in self.trusted:
            try:
                import_named(module)
            except ModuleNotFoundError as error:
                raise ConfigError(f"[model] trusted: {no_module(error)}") from None
        if self.start is not None:
            given = [*self.options, *(["architecture"] if self.architecture else [])]
            fields = type(self).model_fields  # a file of a resolved configuration holds their defaults
            given += [name for name in ("references", "scale") if getattr(self, name) != fields[name].default]
            if given:
                raise ConfigError(f"[model] start = {self.start!r} brings its own {given[0]}: leave that out")
            return self
        if self.architecture is None or (":" not in self.architecture and self.architecture not in TRAINED):
            ours = f"'package.module:Class' or one of {', '.join(TRAINED)}"
            raise ConfigError(f"[model] needs an architecture, {ours}, got {self.architecture!r}")
        known = options_of(self.architecture)
        for name in self.options:
            if name not in known:
                raise ConfigError(unknown("model", name, [*known, *type(self).model_fields]))
        elements = self.options.get("elements")
        if isinstance(elements, list) and (wrong := [z for z in elements if not isinstance(z, int)]):
            raise ConfigError(f"[model] elements: expected atomic numbers, got {wrong[0]!r}")
        for name, value in _in_json(self.options).items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise ConfigError(f"[model] {name}: expected finite numbers or text, got {value}") from None
        return self


def _in_json(options: dict[str, Any]) -> dict[str, Any]:
    """Options with null for an infinite cutoff, as in model files."""
    return {**options, "cutoff": None} if options.get("cutoff") == math.inf else options


class Config(Section):
    """All of it."""

    model: ModelSection
    data: DataSection
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    run: RunSection = RunSection()
    property: tuple[PropertySection, ...] = ()

    def courses(self) -> dict[str, Any]:
        """Weights of all terms of the loss, by name."""
        own = {name: getattr(self.loss, name) for name in ("energy", "forces", "stress")}
        return {**own, **{p.name: p.weight for p in self.property}}

    def learns_energy(self) -> bool:
        """Whether energies are learnt, or forces or stress."""
        return any(last_weight(getattr(self.loss, name)) for name in ("energy", "forces", "stress"))

    def frozen(self, model: Potential) -> list[str]:
        """Patterns of the parameters of a model that stay: those of energies alone too, where none are learnt."""
        own = [] if self.learns_energy() else [f"{name}.*" for name in OF_ENERGIES if getattr(model, name, None)]
        return [*self.model.freeze, *own]

    @model_validator(mode="after")
    def _tells_properties_apart(self) -> "Config":
        names = [p.name for p in self.property]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"[[property]] name = {name!r} stands there twice")
        return self

    def content(self) -> dict[str, Any]:
        """For a file; `parse` reads it back."""
        sections = {name: section for name, section in self.model_dump().items() if section != ()}
        return {**sections, "model": _in_json(sections["model"])}


def options_of(architecture: str) -> list[str]:
    """Names of the options of a model that a configuration may set."""
    return [name for name in model_class(architecture).Config.names() if name not in SET_BY_TRAINING]


def model_class(architecture: str) -> type[Potential]:
    """The class of this name, whose module is imported: a user's configuration is trusted.

    Raises
    ------
    ConfigError
        If there is none, or it has no weights.
    """
    try:
        kind = class_of(architecture, lambda module: True)
    except ValueError as error:
        raise ConfigError(f"[model] architecture {error}") from None
    if not kind.has_weights:
        raise ConfigError(f"[model] architecture {architecture!r} has no weights to train")
    return kind


def unknown(section: str, name: str, known: Iterable[str]) -> str:
    """The sentence about a key that there is not."""
    known = list(known)
    where = f"[{section}]" if section else "a configuration"
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
    return f"{where} has no {'key' if section else 'section'} {name!r}{hint}"


def parse(content: dict[str, Any]) -> Config:
    """Check a configuration.

    Raises
    ------
    ConfigError
        A sentence about the first thing that is wrong.
    """
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    errors = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key first
    place, depth = [str(part) for part in errors[0]["loc"]], 2
    if place[:1] == ["property"]:  # of which there may be several
        place, depth = ["[property]", *place[2:]], 3
    section, key = (*place, "", "")[:2]
    kind, value = errors[0]["type"], errors[0]["input"]
    if kind == "extra_forbidden":
        if not key:
            return unknown("", section, Config.model_fields)
        of: Any = PropertySection if section == "[property]" else Config.model_fields[section].annotation
        return unknown(section, key, of.model_fields)
    if isinstance(cause := errors[0].get("ctx", {}).get("error"), ConfigError):
        return str(cause)
    if kind == "missing":
        return f"[{section}] needs a key {key!r}" if key else f"a configuration needs a section [{section}]"
    of_it = [e["msg"] for e in errors if e["loc"][:depth] == errors[0]["loc"][:depth]]
    reasons = dict.fromkeys(message[:1].lower() + message[1:] for message in of_it)
    return f"{f'[{section}] {key}'.strip()}: {', or '.join(reasons)}, got {value!r}"


def read(path: str | Path, settings: Iterable[str] = ()) -> Config:
    """Read a TOML file, with settings such as ``loss.forces=100`` over what stands in it.

    Paths of files in it are relative to where the process runs.

    Raises
    ------
    OSError
        If the file cannot be read.
    ConfigError
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    return parse(override(content, settings))


def override(content: dict[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A configuration with ``section.key=value`` over what is in it; the value as in TOML, or else a string.

    Raises
    ------
    ConfigError
        For what is not of that form.
    """
    result = {name: dict(section) if isinstance(section, dict) else section for name, section in content.items()}
    for setting in settings:
        place, equals, text = setting.partition("=")
        section, dot, key = place.strip().partition(".")
        if not (equals and dot and section and key):
            raise ConfigError(f"expected a setting such as loss.forces=100, got {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text.strip()
        table = result.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"expected {section} to be a section, got {table!r}")
        table[key] = value
    return result
