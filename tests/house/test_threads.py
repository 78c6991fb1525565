"""The thread pool of the kernels: forks, callers from several threads, the number of threads."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import mdgnn


def total_distance(n_threads=3):
    """A kernel with work for all threads, and no part of torch, whose own threads do not survive a fork."""
    mdgnn.set_num_threads(n_threads)
    try:
        positions = np.random.default_rng(0).random((6000, 3)) * 12
        return mdgnn.NeighborList(1.2).update(positions).distances.sum()
    finally:
        mdgnn.set_num_threads(None)


def _send(queue):
    queue.put(total_distance())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # forking with threads is what is tested
def test_a_forked_process_has_a_pool_of_its_own():
    expected = total_distance()  # the parent's pool has workers now, which the child has not
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    children = [fork.Process(target=_send, args=(queue,), daemon=True) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [expected, expected]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0


def test_several_python_threads_at_once():
    expected = total_distance()
    with ThreadPoolExecutor(4) as pool:
        assert all(total == expected for total in pool.map(lambda _: total_distance(), range(40)))


def test_number_of_threads():
    mdgnn.set_num_threads(5)
    assert mdgnn.get_num_threads() == 5
    mdgnn.set_num_threads(None)
    assert mdgnn.get_num_threads() == torch.get_num_threads()
    with pytest.raises(ValueError, match="at least one thread, got 0"):
        mdgnn.set_num_threads(0)
