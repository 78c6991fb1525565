"""What a network need not learn: energies of lone atoms and the size of forces, from the training data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from mdgnn.data import Sample

Array = NDArray[np.float64]
LIMIT = 6.0  # robust standard deviations: energies that are further off hardly count
ROUNDING = 1e-9  # of energies


class Summary(NamedTuple):
    """Of a data set of S structures; those without a weight do not count in means or fits.

    Attributes
    ----------
    elements : list of int
    counts : (S, elements)
        Compositions.
    energies : (S,)
        NaN where there is none.
    lone : (S,) bool
        Which are one atom without edges.
    weights : (S,)
    squares, n_components : (S,)
        Sum of the squares of known force components, and their number.
    strongest : (S,)
        Size of the largest force, NaN where there are none.
    shortest : (S,)
        Least length of an edge, infinite where there are none.
    neighbours : (S,)
        Mean number of edges that an atom receives.
    mean_neighbours : float
        Number of edges that an atom receives, the mean over edges: dense structures decide it, few as they may be.
    """

    elements: list[int]
    counts: Array
    energies: Array
    lone: NDArray[np.bool_]
    weights: Array
    squares: Array
    n_components: Array
    strongest: Array
    shortest: Array
    neighbours: Array
    mean_neighbours: float

    @property
    def rms_force(self) -> float:
        """Root mean square of force components, 0 without forces."""
        squares, n = 0.0, 0.0
        for weight, square, count in zip(self.weights, self.squares, self.n_components, strict=True):
            squares, n = squares + float(weight * square), n + float(weight * count)
        return math.sqrt(squares / n) if n else 0.0


def summarize(samples: Iterable[Sample], elements: Sequence[int]) -> Summary:
    """Look at every structure once.

    Raises
    ------
    ValueError
        If there are no structures.
    """
    counts, rows, met, edges = [], [], 0.0, 0.0
    for graph, targets in samples:
        numbers = graph.atomic_numbers.numpy()
        counts.append([np.count_nonzero(numbers == z) for z in elements])
        forces = np.zeros((0, 3)) if targets.forces is None else targets.forces.numpy()
        known = forces[np.isfinite(forces)]
        received = graph.row_ptr.diff().double()
        met, edges = met + float(received.square().sum()), edges + float(received.sum())
        rows.append(
            (
                math.nan if targets.energy is None else float(targets.energy[0]),
                graph.n_atoms == 1 and not graph.n_edges,
                float(targets.weight),
                float(np.square(known).sum()),
                known.size,
                math.sqrt(float(np.square(forces).sum(1).max())) if len(forces) else math.nan,
                float(graph.vectors.square().sum(1).min().sqrt()) if graph.n_edges else math.inf,
                graph.n_edges / graph.n_atoms,
            )
        )
    if not counts:
        raise ValueError("expected structures to train on, got none")
    energies, lone, weights, squares, n, strongest, shortest, neighbours = np.array(rows, dtype=np.float64).T
    of_forces, of_edges = (squares, n, strongest), (shortest, neighbours, met / edges if edges else 0.0)
    table = np.array(counts, dtype=np.float64)
    return Summary(list(elements), table, energies, lone > 0, weights, *of_forces, *of_edges)


def least_squares(summary: Summary) -> Array:
    """(elements,) energies whose sums over the compositions are nearest to the structures' energies, which count
    by their weights, and hardly where they are far off: see `robust_weights`.

    Where compositions do not tell elements apart, the smallest such energies.

    Raises
    ------
    ValueError
        If no structure has an energy.
    """
    known = np.isfinite(summary.energies) & (summary.weights > 0)
    if not known.any():
        raise ValueError(
            "reference energies by least squares need energies, and no structure of the training set has one"
        )
    root = np.sqrt(robust_weights(summary)[known])
    table = summary.counts[known] * root[:, None]
    return np.asarray(np.linalg.lstsq(table, summary.energies[known] * root, rcond=None)[0], np.float64)


def robust_weights(summary: Summary) -> Array:
    """(S,) weights of the energies in a fit: those of the structures, times (limit / residual)^4 beyond the limit.

    Residuals are those per atom of `rest_of`, the limit is `LIMIT` of their spreads. So a wrong energy moves less the
    further off it is, and none loses all its weight: it may be the only one of its element. Of lone atoms, which are
    off by what binds the others, all count as they are.
    """
    several = np.isfinite(summary.energies) & (summary.weights > 0) & (summary.counts.sum(1) > 1)
    weights = summary.weights.copy()
    n_atoms = summary.counts[several].sum(1)
    n_free = rank_of(summary.counts[several])
    if len(n_atoms) <= 2 * n_free + 1:  # any of them may be the one that is off
        return weights
    energies = summary.energies[several] / n_atoms
    rest = rest_of(summary.counts[several] / n_atoms[:, None], energies)
    limit = LIMIT * spread_of(rest, n_free) + ROUNDING * float(np.abs(energies).max())
    weights[several] *= (limit / np.maximum(np.abs(rest), limit)) ** 4 if limit else 1.0
    return weights


def rank_of(counts: Array) -> int:
    """How many energies compositions (S, elements) can tell apart."""
    return int(np.linalg.matrix_rank(counts)) if len(counts) else 0


def spread_of(rest: Array, n_free: int) -> float:
    """The robust standard deviation of what a fit of so many energies has left, of which as many vanish."""
    sizes = np.sort(np.abs(rest))[max(n_free - 1, 0) :]
    return 1.4826 * float(np.median(sizes)) if len(sizes) else 0.0


def rest_of(shares: Array, energies: Array) -> Array:
    """What compositions (S, elements) leave of energies per atom (S,), at least in sum, which few outliers do not move.

    By least squares with weights 1 / size, again and again (Schlossmacher, J. Am. Stat. Assoc. 68, 857, 1973).
    """
    weights = np.ones(len(energies))
    for _ in range(50):
        root = np.sqrt(weights)
        fit = np.linalg.lstsq(shares * root[:, None], energies * root, rcond=None)[0]
        rest = energies - shares @ fit
        size = np.abs(rest)
        weights = 1 / np.maximum(size, 1e-3 * float(np.median(size)) + 1e-12 * float(np.abs(energies).max()) + 1e-300)
    return np.asarray(rest - np.median(rest))


def isolated(summary: Summary, of: str) -> Array:
    """(elements,) energies of the structures that are one atom without neighbours.

    Parameters
    ----------
    summary : Summary
    of : str
        What holds them, for the error.

    Raises
    ------
    ValueError
        If an element has no lone atom with an energy, or several with different ones; the message names it.
    """
    lone: dict[int, float] = {}
    known = summary.lone & np.isfinite(summary.energies) & (summary.counts.sum(1) == 1)
    for counts, energy in zip(summary.counts[known], summary.energies[known].tolist(), strict=True):
        place = int(counts.argmax())
        if lone.setdefault(place, energy) != energy:
            symbol = chemical_symbols[summary.elements[place]]
            raise ValueError(f"{of} has lone atoms of {symbol} with different energies, {lone[place]} and {energy}")
    return _complete(lone, summary.elements, f"{of} has no lone atom")


def given(energies: Mapping[str, float], elements: Sequence[int]) -> Array:
    """(elements,) from energies by chemical symbol.

    Raises
    ------
    ValueError
        For a symbol that is none, or an element without an energy.
    """
    for symbol in energies:
        if symbol not in atomic_numbers or symbol == "X":
            raise ValueError(f"[model] references: {symbol!r} is not a chemical symbol")
    places = {z: place for place, z in enumerate(elements)}
    of = {places[atomic_numbers[symbol]]: e for symbol, e in energies.items() if atomic_numbers[symbol] in places}
    return _complete(of, elements, "[model] references has no energy")


def _complete(energies: Mapping[int, float], elements: Sequence[int], problem: str) -> Array:
    missing = [chemical_symbols[z] for place, z in enumerate(elements) if place not in energies]
    if missing:
        raise ValueError(f"{problem} of {', '.join(missing)}")
    return np.array([energies[place] for place in range(len(elements))])
