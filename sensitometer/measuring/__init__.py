"""Measures models that somebody trained: one, several on the same points, or one during its training."""

from .measurement import Mean, Measurement, measure, write_points

__all__ = ["Mean", "Measurement", "measure", "write_points"]
