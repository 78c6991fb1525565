"""Which frames go together: splits of a data set, and batches by number of edges, of one process or of several."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def split(n: int, fractions: Sequence[float] | Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Numbers 0 .. n - 1 drawn into disjoint parts, each sorted; the same for a seed on every machine.

    Parameters
    ----------
    n : int
        Size of the whole.
    fractions : sequence of float or of int
        Floats are fractions of n, with a sum of at most 1; integers are sizes, with a sum of at most n.
    seed : int
        At least 0.

    Raises
    ------
    ValueError
    """
    parts = list(fractions)
    sizes = all(isinstance(part, (int, np.integer)) for part in parts)
    total = sum(parts)
    most = n if sizes else 1 + 1e-9
    if not parts or not all(np.isfinite(part) and part >= 0 for part in parts) or total > most:
        words = f"sizes of parts with a sum of at most {n}" if sizes else "fractions with a sum of at most 1"
        raise ValueError(f"expected {words}, got {', '.join(f'{part:g}' for part in parts) or 'none'}")
    # Rounded ends of parts, rather than sizes: fractions with the sum 1 leave nothing out.
    ends = np.cumsum(parts) if sizes else np.rint(np.minimum(np.cumsum(parts), 1) * n).astype(np.int64)
    order = _shuffled(n, seed, 0)
    return [np.sort(part) for part in np.split(order, ends)[: len(parts)]]


def _shuffled(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation from raw bits of PCG64: numpy keeps those, but not what its `permutation` makes of them."""
    if seed < 0 or epoch < 0:
        raise ValueError(f"expected a seed and an epoch of at least 0, got {seed} and {epoch}")
    order: NDArray[np.int64] = np.argsort(np.random.PCG64([seed, epoch]).random_raw(n), kind="stable")
    return order.astype(np.int64)


class EdgeBatches:
    """A batch sampler: lists of frame numbers, each frame once in an epoch.

    A batch is filled in order until the next frame would take it beyond `max_edges` or `batch_size`; a frame that has
    more edges alone is a batch alone. The order depends on seed and epoch only. With several processes each batch is
    shared out, so that all ranks together take the batches of one process; every rank gets at least one frame of each,
    and for that batches of fewer frames than ranks are joined with others, beyond the limits if need be.

    Parameters
    ----------
    n_edges : (n,) int
        Of each frame.
    max_edges, batch_size : int or None
        The most edges and frames of a batch, of all ranks together; at least one is needed.
    shuffle : bool
        A new order in every epoch, or always that of the frames.
    seed : int
    rank, world_size : int

    Raises
    ------
    ValueError
        For limits below 1, or fewer frames than ranks.
    """

    def __init__(
        self,
        n_edges: ArrayLike,
        *,
        max_edges: int | None,
        batch_size: int | None,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._n_edges = np.asarray(n_edges, dtype=np.int64)
        if max_edges is None and batch_size is None:
            raise ValueError("expected max_edges or batch_size, got neither")
        for name, limit in (("max_edges", max_edges), ("batch_size", batch_size)):
            if limit is not None and limit < 1:
                raise ValueError(f"expected {name} of at least 1, got {limit}")
        if not 0 <= rank < world_size:
            raise ValueError(f"expected a rank from 0 to {world_size - 1}, got {rank}")
        if len(self._n_edges) < world_size:
            raise ValueError(f"expected at least one frame for each of {world_size} ranks, got {len(self._n_edges)}")
        self._max_edges, self._batch_size = max_edges, batch_size
        self._least = max(batch_size or 1, world_size)  # frames of a full batch
        most = np.sort(self._n_edges)[-self._least :].sum()
        self._edges_bind = batch_size is None or (max_edges is not None and most > max_edges)
        self._shuffle, self._seed = shuffle, seed
        self._rank, self._world_size = rank, world_size
        self.epoch = 0
        self._start = self._handed_out = 0
        self._plan: tuple[int, list[list[int]]] = (-1, [])  # of an epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; another than the present one begins at its first batch."""
        if epoch != self.epoch:
            self.epoch, self._start, self._handed_out = int(epoch), 0, 0

    def __len__(self) -> int:
        """Batches of this epoch, those handed out included."""
        return len(self._batches()) if self._edges_bind else self._by_size()

    def __iter__(self) -> Iterator[list[int]]:
        batches = self._batches()
        begin, self._start = self._start, 0  # a state counts once, for the iteration that goes on from it
        self._handed_out = begin
        for batch in batches[begin:]:
            self._handed_out += 1
            yield self._share(batch)

    def state_dict(self) -> dict[str, Any]:
        """The epoch, and how many of its batches have been handed out."""
        return {"epoch": self.epoch, "batches": self._handed_out}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration gives the batches that were left; none, if that epoch was at its end."""
        self.epoch = int(state["epoch"])
        self._start = self._handed_out = int(state["batches"])

    def _batches(self) -> list[list[int]]:
        """Of all ranks together."""
        if self._plan[0] != self.epoch:
            self._plan = (self.epoch, self._fill())
        return self._plan[1]

    def _by_size(self) -> int:
        """Batches, whatever the order: where no batch of full size has too many edges."""
        n, rest = divmod(len(self._n_edges), self._least)
        return n + (rest >= self._world_size)  # fewer are joined with the batch before

    def _fill(self) -> list[list[int]]:
        n = len(self._n_edges)
        order = _shuffled(n, self._seed, self.epoch) if self._shuffle else np.arange(n)
        batches: list[list[int]] = []
        edges = 0
        for k, more in zip(order.tolist(), self._n_edges[order].tolist(), strict=True):
            full = not batches or (
                len(batches[-1]) >= self._world_size
                and (
                    (self._max_edges is not None and edges + more > self._max_edges)
                    or (self._batch_size is not None and len(batches[-1]) >= self._batch_size)
                )
            )
            if full:
                batches.append([])
                edges = 0
            batches[-1].append(k)
            edges += more
        if len(batches) > 1 and len(batches[-1]) < self._world_size:
            batches[-2:] = [batches[-2] + batches[-1]]
        return batches

    def _share(self, batch: list[int]) -> list[int]:
        """This rank's frames of a batch, in its order; the largest are dealt out first, to whoever has least."""
        if self._world_size == 1:
            return list(batch)
        load = [(0, 0, rank) for rank in range(self._world_size)]  # edges, frames
        mine = set()
        for k in sorted(batch, key=lambda k: (-int(self._n_edges[k]), k)):
            edges, frames, rank = min(load)
            load[rank] = (edges + int(self._n_edges[k]), frames + 1, rank)
            if rank == self._rank:
                mine.add(k)
        return [k for k in batch if k in mine]
