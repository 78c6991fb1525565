"""What ASE's calculators do about results that are there already, at a tenth of the cost."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs
from numpy.typing import NDArray

from mdgnn.calculators.checks import has_volume, volume_of

STATE = ("positions", "numbers", "cell", "pbc")
STRESSES = ("stress", "stresses")
OF_ENERGY = ("energy", "free_energy", "energies", "forces", *STRESSES)


class CachingCalculator(Calculator):
    """Keeps `results` for as long as positions, numbers, cell and periodicity are the same to the last bit.

    What derives from it implements `calculate`, which sets `atoms` and `results`.
    """

    others: tuple[str, ...] = ()  # names of results beside those of an energy
    _stress_asked = _others_asked = False
    _state: tuple[NDArray[Any], ...] | None = None  # of the atoms that the results belong to

    @property
    def units(self) -> str:
        """Those that it works in: "metal" (eV, Angstrom), or "lj" (reduced Lennard-Jones units)."""
        return "metal"

    @property
    def atoms(self) -> Atoms | None:
        """Those that the results belong to: numbers, positions, cell and periodicity."""
        if self._state is None:
            return None
        positions, numbers, cell, pbc = self._state
        return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)

    @atoms.setter
    def atoms(self, atoms: Atoms | None) -> None:
        self._state = None if atoms is None else tuple(x.copy() for x in state_of(atoms))

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What differs from the atoms that the results belong to; anything else about atoms changes no result."""
        if self._state is None:
            return list(all_changes)
        both = zip(STATE, self._state, state_of(atoms), strict=True)
        return [name for name, before, now in both if not same(before, now)]

    def wants_stress(self, atoms: Atoms, properties: Any) -> bool:
        """Whether stress and stresses are to be among the results: once one of them has been asked for, from then on,
        where the cell has a volume.

        Raises
        ------
        PropertyNotImplementedError
            Where it is asked for and the cell has none.
        """
        if not set(STRESSES).isdisjoint(properties):
            self._stress_asked = volume_of(atoms) > 0
        return self._stress_asked and has_volume(atoms)

    def wants_others(self, properties: Any) -> bool:
        """Whether other properties are to be among the results: once one is asked for, from then on."""
        self._others_asked |= not set(self.others).isdisjoint(properties)
        return self._others_asked

    def check_asked(self, properties: Iterable[str]) -> None:
        """Raise a PropertyNotImplementedError for the first of these that is never among the results."""
        for name in properties:
            if name not in self.implemented_properties:
                why = ": the model has learnt no energies" if name in OF_ENERGY else ""
                raise PropertyNotImplementedError(f"expected one of {self.implemented_properties}, got {name!r}{why}")

    def export_properties(self) -> Properties:
        """Those that ASE knows."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def given(self, atoms: Atoms | None) -> Atoms:
        """These, or those that the results belong to."""
        atoms = self.atoms if atoms is None else atoms
        if atoms is None:
            raise ValueError("expected atoms, got none, and none have been computed before")
        return atoms

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """As ASE's, at a tenth of its cost: a result for these atoms, computed unless it is there already."""
        self.check_asked([name])
        if atoms is None:
            atoms = self.given(None)
        elif self._state is None or not all(map(same, self._state, state_of(atoms))):
            self.reset()  # type: ignore[no-untyped-call]
        if name not in self.results:
            if not allow_calculation:
                return None
            self.calculate(atoms, [name])  # type: ignore[no-untyped-call]
        result = self.results[name]
        return result.copy() if isinstance(result, np.ndarray) else result


def state_of(atoms: Atoms) -> tuple[NDArray[Any], ...]:
    """What results depend on, in the order of `STATE`."""
    return atoms.arrays["positions"], atoms.arrays["numbers"], atoms.cell.array, atoms.pbc


def same(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and bool((a == b).all())
