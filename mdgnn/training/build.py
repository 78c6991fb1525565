"""A model for a configuration: a new one that knows its reference energies and its scale, or one from a file."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdgnn.data import Dataset, Keys, read_frames
from mdgnn.locate import locate
from mdgnn.model_file import load, read_header
from mdgnn.potential import Potential
from mdgnn.training.config import Config, ModelSection, model_class
from mdgnn.training.first import calibrate
from mdgnn.training.folder import fingerprint
from mdgnn.training.properties import summarize_properties
from mdgnn.training.references import Array, Summary, given, isolated, least_squares, robust_weights, summarize
from mdgnn.training.sections import ConfigError
from mdgnn.training.suspects import without

REFERENCES = ("least_squares", "none", "isolated")  # other ones are files
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def cutoff_of(section: ModelSection, start: str | Path | None) -> float:
    """How far edges reach (Angstrom): as far as those of the model file `start`, if there is one."""
    if start is not None:
        return float(load(start).cutoff)
    assert section.architecture is not None
    try:
        return max(model_class(section.architecture).Config(**section.options).cutoffs)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[model] {error}") from None


def units_of(config: Config, start: str | Path | None) -> str:
    """What sizes numbers in the data have: those of the model's units, or any."""
    if config.data.units == "any":
        return "any"
    return str(config.model.options.get("units", "metal") if start is None else read_header(start)["units"])


def build(
    config: Config, dataset: Dataset, keys: Keys, suspicious: Sequence[int] = ()
) -> tuple[Potential, dict[str, Any]]:
    """The untrained model, and what was found out about the data on the way.

    Parameters
    ----------
    config : Config
    dataset : Dataset
        The training set.
    keys : Keys
        Of a file of isolated atoms.
    suspicious : sequence of int
        Numbers of structures that references and scale go without.

    Raises
    ------
    ConfigError, ValueError
        If options or elements do not fit; the message names them.
    """
    section = config.model
    if section.start is not None:
        model = load(section.start)
        model = model.to(DTYPES[section.dtype] if section.dtype else model.dtype)
        _extensive(model)
        _give_heads(model, config, dataset)
        known = list(model.elements.numbers)
        missing = [z for z in dataset.elements if model.elements.known != "any" and z not in known]
        if missing:
            raise ConfigError(f"[model] start = {section.start!r} knows {known}, and the data have {missing} too")
        least = min(model.min_distance, _shortest(dataset)) or _shortest(dataset)
        model.config = replace(model.config, min_distance=least)
        before = read_header(section.start)["training"]  # a record of its own, perhaps with one before that
        files = fingerprint([str(locate(section.start))])
        return model, {"start": section.start, "files": files, "training_of_start": before}
    assert section.architecture is not None
    options: dict[str, Any] = {"elements": list(dataset.elements), **section.options}
    elements = options["elements"] if isinstance(options["elements"], list) else list(dataset.elements)
    missing = [z for z in dataset.elements if z not in elements]
    if missing:
        raise ConfigError(f"[model] elements = {elements}, and the training set has {missing} too")
    units = units_of(config, None)
    summary = summarize((dataset[k] for k in range(len(dataset))), elements)
    summary = without(summary, suspicious)
    one_kind = not isinstance(options["elements"], list)
    if one_kind:  # "any": all atoms are alike
        summary = summary._replace(counts=summary.counts.sum(1, keepdims=True))
    shift, scale = np.zeros(summary.counts.shape[1]), 1.0
    if config.learns_energy():
        shift = _references(section, summary, keys, units)
        scale = _scale(section, summary, shift)
    options |= {"shift": [float(e) for e in shift], "scale": [scale], "min_distance": _shortest(dataset)}
    options["scale"] *= len(shift)
    published = options.get("mean_neighbours") == 1
    kind = model_class(section.architecture)
    takes_mean = "mean_neighbours" in kind.Config.names() and options.get("aggregation", "sum") == "sum"
    if takes_mean and "mean_neighbours" not in options:
        options["mean_neighbours"] = max(1.0, summary.mean_neighbours)
    try:
        model = kind(kind.Config.make(kind.__name__, (), options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[model] {error}") from None
    _extensive(model)
    _give_heads(model, config, dataset)
    model = model.to(DTYPES[section.dtype or "float32"])
    if not published and config.learns_energy():
        calibrate(model, dataset, config)
    about_data = {
        "rms_force": summary.rms_force,
        "mean_neighbours": summary.mean_neighbours,
        "references": shift.tolist(),
    }
    if isinstance(section.references, str) and section.references not in REFERENCES:
        about_data["files"] = fingerprint([section.references])
    return model, about_data


def _extensive(model: Potential) -> None:
    if model.readout != "sum":
        raise ConfigError(
            f"[model] readout = {model.readout!r}: an energy is a sum over atoms; "
            "a mean is learnt as a [[property]] with kind = 'intensive'"
        )


def _give_heads(model: Potential, config: Config, dataset: Dataset) -> None:
    """Readouts of the properties; what a first model knows of those of the same name and kind stays.

    Its energies do if they are learnt too, or if nothing changes that they depend on.
    """
    start, energy = config.model.start, config.learns_energy()
    old = [] if model.heads is None else model.heads.properties
    if model.heads is not None and not model.heads.energy:
        if energy:
            raise ConfigError(f"[model] start = {start!r} has learnt no energies: set loss.energy and loss.forces to 0")
    elif start is not None:
        own = [name for name, p in model.named_parameters() if p.requires_grad and not name.startswith("heads.")]
        energy |= all(any(fnmatchcase(name, pattern) for pattern in config.frozen(model)) for name in own)
    if not config.property:
        model.heads = None
        return
    known_elements = model.config.elements
    one_kind = not isinstance(known_elements, tuple)
    elements = dataset.elements if one_kind else [*model.elements.numbers]
    summaries = summarize_properties(dataset, config.property, elements, one_kind)
    known = {(p.name, p.kind): p for p in old}
    try:
        model.attach_heads([known.get((p.name, p.kind), p) for p in summaries], energy)
    except ValueError as error:
        raise ConfigError(f"[model] {error}") from None


def _shortest(dataset: Dataset) -> float:
    return dataset.shortest if math.isfinite(dataset.shortest) else 0.0  # no two atoms see each other


def _references(section: ModelSection, summary: Summary, keys: Keys, units: str) -> Array:
    where = section.references
    if isinstance(where, dict):
        return given(where, summary.elements)
    if where == "least_squares":
        return least_squares(summary)
    if where == "none":
        return least_squares(summary) * 0
    if where == "isolated":
        return isolated(summary, "the training set")
    if not Path(where).exists() and (near := difflib.get_close_matches(where, REFERENCES, 1, 0.8)):
        raise ConfigError(f"[model] references = {where!r}: did you mean {near[0]!r}?")
    atoms = Dataset(read_frames([where], keys, need=("energy",), units=units), 1.0, keys=keys)
    return isolated(summarize((atoms[k] for k in range(len(atoms))), summary.elements), where)


def _scale(section: ModelSection, summary: Summary, shift: Array) -> float:
    """The RMS force component, or where there are no forces, the RMS of what the references leave, per atom."""
    if not isinstance(section.scale, str):
        return float(section.scale)
    if summary.rms_force > 0:
        return summary.rms_force
    rest = (summary.energies - summary.counts @ shift) / summary.counts.sum(1)
    known = np.isfinite(rest) & (summary.weights > 0)
    weights = robust_weights(summary)
    size = math.sqrt(float(np.average(rest[known] ** 2, weights=weights[known]))) if known.any() else 0.0
    return size if size > 1e-12 else 1.0


def freeze(model: Potential, patterns: Sequence[str]) -> None:
    """Let the parameters whose names match stay as they are.

    Raises
    ------
    ConfigError
        For a pattern that matches nothing, or if nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"[model] freeze: no parameter matches {pattern!r}; there are {', '.join(names)}")
    for name, parameter in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("[model] freeze: nothing is left to train")
