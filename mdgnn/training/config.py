"""The configuration of a training run: a TOML file of five sections, strict about what it does not know.

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
"""

import difflib
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from mdgnn.models import MODELS
from mdgnn.models.options import RADIAL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SET_BY_TRAINING = ("shift", "scale", "least_distance")  # options of models


class ConfigError(ValueError):
    """A configuration that one sentence corrects."""


def _paths(value: Any) -> Any:
    return [value] if isinstance(value, (str, Path)) else value


Files = Annotated[list[str], BeforeValidator(_paths)]
Weight = (
    Annotated[float, Field(ge=0)] | Annotated[list[tuple[float, Annotated[float, Field(ge=0)]]], Field(min_length=1)]
)
Positive = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Steps = Annotated[int, Field(ge=0)]  # 0: never


class Section(BaseModel):
    """A table of the file; frozen, and closed to keys that it does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelSection(BaseModel):
    """What is trained; besides these keys, all options of the architecture.

    `references` are the energies of the elements' lone atoms: "isolated" (structures of one atom in the training
    data), "least_squares", "none", a file of lone atoms, or numbers by symbol. `scale` multiplies what the network
    says: "rms_force", or a number. `start` is a model file whose weights, references and scale are the first ones;
    `freeze` are patterns (as of file names) of parameters that stay as they are.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    architecture: str | None = None
    start: str | None = None
    freeze: list[str] = []
    references: dict[str, float] | str = "least_squares"
    scale: Literal["rms_force"] | Positive = "rms_force"
    dtype: Literal["float32", "float64"] = "float32"

    @property
    def options(self) -> dict[str, Any]:
        """Those of the architecture."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _knows_its_options(self) -> "ModelSection":
        if self.start is not None:
            given = [*self.options, *(["architecture"] if self.architecture else [])]
            given += [name for name in ("references", "scale") if name in self.model_fields_set]
            if given:
                raise ConfigError(f"[model] start = {self.start!r} brings its own {given[0]}: leave that out")
            return self
        trained = [name for name in MODELS if name != "LennardJones"]
        if self.architecture not in trained:
            raise ConfigError(f"[model] needs an architecture, one of {', '.join(trained)}, got {self.architecture!r}")
        known = options_of(self.architecture)
        for name in self.options:
            if name not in known:
                raise ConfigError(unknown("model", name, [*known, *type(self).model_fields]))
        return self


class DataSection(Section):
    """Files, in any format that ASE reads, and how they are batched.

    `valid` is a share of `train`, drawn by the run's seed, or files. `energy`, `forces`, `stress` are the keys under
    which the files have the targets, and `need` those that every structure must have (by default what the loss weighs,
    of energy and forces). Bad structures are refused or skipped; so are numbers of implausible size, unless `units` is
    "any".
    """

    train: Files
    valid: Annotated[float, Field(gt=0, lt=1)] | Files = 0.1
    test: Files = []
    energy: str = "energy"
    forces: str = "forces"
    stress: str = "stress"
    need: list[Literal["energy", "forces", "stress"]] | None = None
    bad: Literal["raise", "skip"] = "raise"
    units: Literal["model", "any"] = "model"
    batch_size: Count = 8
    max_edges: Count = 1_000_000


class LossSection(Section):
    """Weights of the errors of energy per atom, of force and stress components; 0 leaves one out."""

    kind: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: Positive = 0.01
    energy: Weight = 1.0
    forces: Weight = 10.0
    stress: Weight = 0.0


class OptimizerSection(Section):
    """Adam or AdamW, the course of its learning rate, and what happens to gradients and weights.

    `betas` are the decays of the means of the gradient and of its square; `warmup` are steps in which the rate rises
    from nothing; `patience`, `factor` and `min_lr` are those of "plateau", in validations; `clip` bounds the gradient's
    norm, and `ema` is the decay of the mean of the weights (0: none of either).
    """

    name: Literal["adam", "adamw"] = "adam"
    lr: Positive = 1e-3
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    amsgrad: bool = True
    schedule: Literal["constant", "plateau", "cosine", "onecycle"] = "plateau"
    warmup: Steps = 0
    patience: Count = 20
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    min_lr: Annotated[float, Field(ge=0)] = 1e-6
    clip: Annotated[float, Field(ge=0)] = 10.0
    ema: Decay = 0.99


class RunSection(Section):
    """How long, on what, and how often it is looked at.

    `checkpoint_steps` are steps between checkpoints within an epoch (each epoch ends with one anyway); `stop_after`
    ends a run after so many validations without a better one; 0 for either: never.
    """

    epochs: Count = 100
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Steps = 0
    validate_epochs: Count = 1
    checkpoint_steps: Steps = 1000
    stop_after: Steps = 0


class Config(Section):
    """All of it."""

    model: ModelSection
    data: DataSection
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    run: RunSection = RunSection()


def options_of(architecture: str) -> list[str]:
    """Names of the options of a model that a configuration may set."""
    names = [n for n, p in inspect.signature(MODELS[architecture]).parameters.items() if p.kind is not p.VAR_KEYWORD]
    return [name for name in dict.fromkeys([*names, "basis", *RADIAL]) if name not in SET_BY_TRAINING]


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
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key first
    section, key = (*(str(part) for part in found[0]["loc"][:2]), "", "")[:2]
    kind, value = found[0]["type"], found[0]["input"]
    if kind == "extra_forbidden":
        if not key:
            return unknown("", section, Config.model_fields)
        return unknown(section, key, Config.model_fields[section].annotation.model_fields)  # type: ignore[union-attr]
    if isinstance(cause := found[0].get("ctx", {}).get("error"), ConfigError):
        return str(cause)
    if kind == "missing":
        return f"[{section}] needs a key {key!r}" if key else f"a configuration needs a section [{section}]"
    reasons = dict.fromkeys(e["msg"][:1].lower() + e["msg"][1:] for e in found if e["loc"][:2] == found[0]["loc"][:2])
    return f"[{section}] {key}: {', or '.join(reasons)}, got {value!r}"


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
