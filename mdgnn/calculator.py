"""Where `MDGNNCalculator` used to be: it is in `mdgnn`. This goes with the next release."""

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdgnn.calculators import MDGNNCalculator

__all__ = ["MDGNNCalculator"]


def __getattr__(name: str) -> Any:
    if name != "MDGNNCalculator":
        raise AttributeError(f"module 'mdgnn.calculator' has no attribute {name!r}")
    from mdgnn import MDGNNCalculator

    warnings.warn("mdgnn.calculator goes with the next release: import MDGNNCalculator from mdgnn", FutureWarning, 2)
    return MDGNNCalculator
