"""Structures whose labels do not go with those of the others: an energy that is far off, a force from nowhere.

`mdgnn.data.checks` judges single structures, this one among others. It is meant to be silent about all that can be
right: lone atoms, dimers near and far, compressed crystals, fragments, other phases. Such energies differ by some bonds
in all, or by little per atom, or forces, neighbours or distances show why.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdgnn.training.references import Array, Summary, rank_of, rest_of, spread_of

FEWEST = 6  # structures that tell what is usual, for each energy that they are to tell
SIGMAS = 10.0  # robust standard deviations
NEARER = 0.9  # of the usual least distance: what is nearer may have any energy, and forces that vanish by symmetry
# Energies that need no explanation, in all and per atom: those of some bonds, and of other phases.
IN_ALL, PER_ATOM = 10.0, 0.1
BOUND = 10.0  # per atom: no solid is bound by more than 9 eV
ALONG = 0.3  # units of length that forces other than the usual ones have worked along
ALIKE = 1.5  # times as many neighbours, or less
FORCES = {"metal": 100.0, "lj": 1000.0}  # at usual distances
USUAL = 100.0  # times the usual force, at least, is one from nowhere
ENERGY_UNITS = {"metal": ("eV", "eV/Angstrom"), "lj": ("epsilon", "epsilon/sigma")}


class Suspect(NamedTuple):
    """A structure by its number, and why."""

    number: int
    reason: str


def suspects(summary: Summary, units: str) -> list[Suspect]:
    """The structures whose energy or forces cannot be right if those of the others are.

    Parameters
    ----------
    summary : Summary
    units : "metal", "lj" or "any"
        Of "any" nothing is known.
    """
    known = np.isfinite(summary.energies) & (summary.weights > 0) & (summary.counts.sum(1) > 1)
    if units == "any":
        return []
    energies = _of_energies(summary, known, units)
    forces = _of_forces(summary, units)
    return [Suspect(k, reason) for k, reason in sorted({**forces, **energies}.items())]


def without(summary: Summary, numbers: Sequence[int]) -> Summary:
    """The summary where these have no weight."""
    weights = summary.weights.copy()
    weights[list(numbers)] = 0.0
    return summary._replace(weights=weights)


def _of_energies(summary: Summary, known: NDArray[np.bool_], units: str) -> dict[int, str]:
    numbers = np.flatnonzero(known)
    off = np.zeros(len(numbers))
    for group in _groups(summary.counts[known], summary.neighbours[known]):
        far, rest = _far_of(summary, numbers[group])
        off[group[far]] = rest[far]
    n_atoms, unit = summary.counts[known].sum(1), ENERGY_UNITS[units][0]
    return {
        int(numbers[k]): (
            f"suspicious: the energy is {abs(off[k]):.4g} {unit} per atom ({abs(off[k]) * n_atoms[k]:.4g} in all) "
            f"{'above' if off[k] > 0 else 'below'} what the other structures let expect, and forces and distances "
            "do not show why"
        )
        for k in np.flatnonzero(off)
    }


def _groups(counts: Array, neighbours: Array) -> list[NDArray[np.int64]]:
    """Numbers of structures to compare: all, those with as many neighbours, and those of these of one composition,
    whatever their size."""
    whole = counts.astype(np.int64)
    reduced = whole // np.maximum(np.gcd.reduce(whole, axis=1, keepdims=True), 1)
    density = np.rint(np.log1p(neighbours) / np.log(ALIKE)).astype(np.int64)[:, None]
    groups = [np.arange(len(counts))]
    for keys in (density, np.hstack([density, reduced])):
        _, of = np.unique(keys, axis=0, return_inverse=True)
        groups += np.split(np.argsort(of.ravel(), kind="stable"), np.cumsum(np.bincount(of.ravel()))[:-1])
    return groups


def _usual(values: Array) -> Array:
    """How far from their median, in robust standard deviations, and not further than a few."""
    far = values - np.median(values)
    spread = spread_of(far, 1)
    return np.clip(far / spread, -3, 3) if spread else far * 0


def _far_of(summary: Summary, numbers: NDArray[np.int64]) -> tuple[NDArray[np.bool_], Array]:
    """Which of these structures have energies that are far off those of the others, and by how much per atom.

    Where there are structures enough, what goes with their forces and densities is taken off. What is left may be
    explained: by forces other than the usual ones, along a part of one unit of length; by more or fewer neighbours, up
    to all that binds; and above by short distances. Nothing is said where a structure has an element that few others
    have.
    """
    nothing = np.zeros(len(numbers), dtype=bool), np.zeros(len(numbers))
    if len(numbers) < FEWEST or len(numbers) < FEWEST * (n_free := rank_of(summary.counts[numbers])):
        return nothing
    counts, neighbours, shortest = summary.counts[numbers], summary.neighbours[numbers], summary.shortest[numbers]
    n_atoms = counts.sum(1)
    with np.errstate(invalid="ignore"):
        force = np.nan_to_num(np.sqrt(3 * summary.squares[numbers] / summary.n_components[numbers]))
    table = counts / n_atoms[:, None]
    if len(numbers) >= FEWEST * (n_free + 2):
        table, n_free = np.column_stack([table, _usual(force**2), _usual(neighbours)]), n_free + 2
    rest = rest_of(table, summary.energies[numbers] / n_atoms)
    change = np.abs(np.log1p(neighbours) - np.log1p(np.median(neighbours)))
    explained = ALONG * np.abs(force - np.median(force)) + BOUND * np.minimum(change, 1)
    allowed = np.maximum(SIGMAS * spread_of(rest, n_free), IN_ALL / n_atoms + PER_ATOM + explained)
    near = shortest < NEARER * float(np.median(shortest))
    rare = (counts > 0).sum(0) < FEWEST
    return (np.abs(rest) > allowed) & ~((rest > 0) & near) & ~(counts[:, rare] > 0).any(1), rest


def _of_forces(summary: Summary, units: str) -> dict[int, str]:
    known = np.isfinite(summary.strongest) & (summary.weights > 0) & (summary.counts.sum(1) > 1)
    numbers = np.flatnonzero(known)
    if len(numbers) < FEWEST:
        return {}
    strongest, shortest = summary.strongest[known], summary.shortest[known]
    usual = float(np.median(strongest))
    strange = (strongest > max(FORCES[units], USUAL * usual)) & (shortest >= NEARER * float(np.median(shortest)))
    return {
        int(numbers[k]): f"suspicious: a force of {strongest[k]:.4g} {ENERGY_UNITS[units][1]}, where no two atoms are "
        f"nearer than in the other structures, whose largest is {usual:.3g} (median)"
        for k in np.flatnonzero(strange)
    }
