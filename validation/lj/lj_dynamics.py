"""Rungs 4 and 5 of the Lennard-Jones ladder: liquids at given states, conserved energy, caloric curves."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, CalculatorError
from ase.constraints import FixConstraint
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.velocitydistribution import Stationary, ZeroRotation
from ase.md.verlet import VelocityVerlet
from lj_systems import SHORT_CUTOFF, Figures, exact, langevin, liquid, minima
from numpy.typing import NDArray

from mdgnn import LennardJones, MDGNNCalculator
from mdgnn.dynamics.lj_frames import tail

STATES = tuple((density, temperature) for temperature in (0.85, 0.90) for density in (0.776, 0.78, 0.82, 0.86, 0.9))
# Of 500 atoms of the exact potential (cut at 4, with tails) at 0.86 and 0.85, 40 tau: with a friction of 0.5 1/tau a
# pressure was correlated with the next ones for 0.6 tau (g = 24 samples), with 3 for 0.2 tau. Steps of 0.01 in BAOAB
# and of 0.005 in ASE's Langevin gave the same energy and pressure, and the published ones, within their errors.
TIMESTEP, FRICTION = 0.01, 3.0
SETTLE, REST, STEPS, INTERVAL = 1000, 500, 10_000, 5
EXACT_CUTOFF = 4.0


def state_points(calculator: MDGNNCalculator, data: Path, work: Path, states: Any = STATES) -> Figures:
    """Energy per particle and pressure of 500 atoms, with standard errors of ten blocks, the published ones, and the
    mean kinetic temperature; None for a liquid that did not live."""
    rows = np.loadtxt(data / "nist_lj_mc.tsv", skiprows=2)
    result: Figures = {}
    for density, temperature in states:
        rng = np.random.default_rng([5, round(1000 * density), round(100 * temperature)])
        (row,) = rows[np.isclose(rows[:, 0], density)]
        published = row[1:3] if temperature == 0.85 else row[3:5]
        try:
            measured = _state_point(calculator, density, temperature, rng)
            result[f"{density}, {temperature}"] = [*measured[:4], *published.tolist(), measured[4]]
        except CalculatorError:
            result[f"{density}, {temperature}"] = None
    return result


def _state_point(
    calculator: MDGNNCalculator, density: float, temperature: float, rng: np.random.Generator
) -> list[float]:
    """Energy, pressure, their errors, kinetic temperature."""
    atoms = liquid(density, 5, exact(SHORT_CUTOFF), rng)
    atoms.set_velocities(rng.normal(0, math.sqrt(temperature), atoms.positions.shape))
    _thermostat(atoms, temperature, rng).run(SETTLE)
    atoms.calc = calculator
    dynamics, samples, kinetic = _thermostat(atoms, temperature, rng), [], []
    dynamics.run(REST)
    cut = isinstance(calculator.model, LennardJones)
    energy, pressure = tail(len(atoms), atoms.get_volume(), calculator.model.cutoff) if cut else (0.0, 0.0)
    pressure += density * temperature
    for _ in range(STEPS // INTERVAL):
        dynamics.run(INTERVAL)
        virial = -atoms.get_stress()[:3].mean()
        samples.append([(atoms.get_potential_energy() + energy) / len(atoms), virial + pressure])
        kinetic.append(atoms.get_kinetic_energy() / (1.5 * len(atoms)))
    mean, error = blocked(np.array(samples))
    return [*mean, *error, float(np.mean(kinetic))]


def _thermostat(atoms: Atoms, temperature: float, rng: np.random.Generator) -> LangevinBAOAB:
    return LangevinBAOAB(atoms, TIMESTEP, temperature_K=temperature / units.kB, T_tau=1 / FRICTION, rng=rng)


def blocked(samples: NDArray[np.float64], n_blocks: int = 10) -> tuple[list[float], list[float]]:
    """Mean and its standard error from the means of blocks. Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989)."""
    means = np.array([block.mean(axis=0) for block in np.array_split(samples, n_blocks)])
    return samples.mean(axis=0).tolist(), (means.std(axis=0, ddof=1) / math.sqrt(n_blocks)).tolist()


# --- rung 5: dynamics ------------------------------------------------------------------------------------------------

ROOM, SPRING = 1.5, 100.0  # sigma between the outermost atom of the minimum and the container, epsilon/sigma^2
CALORIC = ((13, 50_000), (55, 20_000))  # atoms, steps at each temperature
TEMPERATURES = (0.05, 0.1, 0.15, 0.2, 0.225, 0.25, 0.275, 0.3, 0.325, 0.35, 0.375, 0.4)


def drift(calculator: MDGNNCalculator, data: Path, work: Path, steps: int = 100_000) -> Figures:
    """Slope of the total energy of 55 atoms at T = 0.2, epsilon per atom and 1,000 steps of 0.002 tau."""
    atoms = minima(data, work)[55]
    atoms.calc = calculator
    rng = np.random.default_rng(6)
    atoms.set_velocities(rng.normal(0, math.sqrt(2 * 0.2), atoms.positions.shape))
    Stationary(atoms)
    ZeroRotation(atoms)
    dynamics = VelocityVerlet(atoms, timestep=0.002)
    dynamics.run(2000)
    energies, kinetic = [], []
    for _ in range(steps // 10):
        dynamics.run(10)
        energies.append(atoms.get_total_energy() / 55)
        kinetic.append(atoms.get_kinetic_energy() * 2 / (3 * 55 - 6))
    slope, _ = np.polyfit(np.arange(len(energies)) / 100, energies, 1)
    return {
        "slope": float(slope),
        "deviation": float(np.std(energies)),
        "temperature": float(np.mean(kinetic)),
        "energies": energies[::10],
    }


def caloric(calculator: Calculator, data: Path, work: Path) -> Figures:
    """Temperature, mean potential energy per atom and heat capacity per atom, with their standard errors, of 13 and 55
    atoms in a spherical container, heated from the minimum."""
    result: Figures = {}
    for n, steps in CALORIC:
        atoms = minima(data, work)[n]
        atoms.positions -= atoms.positions.mean(axis=0)
        atoms.calc = calculator
        atoms.set_constraint(Container(np.linalg.norm(atoms.positions, axis=1).max() + ROOM))
        curve = []
        for k, temperature in enumerate(TEMPERATURES):
            rng = np.random.default_rng([10, n, k])
            dynamics, energies = langevin(atoms, temperature, rng, 0.01, start=1.0 if k else 2.0), []
            dynamics.run(steps // 4)
            for _ in range(steps // 10):
                dynamics.run(10)
                energies.append(atoms.get_potential_energy() / n)
            (mean,), (error,) = blocked(np.array(energies)[:, None])
            heat, heat_error = _variance(np.array(energies))
            factor = n / temperature**2
            curve.append([temperature, mean, error, factor * heat + 1.5, factor * heat_error])
        result[str(n)] = curve
    return result


def _variance(samples: NDArray[np.float64], n_blocks: int = 10) -> tuple[float, float]:
    """With its standard error, by leaving out one block at a time (jackknife)."""
    blocks = np.array_split(samples, n_blocks)
    without = [np.concatenate([*blocks[:k], *blocks[k + 1 :]]).var() for k in range(n_blocks)]
    return float(samples.var()), float(np.std(without) * math.sqrt(n_blocks - 1))


class Container(FixConstraint):  # type: ignore[misc]
    """A sphere about the origin with springs that bring atoms back: at melting, clusters would lose some otherwise.

    The energy of its springs is part of the potential energy, as heat capacities want it.
    """

    def __init__(self, radius: float):
        self.radius = radius

    def _beyond(self, atoms: Atoms) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        away = np.linalg.norm(atoms.positions, axis=1, keepdims=True)
        return away, np.maximum(away - self.radius, 0)

    def adjust_potential_energy(self, atoms: Atoms) -> float:
        return float(0.5 * SPRING * np.square(self._beyond(atoms)[1]).sum())

    def adjust_forces(self, atoms: Atoms, forces: NDArray[np.float64]) -> None:
        away, beyond = self._beyond(atoms)
        forces -= SPRING * beyond * atoms.positions / np.maximum(away, self.radius)

    def adjust_positions(self, atoms: Atoms, new: NDArray[np.float64]) -> None:
        """Nothing is fixed."""

    adjust_momenta = adjust_positions

    def get_removed_dof(self, atoms: Atoms) -> int:
        return 0
