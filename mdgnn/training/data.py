"""The data sets of a configuration, and errors of a model on one."""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from mdgnn.data import Dataset, EdgeBatches, Keys, Sample, collate, read_frames, split
from mdgnn.potential import Potential, Prediction, evaluate
from mdgnn.training.config import ConfigError, DataSection
from mdgnn.training.folder import fingerprint
from mdgnn.training.losses import Sums, errors_of
from mdgnn.training.module import to_device


class Sets(NamedTuple):
    """Training, validation and test set (None: there is none), and the SHA-256 of each file."""

    train: Dataset
    valid: Dataset
    test: Dataset | None
    fingerprints: dict[str, str]


def keys_of(section: DataSection) -> Keys:
    """Under which names the files have their targets."""
    return Keys(energy=section.energy, forces=section.forces, stress=section.stress)


def read_sets(section: DataSection, cutoff: float, seed: int, *, units: str, needs: tuple[str, ...]) -> Sets:
    """Read the files of a configuration.

    Parameters
    ----------
    section : DataSection
    cutoff : float
        How far edges reach (Angstrom).
    seed : int
        Of the split.
    units : str
        "metal" or "lj", by which implausible values are found.
    needs : tuple of str
        Targets without which a structure is bad.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read, or holds bad structures.
    """
    keys = keys_of(section)

    def read(paths: list[str]) -> Dataset:
        return Dataset(read_frames(paths, keys, bad=section.bad, need=needs, units=units), cutoff, keys=keys)

    files = [*section.train, *(section.valid if isinstance(section.valid, list) else []), *section.test]
    if isinstance(section.valid, list):
        train, valid = read(section.train), read(section.valid)
    else:
        frames = read_frames(section.train, keys, bad=section.bad, need=needs, units=units)
        if len(frames) < 2:
            raise ConfigError(f"[data] train has {len(frames)} structures, too few to take a part of for validation")
        share = min(max(section.valid, 1 / len(frames)), 1 - 1 / len(frames))
        parts = split(len(frames), (1 - share, share), seed)
        train, valid = (Dataset([frames[int(k)] for k in part], cutoff, keys=keys) for part in parts)
    for name, dataset in (("train", train), ("valid", valid)):
        if len(dataset) == 0:
            raise ConfigError(f"[data] {name} holds no structures")
    return Sets(train, valid, read(section.test) if section.test else None, fingerprint(files))


class Share(NamedTuple):
    """Which of several processes this is, and how many there are."""

    rank: int = 0
    world_size: int = 1


def predictions(
    model: Potential,
    dataset: Dataset,
    section: DataSection,
    device: torch.device | str = "cpu",
    share: Share = Share(),  # noqa: B008
) -> Iterator[tuple[Sample, Prediction]]:
    """Batches of a data set in its order with what a model says of them: nothing is kept for its training."""
    batches = EdgeBatches(
        dataset.n_edges,
        max_edges=section.max_edges,
        batch_size=section.batch_size,
        shuffle=False,
        seed=0,
        rank=share.rank,
        world_size=share.world_size,
    )
    for frames in batches:
        if not frames:  # another process has all of a small batch
            continue
        sample = to_device(collate([dataset[k] for k in frames]), device)
        virial = sample.targets.stress is not None
        yield sample, evaluate(model, sample.graph, forces=sample.targets.forces is not None, virial=virial)


def sums_over(
    model: Potential,
    dataset: Dataset,
    section: DataSection,
    sums: Sums,
    device: torch.device | str = "cpu",
    share: Share = Share(),  # noqa: B008
) -> Sums:
    """The given sums with the errors on a data set added."""
    for sample, found in predictions(model, dataset, section, device, share):
        sums.add(errors_of(found, sample.graph, sample.targets))
    return sums
