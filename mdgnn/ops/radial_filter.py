"""radial_filter: a function of distance with C values, from a table of cubic polynomials.

A filter network depends on the distance alone. Its value and slope at G knots, tabulated once, replace its evaluation
at every edge by a cubic Hermite interpolation, whose error falls as the fourth power of the knots' spacing h:

    f(r) = f_0 + t (s_0 + t (3 d - 2 s_0 - s_1 + t (s_0 + s_1 - 2 d))),   d = f_1 - f_0,  s = h f'

between the knots r_0 <= r < r_1 = r_0 + h, with t = (r - r_0) / h. Value and slope are continuous. The second
derivative is that of the cubic on the interval of r, right of a knot where r is one; it jumps at knots, by O(h^2).

The table holds the four coefficients, worked out in float64 and then rounded. Values and slopes rounded to float32
would make d, and with it the slope, wrong by G times the rounding. In a table in float32 both are zero
where both are below 1e-30: they, and their products with small gradients, would be subnormal numbers there, with which
an addition takes processors a hundred times as long. Exponentials of a repulsion are such numbers at most distances.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from mdgnn.ops.dual import value_and_slope
from mdgnn.ops.kernels import kernels_for

SMALLEST = 1e-30  # of a value or a slope in float32


class RadialTable(NamedTuple):
    """A tabulated function of distance, zero from the cutoff on.

    Attributes
    ----------
    coefficients : (G - 1, 4, C)
        Of 1, t, t^2 and t^3 on each interval.
    cutoff : float
        Where the last interval ends, in Angstrom.
    function : callable, optional
        What the table is of: (G,) distances -> (G, C), both float64.
    """

    coefficients: Tensor
    cutoff: float
    function: Callable[[Tensor], Tensor] | None = None


class TabulatedFilter(NamedTuple):
    """A table and the distances at which it is asked, (E,): a filter that no array of edges x C is made of."""

    table: RadialTable
    r: Tensor


Filter: TypeAlias = TabulatedFilter | Tensor
"""What messages are multiplied with: interpolated from a table, or values (E, C) at the edges."""


def tabulate(function: Callable[[Tensor], Tensor], cutoff: float, n_knots: int, like: Tensor) -> RadialTable:
    """The table of a function, differentiable twice with respect to the function's parameters.

    Parameters
    ----------
    function : callable
        (G,) distances -> (G, C), both float64, differentiable. It should vanish at the cutoff with its slope; a table
        is zero beyond in any case. Operations that `mdgnn.ops.dual` has rules for take half the time.
    cutoff : float
    n_knots : int
        G, at least 2.
    like : Tensor
        Gives dtype and device of the table.

    Raises
    ------
    ValueError
        If the cutoff is not positive, or there are fewer than two knots.
    """
    if n_knots < 2 or not cutoff > 0:
        raise ValueError(f"expected two knots or more and a positive cutoff, got {n_knots} knots and {cutoff}")
    r = torch.linspace(0, cutoff, n_knots, dtype=torch.float64, device=like.device)
    spacing = torch.full_like(r, cutoff / (n_knots - 1))
    values, slopes = value_and_slope(function, r, spacing)
    if like.dtype == torch.float32:
        small = torch.maximum(values.abs(), slopes.abs()) < SMALLEST
        values, slopes = values.masked_fill(small, 0.0), slopes.masked_fill(small, 0.0)
    return RadialTable(hermite(values, slopes).to(like.dtype), cutoff, function)


def hermite(values: Tensor, slopes: Tensor) -> Tensor:
    """Values and h times slopes at knots, (G, C), -> coefficients (G - 1, 4, C)."""
    f, s, d = values[:-1], slopes, values.diff(dim=0)
    return torch.stack([f, s[:-1], 3 * d - 2 * s[:-1] - s[1:], s[:-1] + s[1:] - 2 * d], dim=1)


def reference(table: RadialTable, r: Tensor) -> Tensor:
    """The specification, in plain torch; differentiable in coefficients and distances, as a polynomial is."""
    n_intervals = table.coefficients.shape[0]
    x = (r * (n_intervals / table.cutoff)).clamp(max=n_intervals)
    interval = x.detach().to(torch.int64).clamp(max=n_intervals - 1)
    t = (x - interval)[:, None]
    a, b, c, d = table.coefficients[interval].unbind(1)
    return torch.where((r < table.cutoff)[:, None], a + t * (b + t * (c + t * d)), 0)


def radial_filter(table: RadialTable, r: Tensor) -> Tensor:
    """(E,) distances -> (E, C), interpolated; exactly 0 from the cutoff on.

    Parameters
    ----------
    table : RadialTable
    r : (E,), dtype and device of the table
        Not negative, in the unit of the cutoff.

    Raises
    ------
    ValueError
        If a shape, dtype or device does not fit.
    """
    if not torch.compiler.is_compiling():
        check_table(table.coefficients, table.cutoff)
        if table.coefficients.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"expected a table in float32 or float64, got {table.coefficients.dtype}")
        if r.ndim != 1 or r.dtype != table.coefficients.dtype or r.device != table.coefficients.device:
            raise ValueError(
                f"expected r of shape (E,) {table.coefficients.dtype} on {table.coefficients.device}, "
                f"got {tuple(r.shape)} {r.dtype} on {r.device}"
            )
    return reference(table, r)


def check_values(x: Tensor, /, **arrays: tuple[Tensor, tuple[int, ...]]) -> None:
    """Raise ValueError unless arrays have the shapes beside them, and the dtype and device of x."""
    for name, (array, shape) in arrays.items():
        if array.shape != shape or array.dtype != x.dtype or array.device != x.device:
            raise ValueError(
                f"expected {name} of shape {shape} {x.dtype} on {x.device}, "
                f"got {tuple(array.shape)} {array.dtype} on {array.device}"
            )


def check_table(coefficients: Tensor, cutoff: float) -> None:
    """Raise ValueError unless they are those of a table."""
    if coefficients.ndim != 3 or coefficients.shape[0] < 1 or coefficients.shape[1] != 4 or not cutoff > 0:
        raise ValueError(
            f"expected a table with coefficients of shape (G - 1, 4, C), G > 1, and a positive cutoff, "
            f"got {tuple(coefficients.shape)} and {cutoff}"
        )


def table_workspace(coefficients: Tensor, r: Tensor, needs_grad: bool = True) -> Tensor | None:
    """Memory in which the kernels of a GPU sort edges for the gradient of a table; None where none is needed."""
    if not needs_grad or coefficients.is_cpu:
        return None
    n_intervals, _, width = coefficients.shape
    n_bytes = kernels_for(coefficients)[0].table_workspace(r.element_size(), r.shape[0], n_intervals, width)
    return torch.empty(n_bytes, dtype=torch.uint8, device=r.device)
