"""A run of training: from a configuration to a folder with a model in it, at once or in several goes."""

import hashlib
import json
import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy

from mdgnn.data import EdgeBatches
from mdgnn.model_file import load
from mdgnn.model_header import read_header
from mdgnn.potential import Potential
from mdgnn.threads import is_forked, mend_fork
from mdgnn.training import folder as files
from mdgnn.training.build import build, freeze
from mdgnn.training.callbacks import Watch, random_state, set_random_state
from mdgnn.training.config import Config, override, parse
from mdgnn.training.data import Sets, Share, check_targets, keys_of, limits_of, sums_over
from mdgnn.training.first import about, absurd
from mdgnn.training.folder import RunError
from mdgnn.training.losses import Sums
from mdgnn.training.module import Training, world_size
from mdgnn.training.outcome import finish, save_best, save_model, sets_of
from mdgnn.training.progress import Bar, Lines
from mdgnn.training.schedules import last_weight
from mdgnn.training.sections import ConfigError
from mdgnn.training.stream import Stream

Start = tuple[Potential, dict[str, Any]]  # a model, and what was found out about the data for it


def train(config: Config, folder: str | Path, force: bool = False) -> dict[str, Any]:
    """Train a model.

    Parameters
    ----------
    config : Config
    folder : str or Path
        Gets everything that the run leaves: `mdgnn.training.folder` names the files. It must be empty, unless `force`
        lets an earlier run's files go.

    Returns
    -------
    dict
        The summary: errors of the best model on the validation and test set, steps, its epoch. Nothing in processes
        that torchrun started beside the first.

    Raises
    ------
    RunError, ConfigError, ValueError, OSError
        With a sentence that says what to change.
    """
    with _alone(Path(folder)), _settings_kept():
        return _train(config, Path(folder), force)


def _train(config: Config, target: Path, force: bool) -> dict[str, Any]:
    if this_process().rank == 0:
        files.check_free(target, force)
    _set_threads(config)
    sets = _read(config, None)
    start = _new(config, sets)
    if this_process().rank == 0:  # only now may anything of an earlier run go
        files.clear(target)
        files.write_json(target / files.CONFIG, config.content())
        save_model(start[0], target / files.START, start[1])
    return _go(config, target, sets, start, None)


def resume(folder: str | Path, settings: Sequence[str] = ()) -> dict[str, Any]:
    """Go on with a run that ended early, bit for bit as if it had not; of a finished one, return the summary.

    Parameters
    ----------
    folder : str or Path
    settings : sequence of str
        ``run.epochs=N`` makes a run longer, where the course of the learning rate does not depend on its length.

    Raises
    ------
    RunError
        If the folder holds no run, or another job has it, or its checkpoint is damaged, hostile, or of other data.
    """
    target = Path(folder)
    if (summary := _finished(target, settings)) is not None:
        return summary
    with _alone(target), _settings_kept():
        return _finished(target, settings) or _resume(target, settings)


def _alone(folder: Path) -> AbstractContextManager[None]:
    """Keeps other jobs out of the folder; the first process does so for those that torchrun started beside it."""
    return files.hold(folder) if this_process().rank == 0 else nullcontext()


def _finished(target: Path, settings: Sequence[str]) -> dict[str, Any] | None:
    """The summary of a run that has nothing left to do; nothing is written."""
    before = files.read_json(target / files.CONFIG)
    if parse(override(before, settings)) == parse(before) and (target / files.SUMMARY).exists():
        return _told(files.read_json(target / files.SUMMARY))
    return None


def _resume(target: Path, settings: Sequence[str]) -> dict[str, Any]:
    before = files.read_json(target / files.CONFIG)
    config = parse(override(before, settings))
    if config != parse(before):
        _check_longer(parse(before), config)
        if this_process().rank == 0:
            (target / files.SUMMARY).unlink(missing_ok=True)
            files.write_json(target / files.CONFIG, config.content())
    _set_threads(config)
    sets, last = _read(config, target), target / files.LAST
    if (target / files.START).exists():
        start = _begun(config, target)
    else:  # it ended before its model was there
        start = _new(config, sets)
        if this_process().rank == 0:
            save_model(start[0], target / files.START, start[1])
    return _go(config, target, sets, start, last if last.exists() else None)


def _check_longer(before: Config, after: Config) -> None:
    longer = before.model_copy(update={"run": before.run.model_copy(update={"epochs": after.run.epochs})})
    if longer != after or after.run.epochs < before.run.epochs:
        raise ConfigError("a run that goes on keeps its settings; only run.epochs may be raised")
    if before.optimizer.schedule in ("cosine", "onecycle"):
        raise ConfigError(f"run.epochs cannot be raised: the {before.optimizer.schedule} schedule ends with the run")
    if before.run.epochs % before.run.validate_epochs:
        raise ConfigError(
            f"run.epochs cannot be raised: epoch {before.run.epochs} has been validated as the last one, which "
            f"run.validate_epochs = {before.run.validate_epochs} would not do in a longer run"
        )


def this_process() -> Share:
    """Which one this is of those that torchrun has started."""
    return Share(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))


def _set_threads(config: Config) -> None:
    if config.run.threads and not is_forked():  # where torch has but one
        torch.set_num_threads(config.run.threads)


def _read(config: Config, folder: Path | None) -> Sets:
    """The data, with targets for what the loss weighs; what is noteworthy about them goes to stderr."""
    weighed = [name for name, course in config.courses().items() if last_weight(course)]
    if not weighed:
        raise ConfigError("[loss] gives nothing a weight in the end")
    sets = sets_of(config, folder)
    notes = sets.notes()
    for dataset, name in ((sets.train, "training"), (sets.valid, "validation")):
        missing = check_targets(dataset, name, weighed, every=dataset is sets.train)
        notes += [f"no structure of the {name} set has any {it}: how it is learnt remains unknown" for it in missing]
        if len(dataset) < (n := this_process().world_size):
            raise ConfigError(f"[data] the {name} set has {len(dataset)} structures, too few for {n} processes")
    if this_process().rank == 0:
        for note in notes:
            print(f"mdgnn: {note}", file=sys.stderr)
    return sets


def _go(config: Config, folder: Path, sets: Sets, start: Start, last: Path | None) -> dict[str, Any]:
    """Train from a model, or from its last checkpoint if there is one, to the end."""
    model, statistics = start
    seed_everything(config.run.seed)
    module = Training(model.train(), config)
    batches = EdgeBatches(
        sets.train.n_edges,
        max_edges=config.data.max_edges,
        batch_size=config.data.batch_size,
        shuffle=True,
        seed=config.run.seed,
        rank=this_process().rank,
        world_size=this_process().world_size,
    )
    stream = Stream(sets.train, batches, config.run.epochs)
    identity = hashlib.sha256(json.dumps(sets.fingerprints, sort_keys=True).encode()).hexdigest()
    explain = partial(_first_batch, config, folder, sets, batches, statistics)
    watch = Watch(config, folder, stream, partial(validate, config=config, sets=sets), identity, explain)
    if last is not None:
        files.read_checkpoint(last)  # refuses what Lightning would only trip over
    try:
        with quiet(), _multiplying(config.run.matmul), watch.signals:
            trainer = make_trainer(config, folder, watch)
            trainer.fit(module, stream, ckpt_path=last, weights_only=True)
    except RunError:
        if this_process().rank == 0 and (folder / files.BEST).exists():
            with suppress(RunError):  # of a full disk, say, which the first one tells
                save_best(config, folder, statistics)
        raise
    if this_process().rank:
        return {}
    return _told(finish(config, folder, sets, statistics, trainer.global_step))


def _told(summary: dict[str, Any]) -> dict[str, Any]:
    """The summary, its warnings on stderr."""
    for warning in summary.get("warnings", []):
        print(f"mdgnn: {warning}", file=sys.stderr)
    return summary


def _first_batch(config: Config, folder: Path, sets: Sets, batches: EdgeBatches, statistics: dict[str, Any]) -> str:
    """How far the model that training began with is from its first structures."""
    batches.set_epoch(0)
    model: Potential = load(folder / files.START).requires_grad_(False)
    return about(model, sets.train, config, statistics, list(next(iter(batches))))


def seed_everything(seed: int) -> None:
    """All generators that a run may use."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _new(config: Config, sets: Sets) -> Start:
    """The model that training begins with."""
    seed_everything(config.run.seed)
    model, statistics = build(config, sets.train, keys_of(config), sets.suspicious_to_train())
    if config.learns_energy() and this_process().rank == 0 and (note := absurd(model, sets.train, config, statistics)):
        print(f"mdgnn: {note}", file=sys.stderr)
    freeze(model, config.frozen(model))
    for dataset, name in ((sets.valid, "validation"), (sets.test, "test")):
        elements = [] if dataset is None else dataset.elements
        missing = [z for z in elements if model.elements.known != "any" and z not in model.elements.numbers]
        if missing:
            raise ConfigError(
                f"[data] the model will know {[*model.elements.numbers]}, and the {name} set has {missing} too"
            )
    return model, statistics


def _begun(config: Config, folder: Path) -> Start:
    """The model that a run has begun with."""
    path = folder / files.START
    model = load(path)
    freeze(model, config.frozen(model))
    return model, read_header(path)["training"]


def validate(module: Training, *, config: Config, sets: Sets) -> Sums:
    """Errors of the mean of the weights on the validation set, by all processes together."""
    sums = Sums(config.loss.kind, config.loss.huber_delta, list(config.courses()))
    averaged: Any = module.averaged.module
    sums_over(averaged, sets.valid, limits_of(config.data), sums, module.device, this_process())
    if world_size() > 1:
        table = sums.table.to(module.device)
        dist.all_reduce(table)
        sums.table = table.cpu()
    return sums


def make_trainer(config: Config, folder: Path, watch: Watch) -> pl.Trainer:
    """Lightning's, for one long epoch: `Stream` says why."""
    run, (_, n_processes) = config.run, this_process()
    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("[run] device = 'cuda', but torch finds no GPU that it can use")
    device = {"auto": "gpu" if torch.cuda.is_available() else "cpu", "cpu": "cpu", "cuda": "gpu"}[run.device]
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    strategy: str | Strategy = "auto"
    if n_processes > 1:  # a network may have weights that the energy does not see
        backend = "gloo" if device == "cpu" else "nccl"
        strategy = DDPStrategy(find_unused_parameters=True, process_group_backend=backend)
    bar = os.isatty(1) and this_process().rank == 0
    callbacks: list[Callback] = [watch, Bar() if bar else Lines()]
    logger: list[Logger] = []
    # Of a run killed between a validation and its checkpoint, events have that twice: unlike the log they keep all.
    if find_spec("tensorboard") or find_spec("tensorboardX"):
        logger.append(TensorBoardLogger(folder, name="tensorboard", version=""))
    return pl.Trainer(
        accelerator=device,
        devices=here,
        num_nodes=n_processes // here,
        strategy=strategy,
        precision="32-true",  # the model has its own, and the kernels take no half precision
        max_epochs=1,
        gradient_clip_val=config.optimizer.clip or None,
        callbacks=callbacks,
        logger=logger or False,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=bar,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        plugins=[LightningEnvironment()] if n_processes == 1 else None,  # whatever job scheduler it is in
    )


@contextmanager
def _settings_kept() -> Iterator[None]:
    """The number of threads and the random numbers of the process are afterwards what they were."""
    mend_fork()
    n_threads, random_numbers = torch.get_num_threads(), random_state()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        set_random_state(random_numbers)


@contextmanager
def _multiplying(precision: str) -> Iterator[None]:
    """Products of float32 matrices in another precision: everything between them stays as it is."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Lightning's remarks about devices and its tips, which say nothing of this run."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
