"""Global minima of Lennard-Jones clusters, as geometries: the table in the data has energies alone.

Clusters up to 37 atoms come from basin hopping with the exact potential, each beginning with the smaller one and an
atom more; 38, 55, 75, 98 and 147 are built. A geometry counts only if its energy is the table's to 1e-5 epsilon.
"""

import itertools
import math
from functools import partial
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.cluster import Decahedron, Icosahedron, Octahedron
from numpy.typing import NDArray
from scipy.spatial import KDTree

from mdgnn import MDGNNCalculator, dynamics
from mdgnn.calculators import FunctionCalculator
from mdgnn.calculators.function_calculator import Potential
from mdgnn.dynamics.basin_hopping import Minimize
from mdgnn.dynamics.lj_clusters import NEAREST
from mdgnn.dynamics.lj_frames import apart, in_sphere

Array = NDArray[np.float64]

SIZES = (*range(2, 39), 55, 75, 98, 147)
TOLERANCE = 1e-5  # epsilon
STEP, TEMPERATURE = 0.36, 0.8  # of hops, sigma and epsilon: Wales and Doye, J. Phys. Chem. A 101, 5111 (1997)


def lennard_jones(positions: Array) -> tuple[float, Array]:
    """Energy of a cluster and its gradient, over all pairs, in plain numpy: independent of our kernels."""
    n = len(positions)
    i, j = np.triu_indices(n, 1)
    d = positions[i] - positions[j]
    inverse2 = 1 / np.einsum("ek,ek->e", d, d)
    inverse6 = inverse2**3
    slope = ((-48 * inverse6 + 24) * inverse6 * inverse2)[:, None] * d
    gradient = np.stack([np.bincount(i, slope[:, k], n) - np.bincount(j, slope[:, k], n) for k in range(3)], axis=1)
    return float(4 * (inverse6 * inverse6 - inverse6).sum()), gradient


def quench(potential: Potential | MDGNNCalculator, positions: Array, fmax: float = 1e-3) -> tuple[float, Array]:
    """Energy and geometry of the minimum below one, by L-BFGS: its line searches look behind walls too."""
    calculator = potential if isinstance(potential, MDGNNCalculator) else FunctionCalculator(potential)
    atoms = Atoms(f"Ar{len(positions)}", positions, calculator=calculator)
    return dynamics.quench(atoms, fmax).energy, atoms.positions


def hop(
    minimize: Minimize, start: Array, rng: np.random.Generator, target: float, hops: int
) -> tuple[float, Array, int]:
    """Basin hopping until an energy is reached: the lowest one, its geometry, and how many hops there were.

    In every other hop, on average, an atom with the fewest neighbours goes to another place on the surface.
    """

    def move(here: Array) -> Array:
        trial = here - here.mean(axis=0)
        radius = np.linalg.norm(trial, axis=1).max()
        trial = trial + rng.uniform(-STEP, STEP, trial.shape)
        if len(here) > 4 and rng.random() < 0.5:
            loose = KDTree(here).query_ball_point(here, 1.4, return_length=True).argmin()
            direction = rng.normal(size=3)
            trial[loose] = radius * direction / np.linalg.norm(direction)
        return apart(trial, 0.8)

    best, count = (math.inf, start), 0
    walk = dynamics.basin_hopping(minimize, apart(start, 0.8), rng, move, TEMPERATURE, _holds_together)
    for count, minimum in enumerate(itertools.islice(walk, hops + 1)):
        if count == 0 or minimum[0] < best[0]:
            best = minimum
        if best[0] < target:
            break
    return *best, count


def _holds_together(before: Array, after: Array) -> bool:
    """No atom has left."""
    radii = [np.linalg.norm(positions - positions.mean(axis=0), axis=1).max() for positions in (before, after)]
    return bool(radii[1] <= radii[0] + 1.5)


def random_start(n: int, rng: np.random.Generator) -> Array:
    """Atoms at random in a sphere of about the density of a cluster, none nearer than 0.8 sigma to another."""
    return apart(in_sphere(n, rng), 0.8)


def built(n: int) -> Array | None:
    """A geometry of 38, 55, 75, 98 or 147 atoms in the basin of the minimum."""
    a = NEAREST * 2**0.5
    if n == 98:
        return leary_tetrahedron()
    if n not in (38, 55, 75, 147):
        return None
    whole = {38: (Octahedron, (4, 1)), 55: (Icosahedron, (3,)), 75: (Decahedron, (2, 2, 1)), 147: (Icosahedron, (4,))}
    shape, numbers = whole[n]
    return np.asarray(shape("Ar", *numbers, a).positions)


def leary_tetrahedron() -> Array:
    """98 atoms: an fcc tetrahedron of 20, four more on its faces without their tips, and a hexagon with its middle over
    each of the six edges. Leary and Doye, Phys. Rev. E 60, R6320 (1999)."""
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * (3 * NEAREST / 8**0.5)
    weights = [w for w in itertools.product(range(4), repeat=4) if sum(w) == 3]
    parts = [np.array(weights) @ corners / 3]
    for k in range(4):  # the mirror image in a face, without what lies in it, and without its tip
        normal = -corners[k] / np.linalg.norm(corners[k])
        above = corners[k - 1] @ normal - parts[0] @ normal
        mirrored = parts[0] + 2 * above[:, None] * normal
        parts.append(mirrored[(above > 1e-6) & (above < above.max() - 1e-6)])
    for i, j in itertools.combinations(range(4), 2):
        outward, along = (v / np.linalg.norm(v) for v in (corners[i] + corners[j], corners[i] - corners[j]))
        angles = np.arange(6)[:, None] * math.pi / 3
        ring = np.cos(angles) * along + np.sin(angles) * np.cross(outward, along)
        parts.append(1.4 * outward + NEAREST * np.vstack([np.zeros(3), ring]))
    return apart(np.vstack(parts), 0.8)


def read_table(path: Path) -> dict[int, float]:
    """Energies by number of atoms."""
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {int(n): float(e) for n, e in rows}


def find(n: int, target: float, smaller: Array | None, rng: np.random.Generator) -> Array:
    """The minimum of n atoms."""
    start = built(n)
    if start is not None:
        e, positions = quench(lennard_jones, start, 1e-7)
        if abs(e - target) < TOLERANCE:
            return positions
    for _ in range(200):
        if smaller is not None and rng.random() < 0.7:
            direction = rng.normal(size=3)
            radius = np.linalg.norm(smaller - smaller.mean(axis=0), axis=1).max()
            extra = smaller.mean(axis=0) + direction / np.linalg.norm(direction) * radius
            start = np.vstack([smaller, extra])
        else:
            start = random_start(n, rng)
        e, positions, _ = hop(partial(quench, lennard_jones), start, rng, target + TOLERANCE, 100)
        e, positions = quench(lennard_jones, positions, 1e-7)
        if abs(e - target) < TOLERANCE:
            return positions
    raise RuntimeError(f"no geometry of {n} atoms with the energy {target}")
