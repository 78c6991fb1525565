"""What a run of training leaves when it is over: the best model with its record, the summary, the pictures."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdgnn.model_file import load, save
from mdgnn.plots import Drawing, draw
from mdgnn.potential import Potential
from mdgnn.training import folder as files
from mdgnn.training import plots
from mdgnn.training.build import cutoff_of, units_of
from mdgnn.training.comparison import Comparison
from mdgnn.training.config import Config, parse
from mdgnn.training.data import Sets, keys_of, limits_of, properties_of, read_sets
from mdgnn.training.evaluate import compare
from mdgnn.training.folder import RunError
from mdgnn.training.schedules import last_weight


def sets_of(config: Config, folder: Path | None = None) -> Sets:
    """Read the data of a configuration, with edges as long as its model's.

    That is the first model of the run in a folder, if there is one: the file that it came from may have changed since.
    """
    own = None if folder is None else folder / files.START
    start = own if own is not None and own.exists() else config.model.start
    weighed = [name for name in ("energy", "forces") if getattr(config.loss, name)]
    need: list[str] = weighed if config.data.need is None else list(config.data.need)
    keys = keys_of(config)
    cutoff, units = cutoff_of(config.model, start), units_of(config, start)
    return read_sets(config.data, keys, cutoff, config.run.seed, units=units, need=need)


def finish(config: Config, folder: Path, sets: Sets, statistics: dict[str, Any], steps: int) -> dict[str, Any]:
    """Write the best model with the record of its training, and the summary, which says that the run is over."""
    model, best_epoch = save_best(config, folder, statistics)  # before anything that may fail
    compared = comparisons(config, sets, model)
    summary = {
        "steps": steps,
        "best_epoch": best_epoch,
        "errors": {name: comparison.figures() for name, comparison in compared.items()},
        "structures": {name: len(d) for name, d in zip(("train", "valid", "test"), sets[:3], strict=True) if d},
        "found": statistics,
        "data": sets.fingerprints,
        "skipped": [str(frame) for frame in sets.skipped],
        "warnings": [sentence for sentence in (worse_than_constants(config, model, compared["valid"]),) if sentence],
    }
    save_model(model, folder / files.MODEL, {"config": config.content(), **summary})
    files.write_json(folder / files.SUMMARY, summary)
    draw(folder, pictures_of(folder, model, compared))
    return summary


def worse_than_constants(config: Config, model: Potential, valid: Comparison) -> str:
    """A sentence about what a model says worse of the validation set than constants would, or "".

    The constant is 0 for forces and stress, else the mean of all other labels; of energies it may be the references.
    """
    worse = []
    for name, (true, predicted) in valid.all_pairs().items():
        if not last_weight(config.courses().get(name, 0.0)) or len(true) < 2:
            continue
        mae, best = float(np.abs(predicted - true).mean()), float(np.abs(true).mean())
        if name not in ("forces", "stress"):
            best = float(np.abs(true - true.mean()).mean()) * len(true) / (len(true) - 1)
        best = min(best, _of_references(model, valid)) if name == "energy" else best
        if not mae <= best:
            worse.append(f"the MAE of {name} is {mae:.4g}, that of a constant {best:.4g}")
    if not worse:
        return ""
    advice = "train it for longer, or with another learning rate or other weights in the loss"
    return f"the model is worse than a constant on the validation set ({'; '.join(worse)}): {advice}"


def _of_references(model: Potential, valid: Comparison) -> float:
    """Mean error per atom of energies that are the sums of references."""
    types = model.elements.types(torch.from_numpy(valid.numbers))
    references = np.bincount(valid.structure, model.elements.shift[types].numpy(), len(valid.n_atoms))
    return float(np.nanmean(np.abs(valid.energy[0] - references) / valid.n_atoms))


def save_best(config: Config, folder: Path, statistics: dict[str, Any]) -> tuple[Potential, int]:
    """Write the best model so far, of a run that may be under way; it and its epoch."""
    model, best_epoch = best_model(folder)
    save_model(model, folder / files.MODEL, {"config": config.content(), "best_epoch": best_epoch, "found": statistics})
    return model, best_epoch


def save_model(model: Potential, path: Path, record: dict[str, Any]) -> None:
    """Write a model with what is known of its training."""
    try:
        save(model, path, record)
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def comparisons(config: Config, sets: Sets, model: Potential) -> dict[str, Comparison]:
    """Of a model with the validation and the test set."""
    chosen = {"valid": sets.valid, "test": sets.test}
    return {name: compare(model, data, limits_of(config.data)) for name, data in chosen.items() if data is not None}


def pictures_of(folder: Path, model: Potential, compared: Mapping[str, Comparison]) -> dict[str, Callable[[], Drawing]]:
    """How a run went and what its model is worth, by file name."""
    rows = files.read_log(folder / files.LOG)
    names = plots.names_of(properties_of(model))
    pictures: dict[str, Callable[[], Drawing]] = {}
    if rows:
        pictures[plots.LEARNING] = partial(plots.learning, rows, model.units, names)
    if model.has_energy:
        pictures[plots.DIMERS] = partial(plots.dimers, model)
    for name, comparison in compared.items():
        pictures[f"parity_{name}.png"] = partial(plots.parity, comparison.all_pairs(), model.units, names)
    return pictures


def best_model(folder: Path) -> tuple[Potential, int]:
    """The mean of the weights in the best checkpoint, as a model, and its epoch.

    Raises
    ------
    RunError
        If there is no checkpoint of a validation.
    """
    checkpoint = files.read_checkpoint(folder / files.BEST)
    model = load(folder / files.START)
    prefix = "averaged.module."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    model.load_state_dict(state)
    return model.eval().requires_grad_(False), int(checkpoint["callbacks"]["Watch"]["best_epoch"])


def redraw(folder: str | Path) -> list[str]:
    """Draw the pictures of a run, which may be under way; the names of what was drawn. `draw` tells what was not.

    That takes no lock, since a run has it that is under way, and so it writes nothing but pictures, of this run alone,
    and those of its end last.

    Raises
    ------
    RunError
        If the folder holds no run, or one that has not been validated yet, or another one by the time of drawing; or
        if a picture could not be drawn.
    """
    target = Path(folder)
    config = parse(files.read_json(target / files.CONFIG))
    if not (target / files.BEST).exists():
        raise RunError(f"{target} has no validated model yet: nothing can be drawn")
    over, run = (target / files.SUMMARY).exists(), _stamp(target / files.START)
    model, _ = best_model(target)
    compared = comparisons(config, sets_of(config, target), model)
    if _stamp(target / files.START) != run:
        raise RunError(f"another run has begun in {target} meanwhile; nothing was drawn")
    pictures = pictures_of(target, model, compared)
    drawn = draw(target, pictures)
    if not over and (target / files.SUMMARY).exists():  # it has ended, with another model, and has drawn that
        return redraw(folder)
    if missing := len(pictures) - len(drawn):
        raise RunError(f"{missing} of {len(pictures)} pictures could not be drawn")
    return drawn


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes when another file comes to this place."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns
