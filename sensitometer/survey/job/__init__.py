"""A job: what a worker does with one stack. Train it, measure it, make its rows and arrays."""

from ..scheduling.cost import Measures

__all__ = ["Measures"]
