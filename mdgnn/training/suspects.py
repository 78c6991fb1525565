"""Structures whose labels do not go with those of the others: an energy that is far off, a force from nowhere.

`mdgnn.data.checks` judges single structures, this one among others. It is meant to be silent about all that can be
right: lone atoms, dimers near and far, compressed crystals, fragments, other phases. Such energies differ by a bond's
per atom, or forces or distances show why.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mdgnn.training.references import Summary

Array = NDArray[np.float64]
FEWEST = 6  # structures that tell what is usual
SIGMAS = 10.0  # robust standard deviations
NEARER = 0.9  # of the usual least distance: what is nearer may have any energy, and forces that vanish by symmetry
# Energies per atom beyond what forces explain, those of one unit of length. No solid is bound by more than 9 eV per
# atom. Where structures have one composition and nearly as many neighbours, they are of one kind.
FAR, FAR_OF_ONE_KIND, AS_MANY = 10.0, 1.0, 1.5
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


def without(summary: Summary, found: list[Suspect]) -> Summary:
    """The summary where these have no weight."""
    weights = summary.weights.copy()
    weights[[s.number for s in found]] = 0.0
    return summary._replace(weights=weights)


def _of_energies(summary: Summary, known: NDArray[np.bool_], units: str) -> dict[int, str]:
    numbers = np.flatnonzero(known)
    if len(numbers) < FEWEST:
        return {}
    n_atoms = summary.counts[known].sum(1)
    rest = rest_of(summary.counts[known] / n_atoms[:, None], summary.energies[known] / n_atoms)
    shortest, neighbours = summary.shortest[known], summary.neighbours[known]
    with np.errstate(invalid="ignore"):
        force = np.sqrt(3 * summary.squares[known] / summary.n_components[known])
    force = np.nan_to_num(force)
    near = shortest < NEARER * float(np.median(shortest))
    off = rest
    far = _beyond(rest, force, FAR)
    for kind in _kinds(summary.counts[known]):
        usual = float(np.median(neighbours[kind]))
        alike = kind[(neighbours[kind] <= AS_MANY * usual) & (neighbours[kind] >= usual / AS_MANY)]
        if len(alike) >= FEWEST:
            of_kind = rest[alike] - np.median(rest[alike])
            strange = _beyond(of_kind, force[alike], FAR_OF_ONE_KIND)
            far[alike] |= strange
            off[alike[strange]] = of_kind[strange]
    far &= ~((off > 0) & near)
    unit = ENERGY_UNITS[units][0]
    return {
        int(numbers[k]): (
            f"suspicious: the energy is {abs(off[k]):.4g} {unit} per atom ({abs(off[k]) * n_atoms[k]:.4g} in all) "
            f"{'above' if off[k] > 0 else 'below'} what the other structures let expect, and forces and distances "
            "do not show why"
        )
        for k in np.flatnonzero(far)
    }


def _beyond(rest: Array, force: Array, floor: float) -> NDArray[np.bool_]:
    sigma = 1.4826 * float(np.median(np.abs(rest)))
    return np.asarray(np.abs(rest) > np.maximum(SIGMAS * sigma, floor + force))


def rest_of(shares: Array, energies: Array) -> Array:
    """What compositions (S, elements) leave of energies per atom (S,), at least in sum, which few outliers do not move.

    By least squares with weights 1 / size, again and again (Schlossmacher, J. Am. Stat. Assoc. 68, 857, 1973).
    """
    weights = np.ones(len(energies))
    for _ in range(50):
        root = np.sqrt(weights)
        fit = np.linalg.lstsq(shares * root[:, None], energies * root, rcond=None)[0]
        rest = energies - shares @ fit
        size = np.abs(rest)
        weights = 1 / np.maximum(size, 1e-3 * float(np.median(size)) + 1e-12 * float(np.abs(energies).max()) + 1e-300)
    return np.asarray(rest - np.median(rest))


def _kinds(counts: Array) -> list[NDArray[np.int64]]:
    """Numbers of the structures of each composition, whatever their size."""
    whole = counts.astype(np.int64)
    reduced = whole // np.gcd.reduce(whole, axis=1, keepdims=True)
    _, of = np.unique(reduced, axis=0, return_inverse=True)
    return [np.flatnonzero(of.ravel() == k) for k in range(int(of.max()) + 1)]


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
