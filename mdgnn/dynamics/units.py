"""The units that a model works in: names, what they are in ASE's, and the defaults of dynamics in them."""

from dataclasses import dataclass

from ase import units
from ase.calculators.calculator import Calculator

from mdgnn.calculators.caching_calculator import CachingCalculator

GRAM_PER_CM3 = 1e-3 * units.kg / (1e-2 * units.m) ** 3


@dataclass(frozen=True)
class UnitSystem:
    """Names of the units, what they are in ASE's, and the defaults that go with them.

    In reduced units epsilon is 1 eV, sigma 1 Angstrom and the mass 1, so that tau is ASE's own unit of time.
    """

    name: str  # as model files have it
    energy: str
    length: str
    time: str
    temperature: str
    ase_time: float
    kelvin: float
    default_timestep: float
    default_temperature: float
    default_friction: float
    pressure: str
    ase_pressure: float
    density: str
    ase_density: float
    thermostat_time: float  # of NPT, a hundred and a thousand default time steps, as ASE recommends
    barostat_time: float

    @property
    def force(self) -> str:
        return f"{self.energy}/{self.length}"


LJ = UnitSystem(
    name="lj",
    energy="epsilon",
    length="sigma",
    time="tau",
    temperature="epsilon/kB",
    ase_time=1.0,
    kelvin=1 / units.kB,
    default_timestep=0.005,
    default_temperature=0.2,
    default_friction=0.5,
    pressure="epsilon/sigma^3",
    ase_pressure=1.0,
    density="1/sigma^3",
    ase_density=1.0,
    thermostat_time=0.5,
    barostat_time=5.0,
)
METAL = UnitSystem(
    name="metal",
    energy="eV",
    length="Angstrom",
    time="fs",
    temperature="K",
    ase_time=units.fs,
    kelvin=1.0,
    default_timestep=1.0,
    default_temperature=300.0,
    default_friction=0.01,
    pressure="bar",
    ase_pressure=units.bar,
    density="g/cm^3",
    ase_density=GRAM_PER_CM3,
    thermostat_time=100.0,
    barostat_time=1000.0,
)


def units_of(calculator: Calculator) -> UnitSystem:
    """Those that a calculator of ours says it works in; another's are ASE's, eV and Angstrom."""
    return LJ if isinstance(calculator, CachingCalculator) and calculator.units == "lj" else METAL
