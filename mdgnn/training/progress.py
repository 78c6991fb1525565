"""What a run shows: on a terminal a bar of steps with the figures of the last validation, else a line for each."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, TQDMProgressBar

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


class Lines(Callback):
    """The same figures where there is no terminal: of the loss, and the mean absolute error of each quantity."""

    def __init__(self) -> None:
        self._told: Any = {}

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        shown: Any = getattr(module, "shown", {})
        if shown is not self._told and shown and trainer.is_global_zero:
            print("  ".join(f"{name} {figure}" for name, figure in shown.items()), flush=True)
        self._told = shown
