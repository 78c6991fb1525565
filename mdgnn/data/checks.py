"""Frames that should not be trained on: what is wrong with one, and what is suspicious about the units of a file.

Suspicion is a matter of thresholds, which are the constants below. They are wide, so that they hardly ever meet data in
eV and Angstrom, and so they find much, not all: energies relative to atoms and small forces look like eV in any unit.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from mdgnn.data.labels import Keys, LabelError, Labels, names_in
from mdgnn.neighbors import primitive_neighbor_list

COINCIDENT = 1e-3  # closer atoms are at one place: Angstrom, or sigma
UNITS = ("metal", "lj", "any")  # only of "metal" is known what sizes numbers have

# Root mean square of the forces' components, median of a file, eV/Angstrom. Dynamics at 300 K has 0.1 (soft metals) to
# 1.1 (organic molecules), at 3000 K three times that; in kcal/mol/Angstrom 1.1 is 25, in kJ/mol/Angstrom 106.
TYPICAL_FORCE = 10.0
# Root mean square of the stress' components, median of a file, eV/Angstrom^3: 160 GPa, which hardly anybody computes.
# In GPa or kbar it is that of any crystal under load.
TYPICAL_STRESS = 1.0
NEAR = 0.5  # Angstrom: H2 has 0.74. In nm, all bonds are shorter.
LARGEST_FORCE = 1000.0  # eV/Angstrom, of one atom: nuclei that nearly touch, where electronic structure means little
# All electrons of the atoms are bound by about the energy of `binding_energy`; bonds add less than a hundredth.
HARTREE = 27.211386  # eV
# Of the energy in the file over the binding energy in Hartree: that of all electrons. Valence energies in eV of some
# elements (chlorine) come near by chance, so that it takes more than half of a file's frames to suspect those.
NEARLY_HARTREE = (0.93, 1.10)
MOST_BOUND = 1.25 * HARTREE  # no energy in eV is further down, relativity included
HIGHEST_ENERGY = 100.0  # eV per atom, above separated atoms
# Of two sizes of one composition, the larger at least half as large again, with equal energies.
SIZES_APART, ENERGIES_EQUAL, FRAMES_OF_SIZE = 1.5, (0.8, 1.25), 3

# Labels of one structure that was computed twice: energies per atom and components of forces that differ by more
# contradict each other. Grids, cutoffs and loose convergence move them by less. Of other units nothing is known, and
# what counts is the share of the larger one.
SAME_ENERGY, SAME_FORCE = 1e-3, 0.05
SAME_SHARE = 1e-3


def check_structure(atoms: Atoms) -> None:
    """Raise a LabelError for no atoms, numbers that are not finite, a singular cell, or two atoms at one place."""
    if len(atoms) == 0:
        raise LabelError("there are no atoms")
    finite = np.isfinite(atoms.positions).all(axis=1)
    if not finite.all():
        atom = int(np.flatnonzero(~finite)[0])
        raise LabelError(f"the position of atom {atom} is not finite")
    if not np.isfinite(atoms.cell.array).all():
        raise LabelError("the cell is not finite")
    try:
        i, j, d = primitive_neighbor_list("ijd", atoms.pbc, atoms.cell.array, atoms.positions, COINCIDENT)
    except ValueError as error:  # of the cell
        raise LabelError(str(error)) from None
    if len(i):
        raise LabelError(f"atoms {i[0]} and {j[0]} are at one place ({d[0]:.2g} apart)")


def image_distance(atoms: Atoms) -> float:
    """Of an atom and its image by the shortest vector of the cell: the search within a longer one meets a flood of
    them in a tiny cell, as of a file in the wrong unit. Infinite without periodic boundaries."""
    lengths = np.linalg.norm(atoms.cell.array[atoms.pbc], axis=1)
    return float(lengths.min(initial=np.inf))


def check_labels(atoms: Atoms, labels: Labels, keys: Keys, need: Sequence[str]) -> None:
    """Raise a LabelError for a label that is needed and missing, or one that is not finite."""
    own = {"energy": keys.energy, "forces": keys.forces, "stress": keys.stress}
    there = {"energy": labels.energy, "forces": labels.forces, "stress": labels.stress, **labels.extra}
    for p in keys.properties:  # where NaN says that there is none
        del there[p.name]
    for name in need:
        if there.get(name) is None and not (name == "forces" and len(atoms) == 1):  # nothing acts on a lone atom
            raise LabelError(f"no {own.get(name, name)} (there are: {', '.join(names_in(atoms)) or 'no labels'})")
    for name, label in there.items():
        if label is not None and not np.isfinite(label).all():
            rows = np.flatnonzero(~np.isfinite(label).reshape(len(label), -1).all(axis=1))
            where = f" of atom {rows[0]}" if len(label) == len(atoms) > 1 else ""
            raise LabelError(f"the {own.get(name, name)}{where} {'are' if name == 'forces' else 'is'} not finite")


@np.errstate(over="ignore")
def check_agreement(n_atoms: int, labels: Labels, before: Labels, units: str, name: str) -> None:
    """Raise a LabelError where labels contradict those that a frame of this name has for the same structure."""
    unit, of_force = {"metal": (" eV", " eV/Angstrom"), "lj": (" epsilon", " epsilon/sigma")}.get(units, ("", ""))
    if labels.energy is not None and before.energy is not None:
        here, there = float(labels.energy[0]), float(before.energy[0])
        noise = SAME_SHARE * max(abs(here), abs(there)) if units == "any" else SAME_ENERGY * n_atoms
        if abs(here - there) > noise:
            raise LabelError(
                f"the same structure as {name}, but the energy is {here:.10g}{unit} here and {there:.10g}{unit} there, "
                f"{abs(here - there):.4g} apart"
            )
    if labels.forces is not None and before.forces is not None:
        difference = np.abs(labels.forces - before.forces)
        largest = float(np.maximum(np.abs(labels.forces), np.abs(before.forces)).max())
        if float(difference.max()) > (SAME_SHARE * largest if units == "any" else SAME_FORCE):
            atom, apart = int(difference.max(axis=1).argmax()), f"{difference.max():.4g}{of_force}"
            raise LabelError(f"the same structure as {name}, but the forces on atom {atom} are {apart} apart")


def binding_energy(numbers: NDArray[np.int64]) -> float:
    """The sum of atoms' total energies without their sign, in Hartree.

    0.768745 Z^(7/3) - Z^2 / 2 + 0.269900 Z^(5/3) (Schwinger, Phys. Rev. A 24, 2353, 1981): 37.6 for carbon, in truth
    37.8.
    """
    z = np.asarray(numbers, dtype=np.float64)
    return float((0.768745 * z ** (7 / 3) - 0.5 * z**2 + 0.2699 * z ** (5 / 3)).sum())


@np.errstate(over="ignore")
def check_magnitudes(atoms: Atoms, labels: Labels) -> None:
    """Raise a LabelError for energy or forces that are suspicious in eV and Angstrom, whatever other frames hold."""
    if labels.energy is not None:
        energy, bound = float(labels.energy[0]), binding_energy(atoms.numbers)
        if -energy > MOST_BOUND * bound:
            raise LabelError(
                f"suspicious: the energy {energy:.6g} eV is below that of all electrons, {-HARTREE * bound:.6g} eV; "
                "kcal/mol or kJ/mol?"
            )
        if energy > HIGHEST_ENERGY * len(atoms):
            raise LabelError(f"suspicious: the energy {energy / len(atoms):.6g} eV per atom is far above free atoms")
    if labels.forces is not None:
        size = np.sqrt(np.square(labels.forces).sum(axis=1))
        if size.max() > LARGEST_FORCE:
            raise LabelError(f"suspicious: a force of {size.max():.6g} eV/Angstrom on atom {int(size.argmax())}")


class _Seen(NamedTuple):
    """What the verdict on a file needs of a frame."""

    number: int
    formula: str
    n_atoms: int
    energy: float
    force: float
    stress: float
    near: bool
    bound: float  # `binding_energy`


class Magnitudes:
    """What is suspicious about a file as a whole; `observe` its frames, then ask for the `verdicts`."""

    def __init__(self) -> None:
        self._seen: list[_Seen] = []

    @np.errstate(over="ignore")
    def observe(self, number: int, atoms: Atoms, labels: Labels) -> None:
        formula = sys.intern(atoms.symbols.formula.reduce()[0].format("hill"))  # one string for many frames
        energy = np.nan if labels.energy is None else float(labels.energy[0])
        force = np.nan if labels.forces is None else float(np.sqrt(np.square(labels.forces).mean()))
        stress = np.nan if labels.stress is None else float(np.sqrt(np.square(labels.stress).mean()))
        near = image_distance(atoms) <= NEAR or bool(
            len(primitive_neighbor_list("i", atoms.pbc, atoms.cell.array, atoms.positions, NEAR))
        )
        bound = binding_energy(atoms.numbers)
        self._seen.append(_Seen(number, formula, len(atoms), energy, force, stress, near, bound))

    def verdicts(self) -> dict[int, str]:
        """Reasons against frames, by number."""
        suspicious = {**self._flat_energies(), **self._hartree()}
        stresses = {seen.number: seen.stress for seen in self._seen}
        suspicious |= _large(stresses, TYPICAL_STRESS, "stresses", "eV/Angstrom^3; GPa or kbar?")
        forces = {seen.number: seen.force for seen in self._seen}
        suspicious |= _large(forces, TYPICAL_FORCE, "forces", "eV/Angstrom; kcal/mol or kJ/mol?")
        suspicious |= _placeholders({seen.number: (seen.energy, seen.force) for seen in self._seen}, "energy")
        suspicious |= _placeholders({seen.number: (seen.stress, seen.force) for seen in self._seen}, "stress")
        several = [seen for seen in self._seen if seen.n_atoms > 1]
        near = [seen.number for seen in several if seen.near]
        if 2 * len(near) > len(several):
            reason = f"suspicious: in most frames of this file atoms are closer than {NEAR} Angstrom; nm or fractions?"
            suspicious |= dict.fromkeys(near, reason)
        return suspicious

    def _hartree(self) -> dict[int, str]:
        """Frames with the energy of all electrons in Hartree, if most are so."""
        energies = [seen for seen in self._seen if np.isfinite(seen.energy)]
        low, high = NEARLY_HARTREE
        near = [seen for seen in energies if low * seen.bound <= -seen.energy <= high * seen.bound]
        if 2 * len(near) <= len(energies):
            return {}
        return {seen.number: f"suspicious: the energy {seen.energy:.6g} looks like Hartree, not eV" for seen in near}

    def _flat_energies(self) -> dict[int, str]:
        """Frames of compositions whose energy does not grow with the number of atoms."""
        groups: dict[str, dict[int, list[_Seen]]] = {}
        for seen in self._seen:
            if np.isfinite(seen.energy):
                groups.setdefault(seen.formula, {}).setdefault(seen.n_atoms, []).append(seen)
        suspicious: dict[int, str] = {}
        for formula, sizes in groups.items():
            known = sorted(n for n, frames in sizes.items() if len(frames) >= FRAMES_OF_SIZE)
            if len(known) < 2 or known[-1] < SIZES_APART * known[0]:
                continue
            small, large = (np.array([seen.energy for seen in sizes[n]]) for n in (known[0], known[-1]))
            middle = float(np.median(small)), float(np.median(large))
            certain = all(np.ptp(e) < 0.1 * abs(m) for e, m in zip((small, large), middle, strict=True))
            if certain and ENERGIES_EQUAL[0] < middle[1] / middle[0] < ENERGIES_EQUAL[1]:
                reason = (
                    f"suspicious: {formula} has the energy {middle[0]:.4g} with {known[0]} atoms and {middle[1]:.4g} "
                    f"with {known[-1]}; energies per atom or per formula unit?"
                )
                suspicious |= {seen.number: reason for frames in sizes.values() for seen in frames}
        return suspicious


def _placeholders(sizes: dict[int, tuple[float, float]], name: str) -> dict[int, str]:
    """The reason against frames with a label that is exactly 0 in all of them, although forces are not."""
    known = {number: of for number, of in sizes.items() if np.isfinite(of[0])}
    if len(known) < 2 or any(size != 0 for size, _ in known.values()) or not any(f > 0 for _, f in known.values()):
        return {}
    reason = f"suspicious: the {name} is 0 in every frame of this file, which has forces: does it stand for none?"
    return dict.fromkeys(known, reason + f' (with "" as the key of the {name}, it is not read)')


def _large(sizes: dict[int, float], typical: float, name: str, unit: str) -> dict[int, str]:
    """The reason against frames with a size, if the median of these is beyond what is typical."""
    known = {number: size for number, size in sizes.items() if np.isfinite(size)}
    median = float(np.median(list(known.values()))) if known else 0.0
    if median <= typical:
        return {}
    reason = (
        f"suspicious: the {name} of this file (root mean square {median:.4g}, median of frames) are large for {unit}"
    )
    return dict.fromkeys(known, reason)
