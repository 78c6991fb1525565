"""ASE calculators."""

from mdgnn.calculators.ensemble import Ensemble
from mdgnn.calculators.function_calculator import FunctionCalculator
from mdgnn.calculators.mdgnn_calculator import MDGNNCalculator

__all__ = ["Ensemble", "FunctionCalculator", "MDGNNCalculator"]
