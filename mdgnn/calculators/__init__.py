"""ASE calculators."""

from mdgnn.calculators.calculator import MDGNNCalculator
from mdgnn.calculators.ensemble import Ensemble

__all__ = ["Ensemble", "MDGNNCalculator"]
