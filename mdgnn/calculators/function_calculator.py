"""An ASE calculator of a function of the positions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes
from numpy.typing import NDArray

from mdgnn.calculators.caching_calculator import CachingCalculator

Potential = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]


class FunctionCalculator(CachingCalculator):
    """Energy and forces of a potential that is written as a function; the atoms have no boundaries.

    Parameters
    ----------
    potential : callable
        From positions (N, 3) to the energy and its gradient (N, 3).
    units : "metal" or "lj"
        What it takes and gives: Angstrom, eV and eV/Angstrom, or reduced units, in which dynamics then has its
        temperature and time step, with masses of 1.

    Raises
    ------
    ValueError
        For other units.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE declares it so)

    def __init__(self, potential: Potential, units: str = "metal"):
        super().__init__(units=units)  # type: ignore[no-untyped-call]
        self.potential = potential

    @property
    def units(self) -> str:
        """ "metal" or "lj"."""
        return str(self.parameters["units"])

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change `units`, the only parameter; returns it where it is not what it was.

        Raises
        ------
        TypeError, ValueError
            For a name that is no parameter; for other units.
        """
        for name, value in changes.items():
            if name != "units":
                raise TypeError(f"FunctionCalculator has no parameter {name!r}; there is units")
            if value not in ("metal", "lj"):
                raise ValueError(f"expected units 'metal' or 'lj', got {value!r}")
        changed: dict[str, Any] = super().set(**changes)  # type: ignore[no-untyped-call]
        return changed

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `results`; called by ASE. Raises a ValueError for periodic atoms."""
        atoms = self.given(atoms)
        if atoms.pbc.any():
            raise ValueError("expected atoms without periodic boundaries: a function of positions knows none")
        energy, gradient = self.potential(atoms.positions)
        self.atoms, self.results = atoms, {"energy": energy, "free_energy": energy, "forces": -gradient}
