"""Ensembles of molecular dynamics: their equations, their parameters, and the ASE integrators that sample them.

Quantities are in the units of the model (see `mdgnn.dynamics.units`): epsilon, sigma, tau and epsilon/kB, or eV,
Angstrom, fs, K and bar.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np
from ase import Atoms
from ase.md.langevin import Langevin as AseLangevin
from ase.md.velocitydistribution import Stationary
from ase.md.verlet import VelocityVerlet

from mdgnn.dynamics.constraints import fixed_center_of_mass
from mdgnn.dynamics.npt import MTK, State
from mdgnn.dynamics.units import UnitSystem


class Ensemble(ABC):
    """What `mdgnn.dynamics` asks of an ensemble, whose parameters are those of a frozen dataclass.

    `name` stands in records and on the command line. All have a `temperature`: of the initial velocities and, where
    there is one, of the thermostat. Without it atoms keep the momenta they have; those without any, and the
    thermostat, get the default of the units.
    """

    name: ClassVar[str]
    has_thermostat: ClassVar[bool] = True
    temperature: float | None

    @classmethod
    def parameters(cls) -> tuple[str, ...]:
        """Their names."""
        return tuple(field.name for field in fields(cls))  # type: ignore[arg-type]  # which they are, below

    def check(self) -> None:
        """Raise a ValueError for a parameter that cannot be."""
        _check_at_least_0("temperature", self.temperature)

    def check_structure(self, atoms: Atoms, name: str) -> None:  # noqa: B027  (most take any)
        """Raise a ValueError for atoms, called so, that the ensemble is not for."""

    @abstractmethod
    def with_defaults(self, units: UnitSystem) -> "Ensemble":
        """With numbers instead of None."""

    def constrain(self, atoms: Atoms) -> None:  # noqa: B027  (most need none)
        """Add the constraints that the integrator needs, before velocities are drawn."""

    def settle(self, atoms: Atoms) -> None:  # noqa: B027  (most take them as they are)
        """Change momenta as the integrator needs them."""

    @abstractmethod
    def integrator(self, atoms: Atoms, timestep: float, units: UnitSystem, rng: Any, state: State | None) -> Any:
        """ASE's, of atoms with a calculator; time step in the model's units, `state` of the one to go on from."""


@dataclass(frozen=True)
class NVE(Ensemble):
    r"""Constant number, volume and energy: Newton's equations by the velocity Verlet algorithm.

    .. math::

        v(t + \Delta t / 2) &= v(t) + \frac{\Delta t}{2 m} F(r(t)) \\
        r(t + \Delta t) &= r(t) + \Delta t \, v(t + \Delta t / 2) \\
        v(t + \Delta t) &= v(t + \Delta t / 2) + \frac{\Delta t}{2 m} F(r(t + \Delta t))

    ================ ====================================== =============================
    symbol           meaning                                here
    ================ ====================================== =============================
    :math:`r, v`     positions and velocities               ``atoms``
    :math:`F`        forces, :math:`-\partial E/\partial r` the calculator's
    :math:`m`        masses                                 ``atoms``, 1 in reduced units
    :math:`\Delta t` time step                              ``timestep``
    ================ ====================================== =============================

    The total energy is conserved up to a scatter of order :math:`\Delta t^2`.

    Parameters
    ----------
    temperature : float, optional
        Of the initial velocities; without it atoms keep the momenta they have, or get the default.

    References
    ----------
    Swope, Andersen, Berens and Wilson, J. Chem. Phys. 76, 637 (1982).
    """

    temperature: float | None = None

    name: ClassVar[str] = "nve"
    has_thermostat: ClassVar[bool] = False

    def with_defaults(self, units: UnitSystem) -> "NVE":
        """With numbers instead of None."""
        return replace(self, temperature=_or_default(self.temperature, units.default_temperature))

    def integrator(self, atoms: Atoms, timestep: float, units: UnitSystem, rng: Any, state: State | None) -> Any:
        """ASE's, of atoms with a calculator; the time step in the model's units."""
        return VelocityVerlet(atoms, timestep * units.ase_time)


@dataclass(frozen=True)
class Langevin(Ensemble):
    r"""Constant number, volume and temperature: friction and random forces on every atom.

    .. math::

        m \, \dot v = F(r) - \gamma m v + \sqrt{2 \gamma m k_B T} \; \eta(t)

    =============== ============================= =========================
    symbol          meaning                       here
    =============== ============================= =========================
    :math:`r, v, m` positions, velocities, masses ``atoms``
    :math:`F`       forces                        the calculator's
    :math:`T`       temperature                   ``temperature``
    :math:`\gamma`  friction, an inverse time     ``friction``
    :math:`\eta`    white noise of unit variance  drawn from the run's seed
    =============== ============================= =========================

    ASE's integrator. A cluster that is free, of more than one atom, keeps its centre of mass at rest.

    Parameters
    ----------
    temperature : float, optional
        Of the thermostat and the initial velocities; without it the default, and atoms keep the momenta they have.
    friction : float, optional
        By default 0.5/tau or 0.01/fs.

    References
    ----------
    Vanden-Eijnden and Ciccotti, Chem. Phys. Lett. 429, 310 (2006).
    """

    temperature: float | None = None
    friction: float | None = None

    name: ClassVar[str] = "langevin"

    def check(self) -> None:
        """Raise a ValueError for a parameter that cannot be."""
        super().check()
        _check_at_least_0("friction", self.friction)

    def with_defaults(self, units: UnitSystem) -> "Langevin":
        """With numbers instead of None."""
        return Langevin(
            _or_default(self.temperature, units.default_temperature), _or_default(self.friction, units.default_friction)
        )

    def constrain(self, atoms: Atoms) -> None:
        """Hold the centre of mass of a free cluster, which the thermostat would let wander off; one atom may drift."""
        if len(atoms) > 1 and not atoms.pbc.any() and not atoms.constraints:
            atoms.set_constraint(fixed_center_of_mass())

    def integrator(self, atoms: Atoms, timestep: float, units: UnitSystem, rng: Any, state: State | None) -> Any:
        """ASE's, of atoms with a calculator; the time step in the model's units."""
        assert self.temperature is not None and self.friction is not None
        return AseLangevin(
            atoms,
            timestep * units.ase_time,
            temperature_K=self.temperature * units.kelvin,
            friction=self.friction / units.ase_time,
            fixcm=False,
            rng=rng,
        )


@dataclass(frozen=True)
class NPT(Ensemble):
    r"""Constant number, pressure and temperature: a barostat that scales the cell, and Nose-Hoover chains.

    .. math::

        \dot r &= v + \frac{p_\epsilon}{W} r, \qquad
        \dot V = 3 V \frac{p_\epsilon}{W} \\
        \dot p &= F - \left(1 + \frac{1}{N'}\right) \frac{p_\epsilon}{W} p - \frac{p_{\eta_1}}{Q_1} p \\
        \dot p_\epsilon &= 3 V (P_{int} - P) + \frac{1}{N'} \sum_i \frac{p_i^2}{m_i}
            - \frac{p_{\xi_1}}{Q'_1} p_\epsilon

    ============================ =================================== ==============================
    symbol                       meaning                             here
    ============================ =================================== ==============================
    :math:`r, p, m`              positions, momenta, masses          ``atoms``
    :math:`V`                    volume; the cell keeps its shape    ``atoms``
    :math:`P_{int}, P`           pressure of the atoms, asked for    the calculator's, ``pressure``
    :math:`p_\epsilon, W`        momentum and mass of the cell       by the barostat's time
    :math:`p_\eta, Q; p_\xi, Q'` chains on the atoms and on the cell by temperature and times
    :math:`N' = N - 1`           atoms, less the one at rest         the whole does not move
    ============================ =================================== ==============================

    ASE's isotropic Martyna-Tobias-Klein dynamics, with relaxation times of a hundred and a thousand default time
    steps. The log has the volume, the pressure and the energy that is conserved beside those of every ensemble.

    Parameters
    ----------
    temperature : float, optional
        Of the thermostat and the initial velocities; without it the default, and atoms keep the momenta they have.
    pressure : float, optional
        By default 0; in epsilon/sigma^3 or bar.

    References
    ----------
    Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994). Martyna, Tuckerman, Tobias and Klein, Mol. Phys. 87,
    1117 (1996).
    """

    temperature: float | None = None
    pressure: float | None = None

    name: ClassVar[str] = "npt"

    def check(self) -> None:
        """Raise a ValueError for a parameter that cannot be."""
        super().check()
        if self.pressure is not None and not np.isfinite(self.pressure):
            raise ValueError(f"expected a finite pressure, got {self.pressure}")
        if self.temperature == 0:
            raise ValueError("npt expects a temperature above 0, got 0")

    def check_structure(self, atoms: Atoms, name: str) -> None:
        """Raise a ValueError unless a barostat can act on these atoms."""
        if not atoms.pbc.all():
            axes = " and ".join(axis for axis, periodic in zip("abc", atoms.pbc, strict=True) if periodic)
            raise ValueError(
                f"npt expects a structure that is periodic in all three directions; {name} is periodic along "
                f"{axes or 'none'}"
            )
        if len(atoms) < 2:
            raise ValueError(f"npt expects at least two atoms, as the whole stays at rest; {name} has {len(atoms)}")
        if atoms.constraints:
            kinds = ", ".join(type(constraint).__name__ for constraint in atoms.constraints)
            raise ValueError(f"npt moves every atom with the cell and expects no constraints; {name} has {kinds}")

    def with_defaults(self, units: UnitSystem) -> "NPT":
        """With numbers instead of None."""
        return NPT(_or_default(self.temperature, units.default_temperature), _or_default(self.pressure, 0.0))

    def settle(self, atoms: Atoms) -> None:
        """Take the motion of the whole away without cooling: the thermostat counts without it."""
        if np.any(atoms.get_momenta()):
            Stationary(atoms)

    def integrator(self, atoms: Atoms, timestep: float, units: UnitSystem, rng: Any, state: State | None) -> Any:
        """ASE's with the right degrees of freedom; goes on from the state of another unless that is empty."""
        assert self.temperature is not None and self.pressure is not None
        return MTK(atoms, timestep * units.ase_time, self.temperature, self.pressure, units, state)


ENSEMBLES: Mapping[str, type[Ensemble]] = {kind.name: kind for kind in (NVE, Langevin, NPT)}


def make_ensemble(name: str, **parameters: float | None) -> Ensemble:
    """The ensemble of a name and of those parameters that are not None.

    Raises
    ------
    ValueError
        For a parameter that the ensemble does not have, or that cannot be.
    """
    if name not in ENSEMBLES:
        raise ValueError(f"expected an ensemble out of {', '.join(ENSEMBLES)}, got {name!r}")
    given = {key: value for key, value in parameters.items() if value is not None}
    for key in given:
        if key in ("temperature", "friction"):
            _check_at_least_0(key, given[key])
        owners = [kind for kind, ensemble in ENSEMBLES.items() if key in ensemble.parameters()]
        if name not in owners:
            raise ValueError(f"a {key} goes with the ensemble {' or '.join(owners)}, not with {name}")
    ensemble = ENSEMBLES[name](**given)
    ensemble.check()
    return ensemble


def _check_at_least_0(name: str, value: float | None) -> None:
    if value is not None and not (np.isfinite(value) and value >= 0):
        raise ValueError(f"expected a {name} of at least 0, got {value}")


def _or_default(value: float | None, default: float) -> float:
    return default if value is None else value
