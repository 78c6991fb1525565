"""Differential test of the neighbour list: random systems against an independent brute force, bit for bit.

    python tests/support/fuzz_neighbors.py --count 100000 --seed 0     (or: make fuzz)

The brute force tries every image of every pair in numpy. It shares one thing with the kernel: the formula of a distance
and its order of operations, D = (r_j - r_i) + ((S0 a + S1 b) + S2 c), so that decisions at the cutoff must agree too.
A sample is compared with ASE's list, too.
"""

import argparse
import itertools
import sys
import time

import numpy as np

from mdgnn import _C

LARGEST = 500_000  # (pairs + 200) x images that a brute force may take


def random_cell(rng):
    """Any parallelepiped: usual, left-handed, skewed down to 5 degrees, flat or a needle."""
    kind = rng.choice(["box", "triclinic", "skewed", "flat", "needle"])
    cell = np.diag(rng.uniform(0.5, 4, 3))
    if kind == "triclinic":
        cell = rng.normal(0, 1, (3, 3)) * rng.uniform(0.5, 4, 3)[:, None]
        if abs(np.linalg.det(cell)) < 0.05 * np.prod(np.linalg.norm(cell, axis=1)):
            cell += 3 * np.eye(3)
    if kind == "skewed":
        angle = np.radians(rng.uniform(5, 40))
        cell[1, :2] = np.linalg.norm(cell[1]) * np.array([np.cos(angle), np.sin(angle)])
    if kind == "flat":
        cell[2] *= rng.choice([0.05, 0.005])
    if kind == "needle":
        cell[0] *= 30
    cell = cell[rng.permutation(3)]  # half of the permutations are left-handed
    if rng.random() < 0.3:
        cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return cell


def random_system(rng):
    """Positions, cell, pbc and cutoff; float32 or float64."""
    while True:
        cell, pbc = random_cell(rng), rng.random(3) < 0.6
        n = int(rng.choice([0, 1, 2, rng.integers(3, 20), rng.integers(20, 80), rng.integers(80, 301)]))
        fractional = rng.random((n, 3))
        if rng.random() < 0.2:
            fractional = np.round(fractional * 4) / 4  # a lattice: many distances are equal
        if n > 1 and rng.random() < 0.2:  # duplicates, and atoms that all but touch
            fractional[rng.integers(n)] = fractional[0]
            fractional[rng.integers(n)] = fractional[0] + 1e-9
        if rng.random() < 0.3:
            fractional += rng.integers(-1, 2, (n, 3)) * rng.choice([1, 1000])
        positions = fractional @ cell + rng.choice([0, 0, 1e3]) * rng.normal(size=3)
        if not pbc.all() and rng.random() < 0.2:
            positions *= rng.choice([1, 20, 1e4])  # vacuum
        volume = abs(np.linalg.det(cell))
        cutoff = float(rng.choice([0.01, 0.3, 1, 2, 4]) * rng.uniform(0.8, 1.2) * np.cbrt(volume))
        if rng.random() < 0.2 and n > 1:  # one of the distances themselves
            cutoff = float(np.linalg.norm(positions[0] - positions[1])) or cutoff
        if not pbc.any() and rng.random() < 0.1:
            cutoff = np.inf
        dtype = rng.choice([np.float32, np.float64])
        system = positions.astype(dtype), np.ascontiguousarray(cell, dtype=dtype), pbc, float(dtype(cutoff))
        largest = LARGEST * (8 if rng.random() < 0.1 else 1)
        if system[3] > 0 and (n * n + 200) * np.prod([2.0 * m + 1 for m in image_range(*system)]) <= largest:
            return system


def image_range(positions, cell, pbc, cutoff):
    """Bounds on the images to try, with room for rounding."""
    if not pbc.any():
        return [0, 0, 0]
    basis = cell.astype(float).copy()
    for k in range(3):
        if not pbc[k]:  # any direction out of the plane of the others
            others = [basis[m] for m in range(3) if m != k and pbc[m]]
            basis[k] = np.linalg.svd(np.array(others))[2][-1]
            if len(others) == 1 and k > 0 and not pbc[:k].all():
                basis[k] = np.cross(others[0], basis[next(m for m in range(k) if not pbc[m])])
    heights = 1 / np.linalg.norm(np.linalg.inv(basis), axis=0)
    room = 1e3 * np.finfo(positions.dtype).eps * (np.abs(positions).max(initial=1) + np.abs(cell).max())
    return [int((cutoff + room) / h) + 2 if p else 0 for h, p in zip(heights, pbc, strict=True)]


def brute_force(positions, cell, pbc, cutoff):
    """i, j, S, D, d in canonical order."""
    n, box = len(positions), np.where(pbc[:, None], cell, 0).astype(positions.dtype)
    basis = np.where(pbc[:, None], cell, 0).astype(float)
    wraps = np.floor(positions.astype(float) @ np.linalg.pinv(basis)).astype(np.int64) * pbc
    by_image = []
    for image in itertools.product(*(range(-m, m + 1) for m in image_range(positions, cell, pbc, cutoff))):
        shifts = np.array(image) + wraps[:, None] - wraps[None, :]
        s = shifts.astype(positions.dtype)
        offset = (s[..., :1] * box[0] + s[..., 1:2] * box[1]) + s[..., 2:] * box[2]
        vectors = (positions[None, :] - positions[:, None]) + offset
        x, y, z = np.moveaxis(vectors, 2, 0)
        distances = np.sqrt((x * x + y * y) + z * z)
        near = distances < positions.dtype.type(cutoff)
        near &= shifts.any(axis=2) | ~np.eye(n, dtype=bool)
        i, j = np.nonzero(near)
        by_image.append((i, j, shifts[i, j], vectors[i, j], distances[i, j]))
    i, j, shifts, vectors, distances = (np.concatenate(part) for part in zip(*by_image, strict=True))
    order = np.lexsort((*shifts.T[::-1], j, i))
    return i[order], j[order], shifts[order], vectors[order], distances[order]


def ours(systems, half=False, quantities="pijSDd", n_threads=1, index_bytes=8, self_interaction=False):
    """The kernel's answer for systems of one dtype, in one batch."""
    positions = np.concatenate([s[0] for s in systems])
    first = np.cumsum([0, *(len(s[0]) for s in systems)])
    cells, pbc = np.array([s[1] for s in systems]), np.array([s[2] for s in systems])
    how = {"self_interaction": self_interaction, "half": half, "n_threads": n_threads, "index_bytes": index_bytes}
    return _C.neighbors(quantities, positions, cells, pbc, first, cutoff=systems[0][3], **how)


def refused(systems):
    """Whether one of them is refused, as two kinds are by design: too far away, or too skewed."""
    try:
        ours(systems, quantities="p")
    except ValueError as error:
        if "a billion cells away" in str(error) or "a cell less skewed" in str(error):
            return True
        raise
    return False


def check(system):
    """The number of edges, None for a system that is refused; raises AssertionError where the two differ."""
    if refused([system]):
        return None
    row_ptr, *edges, reverse = ours([system], quantities="pijSDdr")
    expected = brute_force(*system)
    for a, b in zip(edges, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.diff(row_ptr), np.bincount(expected[0], minlength=len(system[0])))
    i, j, shifts = expected[:3]
    for a, b in ((i[reverse], j), (j[reverse], i), (shifts[reverse], -shifts)):
        np.testing.assert_array_equal(a, b)
    leading = np.where(shifts[:, 0] != 0, shifts[:, 0], np.where(shifts[:, 1] != 0, shifts[:, 1], shifts[:, 2]))
    upper = (i < j) | ((i == j) & (leading > 0))
    with_self = ours([system], quantities="ij", self_interaction=True)
    assert len(with_self[0]) == len(i) + len(system[0])
    for a, b in zip(with_self, (i, j), strict=True):
        np.testing.assert_array_equal(a[with_self[0] != with_self[1]], b[i != j])
    for a, b in zip(ours([system], half=True)[1:], expected, strict=True):
        np.testing.assert_array_equal(a, b[upper])
    return len(i)


def ase_can(system):
    """Whether ASE's list takes these: it tries all images within 3 units of length, in memory for all at once."""
    positions, cell, pbc, cutoff = system
    if positions.dtype != np.float64 or not len(positions) or not np.isfinite(cutoff):
        return False
    with np.errstate(all="ignore"):
        heights = abs(np.linalg.det(cell)) / np.linalg.norm(
            np.cross(np.roll(cell, -1, 0), np.roll(cell, -2, 0)), axis=1
        )
        images = np.where(pbc, 2 * np.ceil(max(cutoff, 3.0) / heights) + 1, 1.0).prod()
    return bool(images * len(positions) < 1e6)


def check_ase(system):
    """ASE's list has the same edges, but for those within its own rounding of the cutoff."""
    from ase.neighborlist import primitive_neighbor_list

    positions, cell, pbc, cutoff = system
    tolerance = 1e-9 * (np.abs(positions).max(initial=1.0) + np.abs(cell).max() + cutoff)
    edges = []
    for arrays in (ours([system])[1:], primitive_neighbor_list("ijSDd", pbc, cell, positions, cutoff + tolerance)):
        i, j, shifts, _, distances = arrays
        clear = distances < cutoff - tolerance
        edges.append(np.unique(np.column_stack([i, j, shifts])[clear], axis=0))
        assert len(edges[-1]) == clear.sum()
    np.testing.assert_array_equal(*edges)


def check_batch(systems):
    """A batch is its structures one after the other; one cutoff for all."""
    systems = [(*s[:3], systems[0][3]) for s in systems if s[0].dtype == systems[0][0].dtype]
    if not np.isfinite(systems[0][3]):
        systems = [s for s in systems if not s[2].any()]
    fine = [s for s in systems if not refused([s])]
    assert refused(systems) == (len(fine) < len(systems))
    if not fine:
        return
    systems = fine
    together, offset = ours(systems, n_threads=2, index_bytes=4), 0
    singles = []
    for s in systems:
        _, i, j, *rest = ours([s])
        singles.append((i + offset, j + offset, *rest))
        offset += len(s[0])
    for a, parts in zip(together[1:], zip(*singles, strict=True), strict=True):
        np.testing.assert_array_equal(a, np.concatenate(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start, edges, n_refused, recent = time.time(), 0, 0, []
    for number in range(arguments.count):
        system = random_system(np.random.default_rng([arguments.seed, number]))
        recent = [*recent[-3:], system]
        try:
            n_edges = check(system)
            edges, n_refused = edges + (n_edges or 0), n_refused + (n_edges is None)
            if number % 50 == 49 and n_edges is not None and ase_can(system):
                check_ase(system)
            if number % 10 == 9 and system[3] * 2 < min(s[3] for s in recent) * 20:
                check_batch(recent[::-1])
        except AssertionError as error:
            print(f"seed {arguments.seed}, system {number}: {error}")
            return 1
        if number % 1000 == 999:
            print(f"{number + 1} systems, {edges} edges, {time.time() - start:.0f} s", flush=True)
    print(f"seed {arguments.seed}: {arguments.count} systems, {n_refused} refused, {edges} edges, no mismatch")
    return 0


if __name__ == "__main__":
    sys.exit(main())
