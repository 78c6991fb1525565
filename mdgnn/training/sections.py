"""Sections of a configuration, but for the model's, which knows the options of models."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mdgnn.data import PropertyKey
from mdgnn.nn import Property
from mdgnn.training.schedules import last_weight


class ConfigError(ValueError):
    """A configuration that one sentence corrects."""


def _paths(value: Any) -> Any:
    return [value] if isinstance(value, (str, Path)) else value


Files = Annotated[list[str], BeforeValidator(_paths)]
NotNegative = Annotated[float, Field(ge=0, strict=True)]
Weight = NotNegative | Annotated[list[tuple[float, NotNegative]], Field(min_length=1)]
Positive = Annotated[float, Field(gt=0, strict=True)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, strict=True)]
Steps = Annotated[int, Field(ge=0, strict=True)]  # 0: never


class Section(BaseModel):
    """A table of the file; frozen, and closed to keys that it does not have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataSection(Section):
    """Files, in any format that ASE reads, and how they are batched.

    `valid` is a share of `train`, drawn by the run's seed, or files. `energy`, `forces`, `stress` are the keys under
    which the files have the targets, and `need` those that every structure must have (by default what the loss weighs,
    of energy and forces). Bad structures are refused or skipped; so are numbers of implausible size, unless `units` is
    "any". Energies or forces that those of the other structures contradict are named; they do not count in reference
    energies and scales, and are skipped with the bad ones. A structure's errors in the loss are multiplied by its
    "weight" (in `atoms.info`; 1 without one); with 0 it does not count in reference energies, means and scales either;
    but what `references` calls isolated may have any.
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
    """Weights of the errors of energy per atom, of force and stress components; 0 leaves one out.

    `huber_delta`, where the penalty becomes linear, is in the units of these errors (eV, eV/Angstrom, eV/Angstrom^3, or
    reduced ones), and for properties in units of their spread.
    """

    kind: Literal["mse", "mae", "huber"] = "mse"
    huber_delta: Positive = 0.01
    energy: Weight = 1.0
    forces: Weight = 10.0
    stress: Weight = 0.0


class PropertySection(Section):
    """A scalar beside the energy, in any unit: `name` is what the model calls it, `key` (by default the name) what the
    files do.

    "extensive" ones are sums over atoms, "intensive" ones means; both are numbers of a structure (in `atoms.info`).
    "atomic" ones have a number for each atom (in `atoms.arrays`). Where there is none, or NaN, nothing is learnt.
    `weight` is that of its errors, in units of its spread in the training data: the standard deviation of an intensive
    one, or what the mean of an element leaves of an atomic one, and least squares of the composition, per atom, of an
    extensive one. With weights of energy, forces and stress of 0, properties are learnt alone.
    """

    name: str
    kind: Literal["extensive", "intensive", "atomic"]
    key: str = ""
    weight: Weight = 1.0

    @property
    def in_files(self) -> PropertyKey:
        """Where the files have it."""
        return PropertyKey(self.name, self.key or self.name, self.kind == "atomic")

    @model_validator(mode="after")
    def _can_be_learnt(self) -> "PropertySection":
        try:
            Property(self.name, self.kind, [0.0], 1.0)
        except ValueError as error:
            raise ConfigError(f"[[property]] {error}, with key = {self.name!r} if the files have it so") from None
        if not last_weight(self.weight):
            raise ConfigError(f"[[property]] {self.name} has no weight in the end: leave it out, or raise its weight")
        return self


class OptimizerSection(Section):
    """Adam or AdamW, the course of its learning rate, and what happens to gradients and weights.

    `betas` are the decays of the means of the gradient and of its square; `weight_decay` is of all parameters; `warmup`
    are steps in which the rate rises from nothing; `patience`, `factor` and `min_lr` are those of "plateau", in
    validations; `clip` bounds the gradient's norm (0: not); `ema` is the decay of the mean of the weights (0: none).
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

    `matmul` is torch's `set_float32_matmul_precision` while the run trains and validates, not for the errors at its
    end, and whatever it was before: "high" multiplies matrices in TF32, "medium" in bfloat16, on devices that can; all
    else stays in the model's precision. `checkpoint_steps` are steps between checkpoints within an epoch (each epoch
    ends with one anyway); `stop_after` ends a run after so many validations without a better one; 0 for either: never.
    """

    epochs: Count = 100
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Steps = 0
    matmul: Literal["highest", "high", "medium"] = "highest"
    validate_epochs: Count = 1
    checkpoint_steps: Steps = 1000
    stop_after: Steps = 0
