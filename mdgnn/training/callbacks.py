"""What happens between two steps of training: the mean of weights, validation, log, checkpoints, the end."""

import random
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from mdgnn._internal.run_errors import InterruptedRunError
from mdgnn._internal.stop_signals import StopSignals
from mdgnn.training.config import Config
from mdgnn.training.folder import BEST, LAST, LOG, Log, RunError
from mdgnn.training.losses import Sums
from mdgnn.training.module import Training, world_size
from mdgnn.training.schedules import Progress, rate
from mdgnn.training.stream import Stream

ADVICE = "a smaller [optimizer] lr or clip may help, or a structure whose atoms nearly coincide is in the data"


class InterruptedTrainingError(InterruptedRunError):
    """A signal ended the run in good order."""

    def __init__(self, signum: int, step: int, folder: Path):
        go_on = f"mdgnn train --resume {folder} (in Python, mdgnn.training.run.resume)"
        super().__init__(signum, f"interrupted after step {step}; {go_on} goes on from there")


class Watch(pl.Callback):
    """Everything of a run that is not the step itself; it happens after one, in a fixed order, checkpoint last.

    A run that is killed and goes on from a checkpoint does the same again from there: what is written before the
    checkpoint of the same step is written again, and the log forgets later rows.

    Parameters
    ----------
    config : Config
    folder : Path
    stream : Stream
    validate : callable
        Of the module: its errors on the validation set, by the mean of the weights.
    identity : str
        Of the data; a checkpoint of other data is refused.
    explain : callable, optional
        What may be amiss with the model or the data if the first step fails.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        stream: Stream,
        validate: Callable[[Training], Sums],
        identity: str,
        explain: Callable[[], str] = lambda: ADVICE,
    ):
        self.config, self.folder, self.stream, self.validate = config, folder, stream, validate
        self.identity, self.explain, self.signals = identity, explain, StopSignals()
        self.progress = Progress()
        self.loss_sum, self.n_losses, self.best_epoch, self.ended = 0.0, 0, -1, False
        self.rows: Log | None = None
        self._random: dict[str, Any] | None = None

    # What checkpoints hold besides Lightning's own.

    def state_dict(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "progress": asdict(self.progress),
            "loss_sum": self.loss_sum,
            "n_losses": self.n_losses,
            "best_epoch": self.best_epoch,
            "ended": self.ended,
            "random": random_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["identity"] != self.identity:
            raise RunError(f"{self.folder / LAST} belongs to other data: a file of the data has changed since")
        self.progress = Progress(**state["progress"])
        self.loss_sum, self.n_losses = state["loss_sum"], state["n_losses"]
        self.best_epoch, self.ended = state["best_epoch"], state["ended"]
        self._random = state["random"]

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """A run that has become longer goes on after what was its last batch."""
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        progress["is_last_batch"] = progress["total"]["processed"] >= len(self.stream)

    # The hooks of Lightning's loop.

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            figures = [f"{name}_{kind}" for name in self.config.courses() for kind in ("mae", "rmse")]
            columns = ["epoch", "step", "lr", "train_loss", "valid_loss", *figures]
            self.rows = Log(self.folder / LOG, columns, trainer.global_step)
        if self._random is not None:
            set_random_state(self._random)
        trainer.should_stop = self.ended

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        module.weights = module.weights_at(self.stream.place(batch_idx).epoch)
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = self._rate(batch_idx)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._add_loss(trainer, outputs, batch_idx)
        self._check_gradient(module, batch_idx)
        module.average()
        place, run = self.stream.place(batch_idx), self.config.run
        best = False
        if place.last:
            if (place.epoch + 1) % run.validate_epochs == 0 or place.epoch + 1 == run.epochs:
                best = self._validate(trainer, module, place.epoch, batch_idx)
            self.loss_sum, self.n_losses = 0.0, 0
        signum = self._received(trainer, module)
        self.ended |= bool(run.stop_after) and self.progress.waited >= run.stop_after
        trainer.should_stop |= self.ended
        due = run.checkpoint_steps and (batch_idx + 1) % run.checkpoint_steps == 0
        if place.last or due or signum:
            self._save(trainer, best)
        if signum:
            raise InterruptedTrainingError(signum, batch_idx + 1, self.folder)

    # Their parts.

    def _rate(self, step: int) -> float:
        o = self.config.optimizer
        factor = rate(o.schedule, step, len(self.stream), o.warmup)
        if o.schedule != "plateau":
            return o.lr * factor
        return factor * max(o.lr * o.factor**self.progress.drops, min(o.min_lr, o.lr))

    def _add_loss(self, trainer: pl.Trainer, outputs: Any, batch_idx: int) -> None:
        loss = trainer.strategy.reduce(
            outputs["loss"].detach(), reduce_op="mean"
        )  # each one's share, times their number
        value = float(loss)
        if not np.isfinite(value):
            raise RunError(f"the loss is {value} in step {batch_idx + 1}: {self._advice(batch_idx)}")
        self.loss_sum, self.n_losses = self.loss_sum + value, self.n_losses + 1

    def _check_gradient(self, module: pl.LightningModule, batch_idx: int) -> None:
        """Raise a RunError unless it is finite; the last checkpoint is then from before the step."""
        sizes = torch._foreach_norm([p.grad for p in module.parameters() if p.grad is not None])
        if sizes and not bool(torch.stack(sizes).isfinite().all()):
            advice = self._advice(batch_idx)
            raise RunError(f"the gradient of the loss is not finite in step {batch_idx + 1}: {advice}")

    def _advice(self, batch_idx: int) -> str:
        """No learning rate has a share in what the first step meets."""
        return ADVICE if batch_idx else self.explain()

    def _validate(self, trainer: pl.Trainer, module: Any, epoch: int, batch_idx: int) -> bool:
        sums = self.validate(module)
        loss = sums.loss(module.last_weights())
        if not np.isfinite(loss):
            raise RunError(f"the loss of the validation set is {loss} after step {batch_idx + 1}: {ADVICE}")
        row = {
            "epoch": epoch + 1,
            "step": batch_idx + 1,
            "lr": self._rate(batch_idx),
            "train_loss": self.loss_sum / self.n_losses,
            "valid_loss": loss,
            **sums.figures(),
        }
        if self.rows is not None:
            self.rows.add(row)
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k != "step"}, step=batch_idx + 1)
        errors = {name: f"{row[f'{name}_mae']:.3g}" for name in self.config.courses() if f"{name}_mae" in row}
        losses = {name.removesuffix("_loss"): f"{row[name]:.3g}" for name in ("train_loss", "valid_loss")}
        module.shown = {"epoch": f"{epoch + 1}/{self.config.run.epochs}", **losses, **errors}
        best = self.progress.see(loss, self.config.optimizer.patience)
        self.best_epoch = epoch + 1 if best else self.best_epoch
        return best

    def _received(self, trainer: pl.Trainer, module: pl.LightningModule) -> int:
        """The signal that has come, to any of the processes, or 0."""
        mine = self.signals.received or 0
        if world_size() == 1:
            return mine
        return int(trainer.strategy.reduce(torch.tensor(float(mine), device=module.device), reduce_op="max"))

    def _save(self, trainer: pl.Trainer, best: bool) -> None:
        """The last checkpoint, and before it the best one, each of them whole at any moment."""
        part = self.folder / f"{LAST}.part"
        try:
            trainer.save_checkpoint(part)
            if trainer.is_global_zero:
                if best:
                    copy = self.folder / f"{BEST}.part"
                    shutil.copyfile(part, copy)
                    copy.replace(self.folder / BEST)
                part.replace(self.folder / LAST)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise RunError(f"cannot write {self.folder / LAST}: {error.strerror}") from None


def random_state() -> dict[str, Any]:
    """Of all generators, as tensors, numbers and tuples."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), int(position), int(has_gauss), cached),
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The reverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
