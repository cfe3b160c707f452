"""Measures models that somebody trained: one, several on the same points, or one during its training."""

from .comparison import Comparison, compare
from .measurement import Mean, Measurement
from .model_on_data import measure
from .monitor import Monitor

__all__ = ["Comparison", "Mean", "Measurement", "Monitor", "compare", "measure"]
