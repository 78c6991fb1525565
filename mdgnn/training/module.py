"""The module that Lightning trains: a potential, the running mean of its weights, loss and optimiser."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from mdgnn.data import Sample
from mdgnn.potential import Potential, evaluate
from mdgnn.training.adam import Adam, AdamW
from mdgnn.training.config import Config
from mdgnn.training.data import properties_of
from mdgnn.training.losses import errors_of, loss_of
from mdgnn.training.schedules import last_weight, weight


class EMA:
    """An exponential mean of weights: a <- a + (1 - d) (w - a) with d = min(decay, (1 + n) / (10 + n)) at update n.

    The smaller d of the beginning lets the random first weights go soon.
    """

    def __init__(self, decay: float):
        self.decay = decay

    @torch.no_grad()
    def __call__(self, averaged: Any, current: Any, n: Any) -> None:
        n = int(n)
        d = min(self.decay, (1 + n) / (10 + n))
        if averaged[0].is_floating_point():  # those of one dtype and device come together
            torch._foreach_lerp_(averaged, [w.to(a.dtype) for a, w in zip(averaged, current, strict=True)], 1 - d)
        else:
            torch._foreach_copy_(averaged, current)


class Training(pl.LightningModule):
    """Loss, optimiser, mean of the weights.

    The mean is a module beside the model, and not Lightning's callback that swaps weights for validation: that writes
    behind torch's back, and a model's kept tables would be those of other weights.

    Parameters
    ----------
    model : Potential
    config : Config

    Attributes
    ----------
    weights : dict
        Of the terms of the loss, at the present epoch.
    shown : dict of str
        Figures of the last validation, for a progress bar.
    """

    def __init__(self, model: Potential, config: Config):
        super().__init__()
        self.model = model
        self.averaged = AveragedModel(model, multi_avg_fn=EMA(config.optimizer.ema)).requires_grad_(False).eval()
        self.loss_section, self.optimizer_section, self.courses = config.loss, config.optimizer, config.courses()
        self.weights = self.weights_at(0)
        self.shown: dict[str, str] = {}

    def weights_at(self, epoch: float) -> dict[str, float]:
        """Of the terms of the loss."""
        return {name: weight(course, epoch) for name, course in self.courses.items()}

    def last_weights(self) -> dict[str, float]:
        """Those that the course of the weights ends with, by which validations are compared."""
        return {name: last_weight(course) for name, course in self.courses.items()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        s = self.optimizer_section
        trained = [p for p in self.model.parameters() if p.requires_grad]
        kind = {"adam": Adam, "adamw": AdamW}[s.name]
        return kind(trained, lr=s.lr, betas=s.betas, weight_decay=s.weight_decay, amsgrad=s.amsgrad)

    def transfer_batch_to_device(self, batch: Sample, device: torch.device, dataloader_idx: int) -> Sample:
        return batch.to(device)

    def training_step(self, batch: Sample, batch_idx: int) -> Tensor:
        """The loss of a batch, of which this process may have a part alone.

        Means are over what all processes have. Since these average their gradients, each process' share of the loss
        is multiplied by their number.
        """
        graph, targets = batch
        properties = properties_of(self.model)
        prediction = evaluate(
            self.model,
            graph,
            forces=self.weights["forces"] > 0,
            virial=self.weights["stress"] > 0 and targets.stress is not None,
            create_graph=True,
            properties=bool(properties),
        )
        errors = errors_of(prediction, graph, targets, properties)
        counts = {name: float(e.errors.numel()) for name, e in errors.items()}
        section, n_processes = self.loss_section, world_size()
        if n_processes > 1:
            counts = sum_over_processes({name: counts.get(name, 0.0) for name in self.courses}, graph.vectors.device)
        loss = loss_of(errors, self.weights, counts, section.kind, section.huber_delta)
        if not loss.requires_grad:  # nothing here has a target, but perhaps elsewhere
            outputs = [prediction.energy, *(prediction.properties or {}).values()]
            loss = loss + 0 * torch.cat(outputs).sum()
        return loss * n_processes

    def average(self) -> None:
        """Let the mean follow the weights."""
        self.averaged.update_parameters(self.model)


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_processes(counts: Mapping[str, float], device: torch.device) -> dict[str, float]:
    """Sums of each quantity's count; all processes name the same ones, in the same order."""
    total = torch.tensor(list(counts.values()), dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return dict(zip(counts, total.tolist(), strict=True))
