"""Constant pressure and temperature: ASE's isotropic Martyna-Tobias-Klein integrator, for a whole that rests."""

from typing import Any

import numpy as np
from ase import Atoms
from ase.md.nose_hoover_chain import IsotropicMTKBarostat, IsotropicMTKNPT, NoseHooverChainThermostat
from numpy.typing import NDArray

from mdgnn._internal.run_errors import RunError
from mdgnn.dynamics.units import UnitSystem

STRETCH = 0.1  # by which the logarithm of the cell's lengths may change in a step; a tenth is no dynamics any more
DENSEST = 0.1  # volume of an atom, in sigma^3 or Angstrom^3, that no condensed matter falls below
WIDEST = 1000.0  # times the volume at the start
VARIABLES = ("thermostat", "barostat", "volume", "cell0")

State = dict[str, NDArray[np.float64]]


class MTK(IsotropicMTKNPT):
    """Volume and atoms under a barostat and a thermostat, of a whole that rests; equations at `ensembles.NPT`.

    ASE's counts 3 N degrees of freedom. Atoms that start at rest as a whole stay so and have 3 (N - 1), which would
    take the heat of the other three, N / (N - 1) of the temperature asked for. So it is given one atom less to count.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator, at rest as a whole.
    timestep : float
        In ASE's units of time.
    temperature, pressure : float
        In the model's units.
    units : UnitSystem
        Has the relaxation times.
    state : dict, optional
        What `state` returned, to go on from there bit for bit.

    Raises
    ------
    RunError
        For a state that is not whole; by `step`, of a cell that is no cell any more.
    """

    def __init__(
        self,
        atoms: Atoms,
        timestep: float,
        temperature: float,
        pressure: float,
        units: UnitSystem,
        state: State | None = None,
    ):
        kelvin = temperature * units.kelvin
        tdamp, pdamp = units.thermostat_time * units.ase_time, units.barostat_time * units.ase_time
        super().__init__(atoms, timestep, kelvin, pressure * units.ase_pressure, tdamp, pdamp)
        n = self._num_atoms_global = len(atoms) - 1
        self._thermostat = NoseHooverChainThermostat(n, self.masses, kelvin, tdamp)
        self._barostat = IsotropicMTKBarostat(n, kelvin, pdamp)
        self.units = units
        if state is not None:
            if missing := [name for name in VARIABLES if name not in state]:
                raise RunError(f"the checkpoint of this npt run lacks {', '.join(missing)} of its integrator")
            self._thermostat._eta, self._thermostat._p_eta = state["thermostat"].copy()
            self._barostat._xi, self._barostat._p_xi = state["barostat"].copy()
            self._volume0, self._eps, self._p_eps = state["volume"]
            self._cell0 = state["cell0"]

    def state(self) -> State:
        """Everything but the atoms that the next step depends on."""
        return {
            "thermostat": np.stack([self._thermostat._eta, self._thermostat._p_eta]),
            "barostat": np.stack([self._barostat._xi, self._barostat._p_xi]),
            "volume": np.array([self._volume0, self._eps, self._p_eps]),
            "cell0": self._cell0,
        }

    def step(self) -> None:
        """ASE's; raises a RunError where atoms or cell have no finite momenta any more."""
        super().step()
        if not np.isfinite(self._p_eps + self._p.sum()):
            raise RunError("the cell exploded: its momentum is not finite; a shorter timestep may help")

    def columns(self) -> tuple[float, float, float]:
        """Volume, pressure and the conserved energy, in the model's units: see `header`."""
        pressure = float(self._get_pressure()) / self.units.ase_pressure
        return float(self.atoms.get_volume()), pressure, self.get_conserved_energy()

    def _integrate_q_cell(self, delta: float) -> None:
        """ASE's; raises a RunError before the model is asked about a cell that is none."""
        before = self._eps
        super()._integrate_q_cell(delta)
        length, n = self.units.length, len(self.atoms)
        volume = self._get_volume()
        if not abs(self._eps - before) < STRETCH:
            was = self._volume0 * np.exp(3 * before)
            raise RunError(
                f"the cell exploded or collapsed: from {was:.4g} {length}^3 to {volume:.4g} {length}^3 in one step; "
                "a shorter timestep or a relaxed start may help"
            )
        if volume < DENSEST * n:
            raise RunError(
                f"the cell collapsed to {volume / n:.3g} {length}^3 an atom, less than {DENSEST:g}; the model or the "
                "pressure does not hold atoms apart"
            )
        if volume > WIDEST * self._volume0:
            raise RunError(
                f"the cell exploded to more than {WIDEST:g} times its volume at the start; at this temperature and "
                "pressure nothing holds the atoms together"
            )


def header(units: UnitSystem) -> list[str]:
    """The log's columns after those of every ensemble."""
    return [f"volume[{units.length}^3]", f"pressure[{units.pressure}]", f"conserved_energy[{units.energy}]"]


def densities(volumes: Any, atoms: Atoms, units: UnitSystem) -> Any:
    """Mass per volume; in reduced units, where masses are 1, the number of atoms in sigma^3."""
    return atoms.get_masses().sum() / volumes / units.ase_density


def means(log: NDArray[np.float64], atoms: Atoms, units: UnitSystem) -> dict[str, float]:
    """Of the second half of a log."""
    volume, pressure = log[len(log) // 2 :, 6:8].T
    return {
        "mean_pressure_second_half": float(pressure.mean()),
        "mean_volume_second_half": float(volume.mean()),
        "mean_density_second_half": float(densities(volume, atoms, units).mean()),
    }
