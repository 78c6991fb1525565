"""Splits and batches: laws of who gets which frame."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdgnn.data import EdgeBatches, split

EDGES = st.lists(st.integers(0, 300), min_size=1, max_size=60)
LIMITS = st.tuples(st.one_of(st.none(), st.integers(1, 700)), st.one_of(st.none(), st.integers(1, 20))).filter(any)
OF_A_SAMPLER = {"n_edges": EDGES, "limits": LIMITS, "shuffle": st.booleans(), "seed": st.integers(0, 2**63)}
few = settings(max_examples=60, deadline=None)


def sampler(n_edges, limits, shuffle, seed, **ranks):
    return EdgeBatches(n_edges, max_edges=limits[0], batch_size=limits[1], shuffle=shuffle, seed=seed, **ranks)


@few
@given(**OF_A_SAMPLER, epoch=st.integers(0, 5))
def test_an_epoch_has_every_frame_once_within_the_limits(n_edges, limits, shuffle, seed, epoch):
    batches = sampler(n_edges, limits, shuffle, seed)
    batches.set_epoch(epoch)
    drawn = list(batches)
    assert len(drawn) == len(batches) and all(drawn)
    assert sorted(k for batch in drawn for k in batch) == list(range(len(n_edges)))
    for batch, following in zip(drawn, [*drawn[1:], None], strict=True):
        edges = sum(n_edges[k] for k in batch)
        fits = (limits[0] is None or edges <= limits[0]) and (limits[1] is None or len(batch) <= limits[1])
        assert fits or len(batch) == 1
        if following:  # no batch is smaller than it need be
            full = limits[1] is not None and len(batch) >= limits[1]
            assert full or (limits[0] is not None and edges + n_edges[following[0]] > limits[0])
    if not shuffle:
        assert [k for batch in drawn for k in batch] == list(range(len(n_edges)))


def test_batches_of_a_size_are_counted_without_drawing_them():
    """A run of many epochs drew all of them before it began."""
    batches = sampler([3, 5, 4, 1, 2], (9, 2), True, 0)
    batches._fill = None
    assert len(batches) == 3


@few
@given(**OF_A_SAMPLER, world_size=st.integers(1, 5))
def test_ranks_together_take_the_batches_of_one_process(n_edges, limits, shuffle, seed, world_size):
    if len(n_edges) < world_size:
        with pytest.raises(ValueError, match=f"each of {world_size} ranks"):
            sampler(n_edges, limits, shuffle, seed, world_size=world_size)
        return
    ranks = [list(sampler(n_edges, limits, shuffle, seed, rank=r, world_size=world_size)) for r in range(world_size)]
    assert len({len(batches) for batches in ranks}) == 1 and all(batch for batches in ranks for batch in batches)
    assert len(sampler(n_edges, limits, shuffle, seed, world_size=world_size)) == len(ranks[0]), "before it is drawn"
    joined = [sorted(k for part in parts for k in part) for parts in zip(*ranks, strict=True)]
    assert sorted(k for batch in joined for k in batch) == list(range(len(n_edges))), "disjoint, and all"
    alone = [sorted(batch) for batch in sampler(n_edges, limits, shuffle, seed)]
    if all(len(batch) >= world_size for batch in alone):
        assert joined == alone
    for parts in zip(*ranks, strict=True):  # no rank waits longer than for one frame
        loads = [sum(n_edges[k] for k in part) for part in parts]
        assert max(loads) - min(loads) <= max(n_edges[k] for part in parts for k in part)


@few
@given(**OF_A_SAMPLER, epoch=st.integers(0, 3), data=st.data())
def test_going_on_from_a_state_gives_what_was_left(n_edges, limits, shuffle, seed, epoch, data):
    batches = sampler(n_edges, limits, shuffle, seed)
    batches.set_epoch(epoch)
    whole = list(batches)
    done = data.draw(st.integers(0, len(whole)))
    batches.set_epoch(epoch + 1)
    batches.set_epoch(epoch)
    begun = iter(batches)
    assert [next(begun) for _ in range(done)] == whole[:done]
    state = pickle.loads(pickle.dumps(batches.state_dict()))
    assert state == {"epoch": epoch, "batches": done}
    resumed = sampler(n_edges, limits, shuffle, seed)
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    resumed.set_epoch(epoch)  # as a loop does at the beginning of an epoch
    assert len(resumed) == len(whole) and list(resumed) == whole[done:]
    assert list(resumed) == whole, "an iteration after that has all"
    batches.set_epoch(epoch + 1)
    resumed.set_epoch(epoch + 1)
    assert list(resumed) == list(batches)


def test_epochs_and_seeds_differ_and_ranks_stay_apart():
    n_edges = np.random.default_rng(0).integers(1, 50, 100)
    orders = []
    for seed in (0, 1):
        batches = EdgeBatches(n_edges, max_edges=200, batch_size=None, shuffle=True, seed=seed)
        for epoch in (0, 1):
            batches.set_epoch(epoch)
            orders.append(str(list(batches)))
            assert str(list(batches)) == orders[-1]
    assert len(set(orders)) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_edges": None, "batch_size": None}, "got neither"),
        ({"max_edges": 0}, "max_edges of at least 1"),
        ({"batch_size": 0}, "batch_size of at least 1"),
        ({"rank": 2, "world_size": 2}, "rank from 0 to 1"),
        ({"world_size": 4}, "each of 4 ranks"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        EdgeBatches([3, 3, 3], **{"max_edges": 5, "batch_size": None, "shuffle": True, "seed": 0, **options})


@few
@given(n=st.integers(0, 300), parts=st.lists(st.integers(0, 100), min_size=1, max_size=5), seed=st.integers(0, 2**63))
def test_splits_are_disjoint_sorted_and_repeat(n, parts, seed):
    if sum(parts) > n:
        with pytest.raises(ValueError, match=f"at most {n}"):
            split(n, parts, seed)
        return
    drawn = split(n, parts, seed)
    assert [len(part) for part in drawn] == parts and all(part.dtype == np.int64 for part in drawn)
    together = np.concatenate(drawn)
    assert len(set(together.tolist())) == len(together) and set(together.tolist()) <= set(range(n))
    assert all(np.all(np.diff(part) > 0) for part in drawn)
    assert all(map(np.array_equal, drawn, split(n, parts, seed)))


@few
@given(n=st.integers(0, 1000), seed=st.integers(0, 100))
def test_fractions_leave_nothing_out(n, seed):
    drawn = split(n, [0.8, 0.1, 0.1], seed)
    assert sorted(np.concatenate(drawn).tolist()) == list(range(n))
    assert all(abs(len(part) - f * n) <= 1 for part, f in zip(drawn, (0.8, 0.1, 0.1), strict=True))
    assert len(split(n, [0.5], seed)[0]) == round(n / 2)


def test_splits_follow_the_seed_and_stay_what_they_are():
    assert not np.array_equal(split(100, [0.5], 0)[0], split(100, [0.5], 1)[0])
    first, second = split(12, [4, 8], 0)
    assert (first.tolist(), second.tolist()) == (
        [1, 2, 3, 11],
        [0, 4, 5, 6, 7, 8, 9, 10],
    )  # on every machine: this example must never change


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "sizes of parts with a sum of at most 10, got none"),
        ([5, 6], "sizes of parts with a sum of at most 10, got 5, 6"),
        ([0.8, 0.3], "fractions with a sum of at most 1, got 0.8, 0.3"),
        ([-0.1], "fractions with a sum of at most 1, got -0.1"),
        ([float("nan")], "fractions with a sum of at most 1, got nan"),
    ],
)
def test_fractions_that_are_none(parts, words):
    with pytest.raises(ValueError, match=f"expected {words}$"):
        split(10, parts, 0)
    with pytest.raises(ValueError, match="seed"):
        split(10, [0.5], -1)
