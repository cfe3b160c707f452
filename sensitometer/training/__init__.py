"""The training engine: stacks of networks of one shape, trained in one pass."""

from .saving import Saver
from .schedule import Schedule
from .stack import Trained, train_stack

__all__ = ["Saver", "Schedule", "Trained", "train_stack"]
