"""Options of the networks: those that they have in common, and what is refused."""

import math
from typing import Any

from mdgnn.nn import BASES, ENVELOPES
from mdgnn.nn.filters import FILTER_MODES

COMMON: dict[str, Any] = {
    "readout": "sum",
    "shift": [0.0],
    "scale": [1.0],
    "units": "metal",
    "least_distance": 0.0,
}
RADIAL = {
    **COMMON,
    "basis_start": 0.0,
    "filters": "table",
    "n_knots": 1024,
    "repulsion": 0.0,
    "mean_neighbours": 1.0,
}
AGGREGATIONS = ("sum", "mean", "max")  # of SimpleGNN


def complete(model: str, given: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """The given options over the known ones with their defaults.

    Raises
    ------
    TypeError
        For an option that is not known.
    ValueError
        For a readout or unit that is not known.
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise TypeError(f"{model} has no option {unknown[0]!r}; options are {', '.join(known)}")
    options = {**known, **given}
    require("readout", options["readout"], ("sum", "mean"))
    require("units", options["units"], ("metal", "lj"))
    return options


def require(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    """Raise ValueError unless the value is allowed."""
    if value not in allowed:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}")


def require_positive(name: str, value: float) -> None:
    """Raise ValueError unless the value is positive."""
    if not value > 0:
        raise ValueError(f"expected a positive {name}, got {value}")


def require_basis_start(start: float, below: float) -> None:
    """Raise ValueError unless a basis can begin there; `below` is 0 for one that begins at 0 or has its own numbers."""
    if start and not 0 <= start < below:
        where = (
            f"from 0 to the cutoff of {below}" if below else "for the basis 'exponential' or of even Gaussians alone"
        )
        raise ValueError(f"expected a basis_start {where}, got {start}")


def three_numbers(basis: Any) -> list[float]:
    """First centre, last centre and width of Gaussians."""
    if isinstance(basis, str) or len(basis) != 3:
        raise ValueError(f"expected a basis as (first centre, last centre, width) or 'exponential', got {basis!r}")
    require_positive("width of the basis", basis[2])
    return list(basis)


def check_simple_gnn(config: dict[str, Any]) -> None:
    """Raise ValueError unless the configuration of a SimpleGNN, options included, makes one."""
    require("envelope", config["envelope"], (None, *ENVELOPES))
    require("aggregation", config["aggregation"], AGGREGATIONS)
    require_positive("cutoff", config["cutoff"])
    require_basis_start(config["basis_start"], config["cutoff"] if config["basis"] == "exponential" else 0.0)
    _check_distances(config)
    if config["mean_neighbours"] != 1 and config["aggregation"] != "sum":
        raise ValueError(
            f"expected mean_neighbours, which sums of messages are divided by, with the aggregation 'sum' alone, got "
            f"{config['mean_neighbours']} with {config['aggregation']!r}"
        )


def _check_distances(config: dict[str, Any]) -> None:
    require("filters", config["filters"], FILTER_MODES)
    if config["n_knots"] < 2:
        raise ValueError(f"expected two knots or more, got {config['n_knots']}")
    if isinstance(config["repulsion"], bool) or not isinstance(config["repulsion"], (int, float)):
        raise ValueError(f"expected a repulsion as the distance it begins at, or 0, got {config['repulsion']!r}")
    n = config["mean_neighbours"]
    if isinstance(n, bool) or not isinstance(n, (int, float)) or not 0 < n < math.inf:
        raise ValueError(f"expected mean_neighbours as a positive number, got {n!r}")


def check_radial(config: dict[str, Any]) -> None:
    """Raise ValueError unless the configuration of a network of filters, options included, makes one."""
    for name in ("n_features", "n_interactions"):
        require_positive(name, config[name])
    require_positive("cutoff", config["cutoff"])
    require("basis", config["basis"], tuple(BASES))
    require_basis_start(config["basis_start"], 0.0 if config["basis"] == "bessel" else config["cutoff"])
    require("envelope", config["envelope"], tuple(ENVELOPES))
    _check_distances(config)
    if config["elements"] != "any" and not isinstance(config["elements"], list):
        raise ValueError(f"expected elements as 'any' or a list of atomic numbers, got {config['elements']!r}")
