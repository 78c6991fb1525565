"""The progress bar of a run: steps, and the figures of the last validation."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

REFRESH = 10  # steps


class Bar(TQDMProgressBar):
    """Lightning's, for a run that is one epoch to Lightning: it names ours, which the module has in `shown`."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=REFRESH)

    def on_train_epoch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description("steps")

    def get_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
        return dict(getattr(module, "shown", {}))
