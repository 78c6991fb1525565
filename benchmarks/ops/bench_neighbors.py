"""Neighbour list: every pair within 3.5 sigma (diamond: 6 A, triclinic: 3 cells), one thread unless said

"write fresh" is the floor of an interface that returns fresh arrays: the same arrays, filled in pages that the system
has just given. "rewrite" fills arrays that are there. Ours, vesin and numpy reuse the memory of results that have been
freed, so they may go below the first, never below the second. MB moved are the bytes of the result. Rows of "results
kept" and of a million atoms are timed without a warm-up: what earlier calls have freed would serve the first ones.
"""

import mmap
from functools import cache

import numpy as np
import pytest
import torch
from clusters import CUTOFF, icosahedron

import mdgnn
from mdgnn import ops

ase_neighborlist = pytest.importorskip("ase.neighborlist")
matscipy_neighbours = pytest.importorskip("matscipy.neighbours")
vesin = pytest.importorskip("vesin")

LIQUIDS, CLUSTERS = (108, 500, 2048, 8788, 32000, 97556), (13, 55, 147, 561, 6525)
MINUTES = {"liquid 8788", "liquid 32000", "liquid 97556", "shuffled liquid 32000", "diamond 50000"}  # for ASE
FLOORS = ["write fresh", "rewrite"]
BYTES = {"i": 8, "j": 8, "S": 24, "D": 24}


def crystal(motif, lattice_constant, repeats, displacement):
    """A cubic crystal, cell by cell, with atoms displaced at random."""
    cells = np.stack(np.meshgrid(*map(np.arange, repeats), indexing="ij"), -1).reshape(-1, 1, 3)
    r = ((cells + motif).reshape(-1, 3)) * lattice_constant
    r += np.random.default_rng(0).normal(0, displacement, r.shape)
    return r, np.diag(np.array(repeats) * lattice_constant)


@cache
def system(name):
    """Positions, cell, pbc and cutoff."""
    kind, _, n = name.rpartition(" ")
    fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    if "liquid" in kind:
        m = round((int(n) / 4) ** (1 / 3))
        r, cell = crystal(fcc, (4 / 0.8442) ** (1 / 3), (m, m, m), 0.15)
        return np.random.default_rng(1).permutation(r) if kind[0] == "s" else r, cell, [True] * 3, CUTOFF
    if kind == "icosahedron":
        return icosahedron(int(n)), np.zeros((3, 3)), [False] * 3, CUTOFF
    if kind == "diamond":
        r, cell = crystal(np.concatenate([fcc, fcc + 0.25]), 3.567, (25, 25, 10), 0.05)
        return r, cell, [True] * 3, 6.0
    if kind == "slab":
        r, cell = crystal(fcc, 1.55, (20, 20, 4), 0.05)
        return r, cell + np.diag([0, 0, 40]), [True, True, False], CUTOFF
    cell = np.array([[3.0, 0.2, -0.3], [0.9, 2.8, 0.1], [-0.6, 0.7, 3.2]])
    return np.random.default_rng(0).random((12, 3)) @ cell, cell, [True] * 3, 9.0


SYSTEMS = [
    *(f"liquid {n}" for n in LIQUIDS),
    "shuffled liquid 32000",
    *(f"icosahedron {n}" for n in CLUSTERS),
    "diamond 50000",
    "slab 6400",
    "triclinic 12",
]


def fresh(n_bytes):
    """Pages that nobody has touched; huge ones where numpy would ask for them."""
    pages = mmap.mmap(-1, n_bytes)
    if n_bytes >= 1 << 22:
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype=np.uint8)


def fill(array):
    array[: len(array) // 8 * 8].view(np.int64).fill(1)
    return array


def codes(name, quantities, n_edges):
    r, cell, pbc, cutoff = system(name)

    peer = vesin.NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    box = {"cell": cell}
    if not any(pbc):  # matscipy wants a box
        box = {"cell": np.diag(np.ptp(r, axis=0) + 2), "cell_origin": r.min(0) - 1}
    box |= {"pbc": pbc, "cutoff": cutoff}

    bytes_of = [max(1, n_edges * BYTES[q]) for q in quantities]
    there = [np.empty(n, dtype=np.uint8) for n in bytes_of]

    return {
        "ours": lambda: mdgnn.primitive_neighbor_list(quantities, pbc, cell, r, cutoff),
        "vesin": lambda: peer.compute(r, cell, pbc, quantities),
        "matscipy": lambda: matscipy_neighbours.neighbour_list(quantities, positions=r, **box),
        "ASE": lambda: ase_neighborlist.primitive_neighbor_list(quantities, pbc, cell, r, cutoff),
        "write fresh": lambda: [fill(fresh(n)) for n in bytes_of],
        "rewrite": lambda: [fill(array) for array in there],
    }


@pytest.fixture
def one_thread():
    mdgnn.set_num_threads(1)
    yield
    mdgnn.set_num_threads(None)


@pytest.mark.parametrize("name", SYSTEMS)
def test_everything(timed, one_thread, name):
    _time(timed, name, "ijSD", ["vesin", "matscipy", *(["ASE"] if name not in MINUTES else []), *FLOORS])


@pytest.mark.parametrize("name", SYSTEMS)
def test_pairs(timed, one_thread, name):
    _time(timed, name, "ij", ["vesin", "matscipy", *FLOORS])


def _time(timed, name, quantities, peers):
    n_edges = len(mdgnn.primitive_neighbor_list("i", *(system(name)[k] for k in (2, 1, 0, 3))))
    functions = {code: f for code, f in codes(name, quantities, n_edges).items() if code in ("ours", *peers)}
    for code in ("ours", "vesin", "matscipy"):
        assert len(functions[code]()[0]) == n_edges
    moved = n_edges * sum(BYTES[q] for q in quantities)
    slow = ["ASE"] if n_edges > 500_000 else []
    timed(functions, f"{quantities}, {name}", len(system(name)[0]), n_edges, moved, once=slow)


def test_a_million_atoms(timed, one_thread):
    r, cell, pbc, cutoff = system("liquid 1000188")
    make = {"ours": lambda: mdgnn.primitive_neighbor_list("ij", pbc, cell, r, cutoff)}
    n_edges = len(make["ours"]()[0])
    timed(make, "ij, liquid 1000188", len(r), n_edges, 16 * n_edges, rounds=3)


@pytest.mark.parametrize(
    "change", ["as it is", "far from the origin", "in vacuum", "stretched", "unwrapped by 1,000 cells"]
)
def test_shapes(timed, one_thread, change):
    """Nearly the same number of pairs each."""
    r, cell, pbc, cutoff = system("liquid 8788")
    if change.startswith("far"):
        r = r + 1e6
    if change.startswith("unwrapped"):
        r = r + np.random.default_rng(0).integers(-1000, 1000, r.shape) @ cell
    if change == "in vacuum":  # with one atom far away
        pbc, r = [False] * 3, np.concatenate([r, [[1e6, 1e6, 1e6]]])
    if change.startswith("stretched"):
        fcc = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
        r, cell = crystal(fcc, (4 / 0.8442) ** (1 / 3), (3, 3, 244), 0.15)
    make = {"ours": lambda: mdgnn.primitive_neighbor_list("ijSD", pbc, cell, r, cutoff)}
    n_edges = len(make["ours"]()[0])
    timed(make, f"ijSD, liquid {len(r)} {change}", len(r), n_edges, 64 * n_edges)


@pytest.mark.parametrize("name", ["liquid 2048", "liquid 32000"])
def test_results_that_are_kept(timed, one_thread, name):
    """No result is freed before the last one is made: each has to find fresh memory, up to 1 GB for each code."""
    functions = codes(name, "ijSD", 0)
    n_edges = len(functions["vesin"]()[0])
    moved = n_edges * sum(BYTES.values())
    np.ones(10**9 // 4)  # 2 GB: what the machine has not handed out yet would be paid for by whoever comes first
    kept = []
    keeping = {code: lambda make=functions[code]: kept.append(make()) for code in ("ours", "vesin")}
    timed(keeping, f"ijSD, results kept, {name}", len(system(name)[0]), n_edges, moved, rounds=10**9 // moved)
    assert all(len(result[0]) == n_edges for result in kept)


@pytest.mark.parametrize("name", ["liquid 2048", "liquid 8788", "liquid 32000", "liquid 97556"])
def test_pairs_on_two_threads(timed, one_thread, name):
    r, cell, pbc, cutoff = system(name)
    n_edges = len(mdgnn.primitive_neighbor_list("i", pbc, cell, r, cutoff))

    def pairs(n_threads):
        mdgnn.set_num_threads(n_threads)
        return mdgnn.primitive_neighbor_list("ij", pbc, cell, r, cutoff)

    functions = {"ours": lambda: pairs(2), "1 thread": lambda: pairs(1)}
    timed(functions, f"ij on 2 threads, {name}", len(r), n_edges, 16 * n_edges)


@pytest.mark.parametrize("name", ["liquid 2048", "liquid 32000"])
def test_the_narrowest_list(timed, one_thread, name):
    """Row pointers, int32 senders and shifts, float32 vectors: 28 bytes an edge."""
    r, cell, pbc, cutoff = system(name)
    arguments = (torch.tensor(r, dtype=torch.float32), torch.tensor(cell, dtype=torch.float32), torch.tensor(pbc))
    make = lambda: ops.neighbors(*arguments, cutoff, want=("vectors",), index_dtype=torch.int32)  # noqa: E731
    n_edges = len(make().senders)

    there = [np.empty(4 * k * n_edges, dtype=np.uint8) for k in (1, 3, 3)]
    floors = {
        "write fresh": lambda: [fill(fresh(len(array))) for array in there],
        "rewrite": lambda: [fill(array) for array in there],
    }
    timed({"ours": make, **floors}, f"jSD in 32 bits, {name}", len(r), n_edges, 28 * n_edges)


def test_a_batch_of_molecules(timed, one_thread):
    """1,024 molecules of 15 atoms: one call, and a call for each where there are no batches."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(3), np.arange(3), np.arange(2)), -1).reshape(-1, 3)[:15] * 1.1
    molecules = [grid + rng.normal(0, 0.1, grid.shape) for _ in range(1024)]
    arguments = (
        torch.tensor(np.concatenate(molecules)),
        torch.zeros(1024, 3, 3, dtype=torch.float64),
        torch.zeros(1024, 3, dtype=torch.bool),
    )
    first = torch.arange(1025) * 15
    peer = vesin.NeighborList(cutoff=CUTOFF, full_list=True, n_threads=1)
    functions = {
        "ours": lambda: ops.neighbors(*arguments, CUTOFF, first_atom=first, want=("receivers", "vectors")),
        "vesin": lambda: [peer.compute(r, np.zeros((3, 3)), False, "ijSD") for r in molecules],
    }
    n_edges = len(functions["ours"]().senders)
    assert sum(len(edges[0]) for edges in functions["vesin"]()) == n_edges
    timed(functions, "ijSD, 1,024 molecules of 15", 15 * 1024, n_edges)
