"""Minima of the energy: the one below a structure, and lower ones by basin hopping."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.optimize import minimize as scipy_minimize  # ASE brings scipy

Array = NDArray[np.float64]
Minimize = Callable[[Array], tuple[float, Array]]  # positions -> energy and positions of a minimum


class Minimum(NamedTuple):
    """Energy of a minimum, and whether the forces there are as small as was asked for."""

    energy: float
    converged: bool


def quench(
    atoms: Atoms, fmax: float = 1e-3, steps: int = 2000, optimizer: Callable[[Atoms], Any] | None = None
) -> Minimum:
    """Move atoms, in place, to the minimum below; nothing is written or said: `relax` is for single structures.

    Parameters
    ----------
    atoms : ase.Atoms
        With a calculator; of a potential that is a function, with `mdgnn.calculators.FunctionCalculator`.
    fmax : float
        Of the force on an atom, or, by default, of a component of it.
    steps : int
        Give up after so many.
    optimizer : callable, optional
        Makes one of ASE's optimizers of the atoms. By default L-BFGS-B of SciPy: with the fewest evaluations, but its
        line search may step over a wall. From starts displaced by 0.35 sigma (8 Lennard-Jones atoms, twelve times)
        it took 48 evaluations and came back to the same basin six times; FIRE took 115 and came back each time.

    Returns
    -------
    Minimum
    """
    if optimizer is not None:
        converged = bool(optimizer(atoms).run(fmax=fmax, steps=steps))
        return Minimum(float(atoms.get_potential_energy()), converged)

    def energy_and_gradient(x: Array) -> tuple[float, Array]:
        atoms.positions = x.reshape(-1, 3)
        return atoms.get_potential_energy(), -atoms.get_forces().ravel()

    options = {"gtol": fmax, "ftol": 0.0, "maxiter": steps, "maxfun": 2 * steps, "maxcor": 20}
    result = scipy_minimize(energy_and_gradient, atoms.positions.ravel(), jac=True, method="L-BFGS-B", options=options)
    atoms.positions = result.x.reshape(-1, 3)
    return Minimum(float(result.fun), bool(np.abs(result.jac).max(initial=0.0) <= fmax))


def basin_hopping(
    minimize: Minimize,
    start: Array,
    rng: np.random.Generator,
    move: Callable[[Array], Array],
    temperature: float,
    accept: Callable[[Array, Array], bool] = lambda before, after: True,
) -> Iterator[tuple[float, Array]]:
    """Walk over minima: move, find the minimum below, and go on from there by the rule of Metropolis. Without end.

    Parameters
    ----------
    minimize : callable
        From positions (N, 3) to the energy and positions of the minimum below; the energy is infinite where there is
        none, and the walk then stays where it is.
    start : (N, 3)
    rng : numpy.random.Generator
    move : callable
        From the positions of a minimum to those where the next search begins, such as ``displace(0.35, rng)``.
    temperature : float
        Times kB, in the unit of energy: a minimum higher by D is gone on from with the probability exp(-D / kT).
    accept : callable, optional
        From the minima before and after a move, whether to count the second; for clusters that must hold together.

    Yields
    ------
    float, (N, 3)
        Of the minimum below the start, and then of the one that each hop ends in, gone on from or not; infinite
        where it does not count.

    References
    ----------
    Wales and Doye, J. Phys. Chem. A 101, 5111 (1997).
    """
    energy, here = minimize(start)
    yield energy, here
    while True:
        new, there = minimize(move(here))
        if new == math.inf or not accept(here, there):
            yield math.inf, there
            continue
        if new < energy or rng.random() < math.exp((energy - new) / temperature):
            energy, here = new, there
        yield new, there


def displace(step: float, rng: np.random.Generator) -> Callable[[Array], Array]:
    """A move of each coordinate by up to `step`."""
    return lambda positions: positions + rng.uniform(-step, step, positions.shape)
