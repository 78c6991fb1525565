"""The settings of `mdgnn md`."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mdgnn.cli.errors import CommandError


@dataclass(frozen=True)
class MDSettings:
    """What to simulate and how; quantities in the model's units, None for its default.

    `friction` is langevin's, `pressure` npt's; `index` and `format` are as of `read_structure`.
    """

    structure: str
    model: str = "lj"
    ensemble: str = "nve"
    temperature: float | None = None
    timestep: float | None = None
    steps: int = 1000
    friction: float | None = None
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    interval: int = 10
    checkpoint_interval: int = 500
    pressure: float | None = None
    index: int | None = None
    format: str | None = None

    def used(self) -> dict[str, Any]:
        """Those that the run depends on."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def check(self) -> None:
        """Raise a CommandError for a number that cannot be, or that the ensemble has no use for."""
        for name in ("temperature", "timestep", "friction"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise CommandError(f"expected a {name} of at least 0, got {value}")
        if self.timestep == 0:
            raise CommandError("expected a timestep above 0, got 0")
        if self.pressure is not None and self.ensemble != "npt":
            raise CommandError(f"a pressure goes with the ensemble npt, not with {self.ensemble}")
        if self.pressure is not None and not np.isfinite(self.pressure):
            raise CommandError(f"expected a finite pressure, got {self.pressure}")
        if self.friction is not None and self.ensemble != "langevin":
            raise CommandError(f"a friction goes with the ensemble langevin, not with {self.ensemble}")
        if self.ensemble == "npt" and self.temperature == 0:
            raise CommandError("npt expects a temperature above 0, got 0")
