"""Samples: graphs and targets of frames, cached or not, in batches, across processes, from a database."""

import multiprocessing
import pickle

import ase.db
import numpy as np
import pytest
import torch
from ase import Atoms
from labelled import labelled, molecules
from systems import crystal, icosahedron, neighbor_cases, slab, triclinic
from torch.utils.data import DataLoader

from mdgnn import Graph
from mdgnn.data import DataError, Dataset, EdgeBatches, Keys, Sample, collate, read_frames

FIELDS = ("atomic_numbers", "vectors", "row_ptr", "senders", "structure", "cells")
CUTOFF = 2.5


def same_bits(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def same_graph(a, b):
    return all(same_bits(getattr(a, name), getattr(b, name)) for name in FIELDS)


def frames():
    """Clusters and periodic systems of one element."""
    systems = [icosahedron(2, 0.05), crystal(), slab(), triclinic(True), triclinic((True, False, True)), Atoms("Ar")]
    return [labelled(a, float(-k), seed=k, stress=a.pbc.all(), weight=k + 1.0) for k, a in enumerate(systems)]


@pytest.mark.parametrize(
    ("atoms", "cutoff"),
    [pytest.param(a, c, id=name) for name, a, c in neighbor_cases() if name != "duplicate-positions"],
)
def test_cached_graphs_equal_fresh_ones_bit_for_bit(atoms, cutoff):
    fresh = Graph.from_atoms(atoms, cutoff)
    for cache in (True, False):
        data = Dataset([atoms], cutoff, cache=cache)
        assert same_graph(data[0].graph, fresh) and same_graph(data[0].graph, fresh), "also the second time"
        assert data.n_edges.tolist() == [fresh.n_edges] and data.n_atoms.tolist() == [len(atoms)]
        lengths = torch.linalg.vector_norm(fresh.vectors, dim=1)
        assert data.shortest == pytest.approx(float(lengths.min()) if len(lengths) else np.inf, rel=1e-15)


def test_shifts_beyond_a_byte_and_zeros_with_signs():
    far = Atoms("Ar2", [[0, 0, 0], [1.0, 0, 500 * 4.0]], cell=[4, 4, 4], pbc=True)
    signed = Atoms("Ar2", [[0.0, -0.0, 0.0], [-0.0, 0.0, 1.0]], cell=-10 * np.eye(3), pbc=True)
    for atoms in (far, signed, Atoms("Ar2", signed.positions)):
        assert same_graph(Dataset([atoms], 2.0)[0].graph, Graph.from_atoms(atoms, 2.0))


@pytest.mark.parametrize("cache_bytes", [0, 3000, 2**31])
def test_a_small_cache_changes_nothing(cache_bytes):
    data = Dataset(frames(), CUTOFF, cache_bytes=cache_bytes)
    assert data._lists.n_bytes <= cache_bytes
    kept = [data._lists.get(k, int(n)) is not None for k, n in enumerate(data.n_atoms)]
    assert {0: not any(kept), 3000: any(kept) and not all(kept), 2**31: all(kept)}[cache_bytes]
    for k, atoms in enumerate(frames()):
        assert same_graph(data[k].graph, Graph.from_atoms(atoms, CUTOFF))
    assert data.elements == [18] and len(data) == 6


def test_collate_equals_the_graph_of_all():
    data = Dataset(frames(), CUTOFF)
    batch = collate([data[k] for k in range(6)])
    assert same_graph(batch.graph, Graph.from_atoms(frames(), CUTOFF))
    t, counts = batch.targets, data.n_atoms.tolist()
    assert t.energy.tolist() == [0, -1, -2, -3, -4, -5] and t.weight.tolist() == [1, 2, 3, 4, 5, 6]
    assert np.array_equal(t.forces, np.concatenate([a.calc.results["forces"] for a in frames()]))
    assert t.stress.shape == (6, 3, 3) and t.stress.isnan().all(dim=(1, 2)).tolist() == [1, 0, 1, 0, 1, 1]
    assert torch.equal(t.stress[3], data[3].targets.stress[0]) and len(t.forces) == sum(counts)
    assert all(x.dtype == torch.float64 for x in (t.energy, t.forces, t.stress, t.weight))
    alone = collate([data[0], data[2]]).targets
    assert alone.stress is None, "none has it"


def test_missing_and_extra_labels_in_a_batch():
    keys = Keys(extra=("gap", "charges", "shifts"))
    some = molecules(3)
    del some[0].calc.results["forces"], some[1].calc.results["energy"]
    some[1].info["gap"] = 0.5
    some[2].arrays["charges"] = np.arange(float(len(some[2])))
    some[2].arrays["shifts"] = np.ones((len(some[2]), 2))
    data = Dataset(some, CUTOFF, keys=keys)
    t = collate([data[k] for k in range(3)]).targets
    n = data.n_atoms
    assert t.energy.isnan().tolist() == [False, True, False]
    assert t.forces.isnan().all(dim=1).tolist() == [True] * n[0] + [False] * (n[1] + n[2])
    assert t.extra["gap"].shape == (3,) and t.extra["gap"].isnan().tolist() == [True, False, True]
    assert t.extra["charges"].shape == (n.sum(),) and t.extra["charges"][-n[2] :].tolist() == list(range(n[2]))
    assert t.extra["shifts"].shape == (n.sum(), 2) and int(t.extra["shifts"].isnan().sum()) == 2 * (n[0] + n[1])
    some[0].info["charges"] = 1.0  # of a structure here, of atoms there
    mixed = Dataset(some, CUTOFF, keys=keys)
    with pytest.raises(ValueError, match="'charges'"):
        collate([mixed[0], mixed[2]])
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_samples_move_and_are_of_the_callers_own():
    data = Dataset(frames(), CUTOFF)
    sample = data[1]
    moved = sample.to("cpu")
    assert isinstance(moved, Sample) and same_graph(moved.graph, sample.graph)
    for tensor in (sample.graph.row_ptr, sample.graph.senders, sample.graph.vectors, sample.targets.forces):
        tensor.zero_()
    assert same_graph(data[1].graph, Graph.from_atoms(frames()[1], CUTOFF))
    assert data[1].targets.forces.abs().sum() > 0


def test_subsets():
    data = Dataset(molecules(8), CUTOFF)
    part = data.subset(np.array([5, 2, 7]))
    assert len(part) == 3 and [part[k].targets.energy.item() for k in range(3)] == [-6, -3, -8]
    assert part.n_edges.tolist() == data.n_edges[[5, 2, 7]].tolist()
    assert np.array_equal(part.subset([1]).frame(0).positions, data.frame(2).positions)
    assert data.subset([0]).elements == np.unique(molecules(1)[0].numbers).tolist()
    assert part.shortest == min(data.subset([k]).shortest for k in (2, 5, 7))
    with pytest.raises(IndexError):
        part[3]
    data.frame(2).positions += 1  # of the caller's own
    assert data.frame(2).calc is not None and same_graph(data[2].graph, Graph.from_atoms(molecules(8)[2], CUTOFF))


def fill(path, n):
    with ase.db.connect(path) as db:
        for frame in molecules(n):
            db.write(frame)


def test_a_database_larger_than_the_cache_streams(tmp_path):
    """No frame stays in memory, and few lists; a row is read when its sample is wanted."""
    fill(tmp_path / "x.db", 12)
    data = Dataset(read_frames([tmp_path / "x.db"]), CUTOFF, cache_bytes=600)
    assert len(pickle.dumps(data)) < 6000 and 0 < data._lists.n_bytes <= 600
    for k, atoms in enumerate(molecules(12)):
        assert same_graph(data[k].graph, Graph.from_atoms(atoms, CUTOFF))
        assert np.array_equal(data[k].targets.forces, atoms.calc.results["forces"])
    with ase.db.connect(tmp_path / "x.db") as db:
        db.update(5, atoms=molecules(1, seed=77)[0])
    with pytest.raises(DataError, match=r"x\.db was changed after it was read"):
        data[4]


def _energies(data, queue):
    queue.put([data[k].targets.energy.item() for k in range(len(data))])


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("source", ["memory", "database"])
def test_forks_and_pickles_see_the_same(tmp_path, source):
    fill(tmp_path / "x.db", 6)
    data = Dataset(molecules(6) if source == "memory" else read_frames([tmp_path / "x.db"]), CUTOFF)
    assert data[0].targets.energy == -1
    again = pickle.loads(pickle.dumps(data))
    assert all(same_graph(again[k].graph, data[k].graph) for k in range(6))
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    children = [fork.Process(target=_energies, args=(data, queue), daemon=True) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [[-1, -2, -3, -4, -5, -6]] * 2
    for child in children:
        child.join(timeout=60)


def test_data_loader():
    data = Dataset(molecules(9), CUTOFF)
    batches = EdgeBatches(data.n_edges, max_edges=60, batch_size=None, shuffle=True, seed=3)
    loaded = list(DataLoader(data, batch_sampler=batches, collate_fn=collate))
    assert len(loaded) == len(batches) > 1
    assert sorted(e for sample in loaded for e in sample.targets.energy.tolist()) == [
        -9,
        -8,
        -7,
        -6,
        -5,
        -4,
        -3,
        -2,
        -1,
    ]
    assert all(sample.graph.n_edges <= 60 for sample in loaded)


def test_frames_that_are_no_structures():
    with pytest.raises(DataError, match="frame 1: the position of atom 0"):
        Dataset([molecules(1)[0], Atoms("H", [[np.nan, 0, 0]])], CUTOFF)
    with pytest.raises(ValueError, match="cutoff"):
        Dataset(molecules(1), 0.0)
