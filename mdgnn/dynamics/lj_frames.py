"""Lennard-Jones structures with exact labels, in reduced units: epsilon = sigma = mass = 1.

Clusters and boxes come from dynamics, basin hopping and random displacements under one calculator, labels from another.
Positions and cells have eight decimals, like the files they go to, so
that the labels are those of the numbers there. Frames depend on the seed alone: more of them begin with the same ones.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.cluster import Icosahedron, Octahedron
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from scipy.spatial import KDTree  # ASE brings scipy

from mdgnn.calculators import MDGNNCalculator
from mdgnn.dynamics.basin_hopping import basin_hopping, displace, quench
from mdgnn.dynamics.lj_clusters import ICOSAHEDRA, NEAREST
from mdgnn.models import LennardJones
from mdgnn.neighbors import primitive_neighbor_list

SPACING = NEAREST * 2**0.5  # of fcc clusters
FMAX, QUENCH_STEPS = 0.01, 1000  # largest force in a minimum, epsilon/sigma; steps to get there, else there is none
TIMESTEP, FRICTION = 0.005, 0.5  # tau, 1/tau
LIQUID_FRICTION = 3.0  # 1/tau; liquids come from a temperature of 3, and are to be cool after 3 tau
CLOSEST = 0.8  # of random clusters and displacements; dynamics at a temperature of 1.5 comes to 0.87
DIMERS = ((0.5, 1.1), (1.1, 6.0))  # in turns; nearer than atoms of other frames: without a wall a model has holes there
CROWDED = (0.55, 0.95)  # least distances of crowded clusters, where searches for minima begin
STRONG = 150.0  # epsilon/sigma: frames with a larger force weigh less
HOP, HOP_TEMPERATURE = 0.35, 0.8  # Wales and Doye, J. Phys. Chem. A 101, 5111 (1997), section 2
DECIMALS = 8
BOX_CUTOFF = 10.0  # sigma, of labels; see `label`
DYNAMICS_CUTOFF = 2.5


def lj_frames(n_frames: int, seed: int, kind: str = "all", largest: int = 55) -> Iterator[Atoms]:
    """Labelled Lennard-Jones frames; of "all", every fourth is a box. More of them begin with the same ones."""
    full = MDGNNCalculator(LennardJones(), dtype="float64", too_close="ignore")
    cut = MDGNNCalculator(LennardJones(cutoff=BOX_CUTOFF, mode="cut"), dtype="float64", too_close="ignore")
    short = MDGNNCalculator(LennardJones(cutoff=DYNAMICS_CUTOFF, mode="shifted"), dtype="float64", too_close="ignore")
    of_clusters, of_boxes = clusters(seed, full, range(3, largest + 1)), boxes(seed, short)
    if kind == "lecture":
        of_clusters = lecture_clusters(seed)
    for k in range(n_frames):
        if kind == "boxes" or (kind == "all" and k % 4 == 3):
            atoms = next(of_boxes)
            label([atoms], cut, BOX_CUTOFF)
        else:
            atoms = next(of_clusters)
            label([atoms], full)
        if kind != "lecture":
            weigh(atoms)
        yield atoms


def clusters(
    seed: int,
    calculator: Any,
    sizes: Sequence[int] = range(3, 56),
    temperatures: Sequence[float] = (0.05, 0.15, 0.25, 0.35, 0.5),
) -> Iterator[Atoms]:
    """Clusters without end and without labels; their config_type says how they were made.

    A round takes one size and one temperature, and of 22 frames gives a dimer, five displaced and scaled minima, a
    crowded cluster and three frames of its relaxation, seven frames of Langevin dynamics and five minima of basin
    hopping; fewer where some are unfit.

    Parameters
    ----------
    seed : int
    calculator : ASE calculator
        The untruncated potential.
    sizes : sequence of int
        Numbers of atoms, at least 3, at most 561.
    temperatures : sequence of float
        epsilon/kB.
    """
    for number in itertools.count():
        rng = np.random.default_rng([seed, 0, number])
        yield _named(Atoms("Ar2", [[0, 0, 0], [rng.uniform(*DIMERS[number % 2]), 0, 0]]), "dimer")
        atoms = compact(int(rng.choice(sizes)), rng)
        atoms.calc = calculator
        quench(atoms, FMAX, QUENCH_STEPS, _fire)
        minimum: NDArray[np.float64] = atoms.positions.copy()
        for _ in range(5):
            noise = rng.normal(0, rng.uniform(0.005, 0.12), minimum.shape)
            atoms.positions = minimum * rng.uniform(0.93, 1.08) + noise
            if _apart(atoms):
                yield _named(atoms, "displaced")
        for frame in _crowded(atoms, minimum, rng):
            yield _named(frame, "crowded")
        atoms.positions = minimum
        temperature = float(rng.choice(temperatures))
        for frame in _dynamics(atoms, temperature, rng, rest=100, frames=7, interval=40):
            yield _named(frame, "langevin")
        atoms.positions = minimum
        for frame in minima(atoms, rng, hops=5):
            if KDTree(frame.positions).query(frame.positions, k=2)[0][:, 1].max() < 2:  # no atom has left
                yield _named(frame, "basin_hopping")


def boxes(seed: int, calculator: Any, repeat: int = 3) -> Iterator[Atoms]:
    """Periodic boxes without end and without labels; their config_type is "solid", "strained" or "liquid".

    A round has one density for eight frames of an fcc crystal, others for four crystals that are strained and displaced
    at random, and one for twelve frames of a liquid at a temperature of 0.7 to 1.4: the crystal, melted at 3 and
    cooled. It gives fewer where some are unfit.

    Parameters
    ----------
    seed : int
    calculator : ASE calculator
        A potential for periodic systems, for the dynamics alone; a short cutoff will do.
    repeat : int
        Cubic cells of four atoms in each direction.
    """
    for number in itertools.count():
        rng = np.random.default_rng([seed, 1, number])
        atoms = _fcc(rng.uniform(0.9, 1.15), repeat)
        atoms.calc = calculator
        for frame in _dynamics(atoms, rng.uniform(0.05, 0.8), rng, rest=150, frames=8, interval=40):
            yield _named(frame, "solid")
        for _ in range(4):
            atoms = _fcc(rng.uniform(0.85, 1.15), repeat)
            strain = rng.normal(0, 0.02, (3, 3))
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
            atoms.positions += rng.normal(0, rng.uniform(0.01, 0.07), atoms.positions.shape)
            if _apart(atoms):
                yield _named(atoms, "strained")
        atoms = _fcc(rng.uniform(0.65, 0.95), repeat)
        atoms.calc = calculator
        melted = next(_dynamics(atoms, 3.0, rng, rest=300, frames=1, interval=1))
        melted.calc = calculator
        drawn = _dynamics(
            melted, rng.uniform(0.7, 1.4), rng, rest=600, frames=12, interval=40, friction=LIQUID_FRICTION
        )
        for frame in drawn:
            yield _named(frame, "liquid")


def lecture_clusters(seed: int) -> Iterator[Atoms]:
    """Random clusters of four atoms as the lecture draws them: without end, without labels."""
    rng = np.random.default_rng([seed, 2])
    while True:
        atoms = Atoms("Ar4", rng.normal(0, 0.8, (4, 3)))
        if len(primitive_neighbor_list("d", atoms.pbc, atoms.cell.array, atoms.positions, CLOSEST)) == 0:
            yield _named(atoms, "lecture")


def label(frames: Sequence[Atoms], calculator: Any, cutoff: float | None = None) -> None:
    """Give frames the energy, forces and, of boxes, stress that a calculator finds.

    Parameters
    ----------
    frames : sequence of ase.Atoms
        Clusters, or boxes.
    calculator : MDGNNCalculator
        Its `evaluate` is used. For boxes the potential is one that is cut at `cutoff`, without a shift.
    cutoff : float, optional
        Of boxes: what lies beyond is added as `tail`. Against 18 sigma, 10 left errors up to 3e-5 epsilon per atom,
        4e-5 epsilon/sigma and 7e-5 epsilon/sigma^3 in crystals and liquids of 108 atoms; 6 left 7e-4, 1e-3 and 2e-3.
    """
    for atoms, exact in zip(frames, calculator.evaluate(frames, stress=cutoff is not None), strict=True):
        results = {"energy": exact["energy"], "forces": exact["forces"]}
        if cutoff is not None:
            energy, pressure = tail(len(atoms), atoms.get_volume(), cutoff)
            results["energy"] += energy
            results["stress"] = exact["stress"] - pressure * full_3x3_to_voigt_6_stress(np.eye(3))
        atoms.calc = SinglePointCalculator(atoms, **results)


def weigh(atoms: Atoms) -> None:
    """Give a labelled frame the weight min(1, (150 / largest force)^2), as info["weight"].

    A dimer at 0.5 sigma has an energy of 16,000 epsilon: unless it weighs less, it rules the loss, and errors of a
    thousandth of it are more than all that matters at a minimum. With the power of 1.5, errors of other frames were
    larger.
    """
    largest = float(np.linalg.norm(atoms.get_forces(), axis=1).max(initial=0.0))
    atoms.info["weight"] = min(1.0, (STRONG / max(largest, STRONG)) ** 2)


def tail(n_atoms: int, volume: float, cutoff: float) -> tuple[float, float]:
    """Energy and pressure of all pairs beyond the cutoff, as if atoms were spread evenly there.

    Allen and Tildesley, Computer Simulation of Liquids, second edition, section 2.8.
    """
    c3 = cutoff**-3
    energy = 8 / 3 * math.pi * n_atoms**2 / volume * (c3**3 / 3 - c3)
    pressure = 16 / 3 * math.pi * (n_atoms / volume) ** 2 * (2 * c3**3 / 3 - c3)
    return energy, pressure


def compact(n: int, rng: np.random.Generator) -> Atoms:
    """The n atoms of an icosahedron, or the octahedron of 38, that are nearest to its middle or to a place near it."""
    shells = next(shells for size, shells in ICOSAHEDRA.items() if shells > 1 and size >= n)
    whole = Octahedron("Ar", 4, 1, SPACING) if n == 38 else Icosahedron("Ar", shells, SPACING)
    centre = whole.positions.mean(axis=0) + (0 if n in (13, 38, 55, 147) else rng.normal(0, 0.3, 3))
    nearest = np.argsort(np.linalg.norm(whole.positions - centre, axis=1), kind="stable")[:n]
    return Atoms(f"Ar{n}", whole.positions[nearest], masses=np.ones(n))


def minima(
    atoms: Atoms, rng: np.random.Generator, hops: int, step: float = HOP, temperature: float = HOP_TEMPERATURE
) -> Iterator[Atoms]:
    """The minimum that each hop ends in, whether or not the next hop begins there; moves `atoms`.

    A hop that ends in none is left out.
    """

    def minimize(positions: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        atoms.positions = positions
        minimum = quench(atoms, FMAX, QUENCH_STEPS, _fire)
        return minimum.energy if minimum.converged else math.inf, atoms.positions.copy()

    walk = basin_hopping(minimize, atoms.positions.copy(), rng, displace(step, rng), temperature)
    for energy, _ in itertools.islice(walk, 1, hops + 1):
        if energy != math.inf:
            yield atoms


def _fire(atoms: Atoms) -> Any:
    """Came to the end from every start displaced by 0.35, and of ASE's optimizers with the fewest evaluations for 55
    atoms."""
    return FIRE(atoms, logfile=None, dt=0.02, dtmax=0.1, maxstep=0.1)


def apart(positions: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Positions (N, 3) moved until no two are nearer than `least`, as far as 200 rounds of pushing come."""
    positions = positions.copy()
    for _ in range(200):
        pairs = KDTree(positions).query_pairs(least, output_type="ndarray")
        if not len(pairs):
            break
        i, j = pairs.T
        d = positions[i] - positions[j]
        r = np.linalg.norm(d, axis=1, keepdims=True)
        push = d / np.maximum(r, 1e-9) * (0.505 * (least - r))
        np.add.at(positions, i, push)
        np.add.at(positions, j, -push)
    return positions


def in_sphere(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (n, 3) at random in a sphere of about the density of a cluster."""
    radius = 0.5 + 0.62 * n ** (1 / 3)
    points = rng.normal(size=(n, 3))
    points *= (radius * rng.random(n) ** (1 / 3) / np.linalg.norm(points, axis=1))[:, None]
    return points


def _crowded(atoms: Atoms, minimum: NDArray[np.float64], rng: np.random.Generator) -> Iterator[Atoms]:
    """A start of basin hopping, at random or a hop from a minimum, with close contacts, and three of its relaxation."""
    start = in_sphere(len(atoms), rng) if rng.random() < 0.5 else minimum + rng.uniform(-HOP, HOP, minimum.shape)
    atoms.positions = apart(start, rng.uniform(*CROWDED))
    yield atoms
    fire = _fire(atoms)
    for steps in (5, 10, 25):
        fire.run(fmax=FMAX, steps=steps)
        yield atoms


def _dynamics(
    atoms: Atoms,
    temperature: float,
    rng: np.random.Generator,
    *,
    rest: int,
    frames: int,
    interval: int,
    friction: float = FRICTION,
) -> Iterator[Atoms]:
    """Frames of Langevin dynamics, after steps to come to rest; begins with what equipartition makes of a minimum."""
    atoms.set_velocities(rng.normal(0, math.sqrt(2 * temperature), atoms.positions.shape))
    options: dict[str, Any] = {"temperature_K": temperature / units.kB, "friction": friction, "fixcm": False}
    dynamics = Langevin(atoms, TIMESTEP, rng=rng, **options)
    dynamics.run(rest)
    for _ in range(frames):
        dynamics.run(interval)
        yield atoms


def _apart(atoms: Atoms) -> bool:
    return len(primitive_neighbor_list("d", atoms.pbc, atoms.cell.array, atoms.positions, CLOSEST)) == 0


def _fcc(density: float, repeat: int) -> Atoms:
    atoms: Atoms = bulk("Ar", "fcc", a=(4 / density) ** (1 / 3), cubic=True) * repeat
    atoms.set_masses(np.ones(len(atoms)))
    return atoms


def _named(atoms: Atoms, config_type: str) -> Atoms:
    """A copy with rounded numbers and nothing but what goes to a file."""
    copy = Atoms(atoms.symbols, atoms.positions.round(DECIMALS), cell=atoms.cell.array.round(DECIMALS), pbc=atoms.pbc)
    copy.info["config_type"] = config_type
    return copy
