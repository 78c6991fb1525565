"""The batches of a whole run, one after another, from any place in it."""

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from mdgnn.data import Dataset, EdgeBatches, Sample, collate


class Place(NamedTuple):
    """Where a batch stands: its epoch, its number there, and whether it is the epoch's last."""

    epoch: int
    batch: int
    last: bool


class Stream:
    """All epochs as one sequence, so that every checkpoint is one within it.

    Lightning resumes within an epoch, at its end and at its beginning by different rules; here only the first is used.

    Parameters
    ----------
    dataset : Dataset
    batches : EdgeBatches
        The order of an epoch follows from its number and a seed.
    epochs : int
    """

    def __init__(self, dataset: Dataset, batches: EdgeBatches, epochs: int):
        self.dataset, self.batches = dataset, batches
        self.ends: list[int] = []  # of epochs, in batches from the beginning
        for epoch in range(epochs):
            batches.set_epoch(epoch)
            self.ends.append(len(batches) + (self.ends[-1] if self.ends else 0))
        self.handed_out = 0

    def __len__(self) -> int:
        return self.ends[-1]

    def place(self, number: int) -> Place:
        """Of batch `number` of the run."""
        epoch = bisect_right(self.ends, number)
        first = self.ends[epoch - 1] if epoch else 0
        return Place(epoch, number - first, number + 1 == self.ends[epoch])

    def __iter__(self) -> Iterator[Sample]:
        while self.handed_out < len(self):
            epoch, first, _ = self.place(self.handed_out)
            self.batches.set_epoch(epoch)
            for frames in list(self.batches)[first:]:
                self.handed_out += 1
                yield collate([self.dataset[k] for k in frames])

    def state_dict(self) -> dict[str, int]:
        """For Lightning's checkpoints."""
        return {"handed_out": self.handed_out}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after what had been handed out."""
        self.handed_out = state["handed_out"]
