"""radial_filter: a function of distance with C values, from a table of values and slopes.

A filter network depends on the distance alone. Its value and slope at G knots, tabulated once, replace its evaluation
at every edge by a cubic Hermite interpolation, whose error falls as the fourth power of the knots' spacing:

    f(r) = f_0 + t (s_0 + t (3 d - 2 s_0 - s_1 + t (s_0 + s_1 - 2 d))),   d = f_1 - f_0,  s = h f'

between the knots r_0 <= r < r_1 = r_0 + h, with t = (r - r_0) / h. Value and slope are continuous. The second
derivative is that of the cubic on the interval of r, right of a knot where r is one; it jumps at knots, by O(h^2).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mdgnn.ops.checks import check_arrays


class RadialTable(NamedTuple):
    """A tabulated function of distance, zero from the cutoff on.

    Attributes
    ----------
    knots : (G, 2, C)
        Knot g stands at g h with h = cutoff / (G - 1); ``knots[g, 0]`` is the function and ``knots[g, 1]`` is h times
        its slope there.
    cutoff : float
        In Angstrom.
    """

    knots: Tensor
    cutoff: float


def tabulate(function: Callable[[Tensor], Tensor], cutoff: float, n_knots: int, like: Tensor) -> RadialTable:
    """The table of a function, differentiable twice with respect to the function's parameters.

    Parameters
    ----------
    function : callable
        (G,) distances -> (G, C), of operations with a forward-mode derivative, from which the slopes are. It should
        vanish at the cutoff with its slope; a table is zero beyond in any case.
    cutoff : float
    n_knots : int
        G, at least 2.
    like : Tensor
        Gives dtype and device.

    Raises
    ------
    ValueError
        If the cutoff is not positive, or there are fewer than two knots.
    """
    if n_knots < 2 or not cutoff > 0:
        raise ValueError(f"expected two knots or more and a positive cutoff, got {n_knots} knots and {cutoff}")
    r = torch.linspace(0, cutoff, n_knots, dtype=like.dtype, device=like.device)
    spacing = torch.full_like(r, cutoff / (n_knots - 1))
    return RadialTable(torch.stack(torch.func.jvp(function, (r,), (spacing,)), dim=1), cutoff)


def reference(table: RadialTable, r: Tensor) -> Tensor:
    """The specification, in plain torch; differentiable in knots and distances, as a polynomial is."""
    n_intervals = table.knots.shape[0] - 1
    x = (r * (n_intervals / table.cutoff)).clamp(max=n_intervals)
    interval = x.detach().to(torch.int64).clamp(max=n_intervals - 1)
    t = (x - interval)[:, None]
    (f0, s0), (f1, s1) = table.knots[interval].unbind(1), table.knots[interval + 1].unbind(1)
    d = f1 - f0
    f = f0 + t * (s0 + t * (3 * d - 2 * s0 - s1 + t * (s0 + s1 - 2 * d)))
    return torch.where((r < table.cutoff)[:, None], f, 0)


def radial_filter(table: RadialTable, r: Tensor) -> Tensor:
    """(E,) distances -> (E, C), interpolated; exactly 0 from the cutoff on.

    Parameters
    ----------
    table : RadialTable
    r : (E,), dtype and device of the knots
        Not negative, in the unit of the cutoff.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if not torch.compiler.is_compiling():
        check_table(table, r)
    return reference(table, r)


def check_table(table: RadialTable, r: Tensor) -> None:
    """Raise ValueError unless `table` is one, and `r` (E,) distances for it."""
    knots, cutoff = table
    if knots.ndim != 3 or knots.shape[0] < 2 or knots.shape[1] != 2 or not cutoff > 0:
        raise ValueError(
            f"expected a table with knots of shape (G, 2, C), G > 1, and a positive cutoff, "
            f"got {tuple(knots.shape)} and {cutoff}"
        )
    check_arrays(knots.dtype, knots.device, ("r", r, (r.numel(),)))


def table_address(knots: Tensor, cutoff: float) -> tuple[int, int, int, float]:
    """What a kernel takes of a contiguous table."""
    return knots.data_ptr(), knots.shape[0], knots.shape[2], cutoff
