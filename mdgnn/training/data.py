"""The data sets of a configuration, and errors of a model on one."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from mdgnn.data import Dataset, EdgeBatches, Keys, Sample, Targets, collate, read_frames, split
from mdgnn.data.frames import NAMED, BadFrame, Found, left_out
from mdgnn.data.labels import QUANTITIES, names_in
from mdgnn.nn import Property
from mdgnn.potential import Potential, Prediction, evaluate
from mdgnn.training.config import Config
from mdgnn.training.folder import fingerprint
from mdgnn.training.losses import Sums, errors_of
from mdgnn.training.references import summarize
from mdgnn.training.sections import ConfigError, DataSection
from mdgnn.training.suspects import suspects


class Sets(NamedTuple):
    """Training, validation and test set (None: there is none), the SHA-256 of each file, which structures were left out
    as bad, how many of a validation set of its own the training set has too, and which have suspicious labels and are
    there all the same."""

    train: Dataset
    valid: Dataset
    test: Dataset | None
    fingerprints: dict[str, str]
    skipped: list[BadFrame]
    shared: int
    suspicious: list[BadFrame]

    def suspicious_to_train(self) -> list[int]:
        """Those of the training set, by their numbers there."""
        places = {(frame.file, frame.number) for frame in self.suspicious}
        return [k for k in range(len(self.train)) if self.train.place(k) in places] if places else []

    def notes(self) -> list[str]:
        """What should be known before the training."""
        skipped = left_out(self.skipped) if self.skipped else ""
        shared = f"{self.shared} structures of the validation set are in the training set too" if self.shared else ""
        return [note for note in (skipped, shared, _among(self.suspicious)) if note]


def _among(suspicious: Sequence[BadFrame]) -> str:
    if not suspicious:
        return ""
    more = f"; and {len(suspicious) - NAMED} more" if len(suspicious) > NAMED else ""
    return (
        f"{'; '.join(map(str, suspicious[:NAMED]))}{more}. Reference energies and scale go without, the training does "
        'not: mend it, or leave it out with data.bad = "skip" (or say data.units = "any", if it is right)'
    )


def keys_of(config: Config) -> Keys:
    """Under which names the files have their targets.

    A run that learns no energies wants neither them nor forces or stress, but for what every structure must have.
    """
    needed = QUANTITIES if config.learns_energy() else config.data.need or ()
    own: Any = {name: getattr(config.data, name) if name in needed else "" for name in QUANTITIES}
    return Keys(**own, properties=tuple(p.in_files for p in config.property))


def read_sets(section: DataSection, keys: Keys, cutoff: float, seed: int, *, units: str, need: Sequence[str]) -> Sets:
    """Read the files of a configuration.

    Parameters
    ----------
    section : DataSection
    keys : Keys
        From `keys_of`.
    cutoff : float
        How far edges reach (Angstrom).
    seed : int
        Of the split.
    units : str
        "metal", "lj" or "any": what magnitudes are plausible.
    need : sequence of str
        Targets without which a structure is bad.

    Raises
    ------
    OSError, ValueError
        If a file cannot be read, or holds bad structures.
    """

    skipped: list[BadFrame] = []
    suspicious: list[BadFrame] = []
    checked: dict[bytes, Found] = {}

    def read(paths: list[str], seen: dict[bytes, str]) -> Dataset:
        frames = read_frames(paths, keys, bad=section.bad, need=need, units=units, seen=seen, checked=checked)
        skipped.extend(frames.skipped)
        return Dataset(frames, cutoff, keys=keys)

    to_train: dict[bytes, str] = {}
    to_validate: dict[bytes, str] = {}
    train = read(section.train, to_train)
    files = [*section.train, *(section.valid if isinstance(section.valid, list) else []), *section.test]
    there = [train]
    if isinstance(section.valid, list):
        there.append(read(section.valid, to_validate))
    shared = len(to_train.keys() & to_validate.keys())
    if section.test:
        there.append(read(section.test, to_train))  # a test on what was trained on is none
    there, suspicious_frames = _look_at_labels(there, units, section.bad)
    (skipped if section.bad == "skip" else suspicious).extend(suspicious_frames)
    train, test = there[0], there[-1] if section.test else None
    train, valid = (train, there[1]) if isinstance(section.valid, list) else _parts(train, section.valid, seed)
    return Sets(train, valid, test, fingerprint(files), skipped, shared, suspicious)


def _look_at_labels(datasets: list[Dataset], units: str, bad: str) -> tuple[list[Dataset], list[BadFrame]]:
    """The data sets, without what is suspicious among all of them if bad is "skip", and what that is."""
    elements = sorted({z for dataset in datasets for z in dataset.elements})
    samples = (dataset[k] for dataset in datasets for k in range(len(dataset)))
    suspicious_frames = suspects(summarize(samples, elements), units) if units != "any" else []
    problems, result, first = [], [], 0
    for dataset in datasets:
        here = {s.number - first: s.reason for s in suspicious_frames if first <= s.number < first + len(dataset)}
        problems += [BadFrame(*dataset.place(k), reason) for k, reason in here.items()]
        result.append(dataset.subset(np.delete(np.arange(len(dataset)), list(here))) if bad == "skip" else dataset)
        first += len(dataset)
    return result, problems


def _parts(dataset: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """Two parts, of which the second is that share of the structures of several atoms: lone ones are for references."""
    lone, several = np.flatnonzero(dataset.n_atoms == 1), np.flatnonzero(dataset.n_atoms > 1)
    n = len(several)
    if n < 2:
        raise ConfigError(f"[data] train has {n} structures of several atoms, too few to validate on a part of them")
    n_valid = min(max(round(share * n), 1), n - 1)
    train, valid = (several[part] for part in split(n, (n - n_valid, n_valid), seed))
    return dataset.subset(np.sort(np.concatenate([lone, train]))), dataset.subset(valid)


def check_targets(dataset: Dataset, name: str, quantities: Sequence[str], every: bool) -> list[str]:
    """Those of these targets that no structure of a data set has, or none with a weight; a ConfigError unless there is
    each, or at least one, of them."""
    missing = list(quantities)
    for k in range(len(dataset)):
        missing = [q for q in missing if not _has(dataset[k].targets, q)]
        if not missing:
            break
    if missing and (every or len(missing) == len(quantities)):
        if missing[0] in QUANTITIES:
            raise ConfigError(f"[loss] {missing[0]} has a weight, but no structure of the {name} set has any")
        (key,) = [p.key for p in dataset.keys.properties if p.name == missing[0]]
        there = ", ".join(names_in(dataset.frame(0))) or "no labels"
        raise ConfigError(
            f"[[property]] {missing[0]}: expected numbers under {key!r}, but no structure of the {name} set has any "
            f"(in the first there are: {there})"
        )
    return missing


def _has(targets: Targets, quantity: str) -> bool:
    if not targets.weight > 0:
        return False
    if quantity in QUANTITIES:
        return getattr(targets, quantity) is not None
    return not bool(targets.extra[quantity].isnan().all())


class Limits(NamedTuple):
    """The most structures and edges of a batch."""

    batch_size: int = 32
    max_edges: int = 200_000


def limits_of(section: DataSection) -> Limits:
    """Of a configuration."""
    return Limits(section.batch_size, section.max_edges)


def properties_of(model: Potential) -> list[Property]:
    """What a model predicts beside the energy."""
    return [] if model.heads is None else model.heads.properties


class Share(NamedTuple):
    """Which of several processes this is, and how many there are."""

    rank: int = 0
    world_size: int = 1


def predictions(
    model: Potential,
    dataset: Dataset,
    limits: Limits,
    device: torch.device | str = "cpu",
    share: Share = Share(),  # noqa: B008
) -> Iterator[tuple[Sample, Prediction]]:
    """Batches of a data set in its order with what a model says of them: nothing is kept for its training.

    Targets that the model has not learnt are left out.
    """
    heads = model.heads
    batches = EdgeBatches(
        dataset.n_edges,
        max_edges=limits.max_edges,
        batch_size=limits.batch_size,
        shuffle=False,
        seed=0,
        rank=share.rank,
        world_size=share.world_size,
    )
    for frames in batches:
        sample = collate([dataset[k] for k in frames]).to(device)
        if not model.has_energy:
            sample = sample._replace(targets=replace(sample.targets, energy=None, forces=None, stress=None))
        forces, virial = sample.targets.forces is not None, sample.targets.stress is not None
        yield sample, evaluate(model, sample.graph, forces=forces, virial=virial, properties=heads is not None)


def sums_over(
    model: Potential,
    dataset: Dataset,
    limits: Limits,
    sums: Sums,
    device: torch.device | str = "cpu",
    share: Share = Share(),  # noqa: B008
) -> Sums:
    """The given sums with the errors on a data set added."""
    for sample, prediction in predictions(model, dataset, limits, device, share):
        sums.add(errors_of(prediction, sample.graph, sample.targets, properties_of(model)))
    return sums
