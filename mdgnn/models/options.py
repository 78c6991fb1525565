"""Options that the networks have in common: what they are called, and what is refused."""

from typing import Any

COMMON: dict[str, Any] = {
    "readout": "sum",
    "shift": [0.0],
    "scale": [1.0],
    "units": "metal",
    "least_distance": 0.0,
}


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
