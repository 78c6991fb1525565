"""Several models at once: their mean, and how far they are apart."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_changes

from mdgnn._internal.warn_user import warn_user
from mdgnn.calculators.caching_calculator import CachingCalculator
from mdgnn.calculators.mdgnn_calculator import PARAMETERS, MDGNNCalculator

if TYPE_CHECKING:
    from mdgnn.potential import Potential


class Ensemble(CachingCalculator):
    """A committee for ASE: results are means over models, and their spread says where not to trust them.

    Beside ASE's results, `results` has ``energy_std``, the standard deviation of the energy over the models, and
    ``forces_std`` (N,), the root mean square distance of the models' forces on an atom from their mean.

    Parameters
    ----------
    models : sequence of str, Path or torch modules
        Two or more, as for `MDGNNCalculator`.
    warn_above : float, optional
        Warn when ``forces_std`` of an atom rises above this (eV/Angstrom, or epsilon/sigma for reduced units).
    options
        Of every `MDGNNCalculator`: device, dtype, skin, backend.

    Raises
    ------
    ValueError
        For fewer than two models, models in different units, or models that predict different things.
    """

    def __init__(
        self, models: Sequence[Union[str, Path, "Potential"]], *, warn_above: float | None = None, **options: Any
    ):
        super().__init__()  # type: ignore[no-untyped-call]
        if isinstance(models, (str, Path)) or len(models) < 2:
            raise ValueError(f"expected two models or more, got {models!r}")
        self.members = [MDGNNCalculator(model, **options) for model in models]
        units = [member.units for member in self.members]
        if len(set(units)) > 1:
            raise ValueError(f"expected models in the same units, got {', '.join(units)}")
        predict = [member.implemented_properties for member in self.members]
        if "energy" not in predict[0] or any(names != predict[0] for names in predict):
            raise ValueError(f"expected models that predict energies and the same beside them, got {predict}")
        self.implemented_properties, self.others = predict[0], self.members[0].others
        self.warn_above = warn_above
        self._above = False

    @property
    def units(self) -> str:
        """Those of all its models: "metal" or "lj"."""
        return self.members[0].units

    def set(self, **changes: Any) -> dict[str, Any]:
        """Change `warn_above`, and parameters of all members but their models; results are forgotten.

        Returns
        -------
        dict
            Those that are not what they were.

        Raises
        ------
        TypeError, ValueError, UnsupportedError
            As `MDGNNCalculator.set`; the members are then what they were.
        """
        known = ("warn_above", *(name for name in PARAMETERS if name != "model"))
        for name in changes:
            if name not in known:
                raise TypeError(f"Ensemble has no parameter {name!r}; there are {', '.join(known)}")
        of_members = {name: value for name, value in changes.items() if name != "warn_above"}
        changed: dict[str, Any] = {}
        members = [copy.copy(member) for member in getattr(self, "members", [])]  # ASE asks before there are any
        for member in members:
            changed |= member.set(**of_members)
        self.members = members
        if "warn_above" in changes and changes["warn_above"] != self.warn_above:
            changed["warn_above"] = self.warn_above = changes["warn_above"]
        if changed:
            self.reset()  # type: ignore[no-untyped-call]
        return changed

    def calculate(
        self, atoms: Atoms | None = None, properties: Any = ("energy",), system_changes: Any = all_changes
    ) -> None:
        """Fill `results`; called by ASE. Raises as `MDGNNCalculator.calculate`."""
        atoms = self.given(atoms)
        stress = self.wants_stress(atoms, properties)
        others = self.wants_others(properties)
        of_members = [member.compute(atoms, stress=stress, others=others) for member in self.members]
        results: dict[str, Any] = {name: np.mean([one[name] for one in of_members], axis=0) for name in of_members[0]}
        results |= {name: float(value) for name, value in results.items() if not np.ndim(value)}
        results["energy_std"] = float(np.std([one["energy"] for one in of_members]))
        away = np.stack([one["forces"] for one in of_members]) - results["forces"]
        results["forces_std"] = np.sqrt(np.square(away).sum(axis=2).mean(axis=0))
        self.atoms, self.results = atoms, results
        self._warn(results["forces_std"])

    def _warn(self, spread: Any) -> None:
        """Once, until all atoms are below again."""
        if self.warn_above is None:
            return
        atom, before = int(spread.argmax()), self._above
        self._above = bool(spread[atom] > self.warn_above)
        if self._above and not before:
            warn_user(
                f"the models of the ensemble disagree: their forces on atom {atom} spread by {spread[atom]:.3g}, "
                f"more than {self.warn_above:g}"
            )
