"""What labelled frames are like: counts, elements, energies, forces and shortest distances."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mdgnn.data.checks import image_distance
from mdgnn.data.labels import DEFAULT, Keys, labels_of
from mdgnn.neighbors import primitive_neighbor_list


@dataclass(frozen=True)
class Summary:
    """Of frames of one kind or of all, in the units of the frames.

    Attributes
    ----------
    config_type : str or None
        The ``info["config_type"]`` of the frames, "" where they have none; None of all frames.
    n_frames : int
    n_atoms : (int, int)
        Of the smallest frame and of the largest.
    elements : tuple of str
        By atomic number.
    energies : (n,) float64
        Per atom, of each frame that has one.
    force_rms, largest_force : float
        Root mean square of the components, and largest norm of an atom; NaN where no frame has forces.
    shortest_distance : float
        Of two atoms, or an atom and its image; infinite where every frame is a single atom.
    """

    config_type: str | None
    n_frames: int
    n_atoms: tuple[int, int]
    elements: tuple[str, ...]
    energies: NDArray[np.float64]
    force_rms: float
    largest_force: float
    shortest_distance: float


def summarize(frames: Iterable[Atoms], keys: Keys = DEFAULT) -> list[Summary]:
    """A summary for each ``info["config_type"]``, sorted, and, where there are several, a last one of all frames.

    Parameters
    ----------
    frames : iterable of ase.Atoms
        As `read_frames` gives them.
    keys : Keys
        Names of the labels.

    Raises
    ------
    ValueError
        For labels that cannot be.
    """
    groups: dict[str, list[_Figures]] = {}
    for atoms in frames:
        groups.setdefault(str(atoms.info.get("config_type", "")), []).append(_figures(atoms, keys))
    summaries = [_summary(name, group) for name, group in sorted(groups.items())]
    if len(groups) > 1:
        summaries.append(_summary(None, list(itertools.chain(*groups.values()))))
    return summaries


class _Figures(NamedTuple):
    """Of one frame; `squares` are those of the components of its forces."""

    numbers: set[int]
    n_atoms: int
    energy: float
    squares: NDArray[np.float64]
    largest: float
    shortest: float


def _figures(atoms: Atoms, keys: Keys) -> _Figures:
    labels = labels_of(atoms, keys)
    energy = np.nan if labels.energy is None else float(labels.energy[0]) / len(atoms)
    forces = np.zeros((0, 3)) if labels.forces is None else labels.forces
    largest = float(np.sqrt(np.square(forces).sum(axis=1)).max(initial=0.0))
    numbers, squares = set(atoms.numbers.tolist()), np.square(forces).ravel()
    return _Figures(numbers, len(atoms), energy, squares, largest, _shortest(atoms))


def _shortest(atoms: Atoms) -> float:
    reach = min(2.0, 1.001 * image_distance(atoms))
    whole = float(np.ptp(atoms.positions, axis=0).sum() + np.abs(atoms.cell.array).sum()) + 1
    while True:
        distances = primitive_neighbor_list("d", atoms.pbc, atoms.cell.array, atoms.positions, reach)
        if len(distances) or reach > whole:
            return float(distances.min(initial=np.inf))
        reach *= 2


def _summary(name: str | None, group: Sequence[_Figures]) -> Summary:
    energies = np.array([one.energy for one in group])
    squares = np.concatenate([one.squares for one in group])
    sizes = [one.n_atoms for one in group]
    has_forces = len(squares) > 0
    return Summary(
        config_type=name,
        n_frames=len(group),
        n_atoms=(min(sizes), max(sizes)),
        elements=tuple(chemical_symbols[z] for z in sorted(set().union(*(one.numbers for one in group)))),
        energies=energies[np.isfinite(energies)],
        force_rms=float(np.sqrt(squares.mean())) if has_forces else np.nan,
        largest_force=max(one.largest for one in group) if has_forces else np.nan,
        shortest_distance=min(one.shortest for one in group),
    )
