"""Courses of the learning rate and of the weights in the loss: functions of step or epoch, with next to no state.

They are functions, and not torch's schedulers, so that a resumed run need not trust a scheduler's own idea of where it
was.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


def rate(schedule: str, step: int, n_steps: int, warmup: int) -> float:
    """Factor of the learning rate in step 0, 1 ... n_steps - 1; the plateau's own factor comes on top.

    All rise linearly in the first `warmup` steps. Then "constant" and "plateau" stay; "cosine" falls along half a
    cosine, to 0 at n_steps; "onecycle" rises along half a cosine from 1/25 in the first 30 % (or `warmup` steps, if
    that is more than 0) and falls to 1e-4/25, as in Smith and Topin, arXiv:1708.07120.
    """
    if schedule == "onecycle":
        top = warmup or max(1, round(0.3 * n_steps))
        if step < top:
            return _between(1 / 25, 1.0, step / top)
        return _between(1.0, 1e-4 / 25, (step - top) / max(1, n_steps - 1 - top))
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "cosine":
        return _between(1.0, 0.0, (step - warmup) / max(1, n_steps - warmup))
    return 1.0


def _between(first: float, last: float, progress: float) -> float:
    """Half a cosine from first to last as progress goes from 0 to 1."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def weight(points: float | Sequence[tuple[float, float]], epoch: float) -> float:
    """A number, or the value at an epoch of straight lines between (epoch, weight); constant before and after them."""
    if isinstance(points, (int, float)):
        return float(points)
    ordered = sorted(points)
    if epoch <= ordered[0][0]:
        return float(ordered[0][1])
    for (a, at_a), (b, at_b) in pairwise(ordered):
        if epoch < b:
            return at_a + (at_b - at_a) * (epoch - a) / (b - a)
    return float(ordered[-1][1])


def last_weight(points: float | Sequence[tuple[float, float]]) -> float:
    """The weight that stands at the end of the course."""
    return weight(points, math.inf)


@dataclass
class Progress:
    """The best validation so far, and how the run reacts when there is no better one.

    Attributes
    ----------
    best : float
        Its loss.
    waited : int
        Validations since then.
    drops : int
        How often the plateau's factor has been applied.
    since_drop : int
        Validations since the last of these, or since the best.
    """

    best: float = math.inf
    waited: int = 0
    drops: int = 0
    since_drop: int = 0

    def see(self, loss: float, patience: int) -> bool:
        """Note a validation; whether it is the best. After more than `patience` without a better one, a drop."""
        if loss < self.best:
            self.best, self.waited, self.since_drop = loss, 0, 0
            return True
        self.waited += 1
        self.since_drop += 1
        if self.since_drop > patience:
            self.drops, self.since_drop = self.drops + 1, 0
        return False
