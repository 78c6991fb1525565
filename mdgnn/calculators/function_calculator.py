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
        From positions (N, 3) to the energy and its gradient (N, 3), in eV and eV/Angstrom, or reduced units.
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012  (ASE declares it so)

    def __init__(self, potential: Potential):
        super().__init__()  # type: ignore[no-untyped-call]
        self.potential = potential

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `results`; called by ASE. Raises a ValueError for periodic atoms."""
        atoms = self.given(atoms)
        if atoms.pbc.any():
            raise ValueError("expected atoms without periodic boundaries: a function of positions knows none")
        energy, gradient = self.potential(atoms.positions)
        self.atoms, self.results = atoms, {"energy": energy, "free_energy": energy, "forces": -gradient}
